//! JSON as text: whether a text is JSON, and its parts, cut out as they were written.
//!
//! Nothing is built from the text but what is asked for, and nesting is bounded.

/// Values inside one another that are followed.
const DEPTH_MAX: usize = 128;

/// Whether a text is one JSON value.
pub fn is_json(text: &str) -> bool {
    let mut cursor = Cursor { bytes: text.as_bytes(), at: 0 };
    cursor.blanks();
    cursor.value(0).is_some() && {
        cursor.blanks();
        cursor.at == cursor.bytes.len()
    }
}

/// A string's content, or the value as it was written; None for null.
pub fn plain(json: &str) -> Option<String> {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inside) => Some(unescaped(inside)),
        None if json == "null" => None,
        None => Some(json.to_owned()),
    }
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    let mut high = None;
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let unit = u32::from_str_radix(&digits, 16).unwrap_or(0xfffd);
                match (high.take(), unit) {
                    (_, 0xd800..=0xdbff) => high = Some(unit),
                    (Some(first), 0xdc00..=0xdfff) => {
                        let point = 0x10000 + ((first - 0xd800) << 10) + (unit - 0xdc00);
                        out.push(char::from_u32(point).unwrap_or('\u{fffd}'));
                    }
                    (_, unit) => out.push(char::from_u32(unit).unwrap_or('\u{fffd}')),
                }
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

/// The value of an object's field: the last one of the name, as in PostgreSQL.
pub fn field<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let mut cursor = Cursor { bytes: json.as_bytes(), at: 0 };
    cursor.blanks();
    cursor.sign(b'{')?;
    let mut found = None;
    cursor.blanks();
    if cursor.sign(b'}').is_some() {
        return None;
    }
    loop {
        cursor.blanks();
        let name = cursor.at;
        cursor.string()?;
        let is_it = unescaped(json.get(name + 1..cursor.at - 1)?) == key;
        cursor.blanks();
        cursor.sign(b':')?;
        cursor.blanks();
        let start = cursor.at;
        cursor.value(0)?;
        if is_it {
            found = json.get(start..cursor.at);
        }
        cursor.blanks();
        if cursor.sign(b',').is_none() {
            return cursor.sign(b'}').and(found);
        }
    }
}

/// An array's item, counted from 0, or from the end when negative.
pub fn item(json: &str, at: i64) -> Option<&str> {
    let mut all = Vec::new();
    items(json, &mut |item| all.push(item))?;
    let at = if at < 0 { at.checked_add(i64::try_from(all.len()).ok()?)? } else { at };
    all.get(usize::try_from(at).ok()?).copied()
}

/// Calls `each` with the items of an array; None when the text is none.
pub fn items<'a>(json: &'a str, each: &mut dyn FnMut(&'a str)) -> Option<()> {
    let mut cursor = Cursor { bytes: json.as_bytes(), at: 0 };
    cursor.blanks();
    cursor.sign(b'[')?;
    cursor.blanks();
    if cursor.sign(b']').is_some() {
        return Some(());
    }
    loop {
        cursor.blanks();
        let start = cursor.at;
        cursor.value(0)?;
        each(json.get(start..cursor.at)?);
        cursor.blanks();
        if cursor.sign(b',').is_none() {
            return cursor.sign(b']');
        }
    }
}

/// Walks over a text; each step is None where it is not JSON.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn sign(&mut self, sign: u8) -> Option<()> {
        (self.peek()? == sign).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    fn string(&mut self) -> Option<()> {
        self.sign(b'"')?;
        loop {
            match self.peek()? {
                b'"' => return self.sign(b'"'),
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'u' => {
                            let digits = self.bytes.get(self.at + 1..self.at + 5)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                            self.at += 5;
                        }
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                        _ => return None,
                    }
                }
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.sign(b'-');
        let start = self.at;
        self.digits()?;
        if self.bytes[start] == b'0' && self.at > start + 1 {
            return None;
        }
        if self.sign(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            b'{' => self.list(b'{', b'}', depth, true),
            b'[' => self.list(b'[', b']', depth, false),
            b'"' => self.string(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn list(&mut self, open: u8, close: u8, depth: usize, named: bool) -> Option<()> {
        self.sign(open)?;
        self.blanks();
        if self.sign(close).is_some() {
            return Some(());
        }
        loop {
            self.blanks();
            if named {
                self.string()?;
                self.blanks();
                self.sign(b':')?;
                self.blanks();
            }
            self.value(depth + 1)?;
            self.blanks();
            if self.sign(b',').is_none() {
                return self.sign(close);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_other_texts() {
        for text in ["{}", " [1, 2.5e-3, -0] ", "null", "\"a\\u00e4\\n\"", "{\"a\": {\"b\": [true, false]}}"] {
            assert!(is_json(text), "{text}");
        }
        for text in ["", "{", "[1,]", "{a: 1}", "01", "1.", "\"a", "nul", "[1] 2", "\"\\x\"", "{\"a\" 1}"] {
            assert!(!is_json(text), "{text}");
        }
        assert!(!is_json(&"[".repeat(100_000)));
    }

    #[test]
    fn parts_are_cut_out_as_they_were_written() {
        let json = r#"{"a": 1, "b" : [1, {"x": "y\"z"}], "a": 2}"#;
        assert_eq!(field(json, "a"), Some("2"));
        assert_eq!(field(json, "b"), Some(r#"[1, {"x": "y\"z"}]"#));
        assert_eq!(field(json, "c"), None);
        assert_eq!(item("[1, \"two\", null]", -1), Some("null"));
        assert_eq!(item("[1]", 5), None);
        assert_eq!(plain(r#""y\"z\ud83d\ude00""#).as_deref(), Some("y\"z😀"));
        assert_eq!(plain("null"), None);
    }
}
