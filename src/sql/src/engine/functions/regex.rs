//! `regexp_replace`, with PostgreSQL's replacements: `\1` to `\9` are groups, `\&` is the whole match, `\\` a backslash.

use super::{Function, each_row, is_text, text, wrong_types};
use crate::engine::bounds::Texts;
use crate::engine::errors::wrap;
use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ScalarFunctionArgs, ScalarUDF};
use model::{Code, Error};
use regex::{Captures, Regex, RegexBuilder};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Function::new("regexp_replace", coerce, text, regexp_replace).udf()]
}

fn coerce(types: &[DataType]) -> DfResult<Vec<DataType>> {
    match types.len() {
        3 | 4 if types.iter().all(is_text) => Ok(vec![DataType::Utf8View; types.len()]),
        _ => wrong_types("regexp_replace"),
    }
}

/// What stands in the place of a match.
enum Part<'a> {
    Text(&'a str),
    Group(usize),
}

/// A replacement's parts, as they are asked for. A backslash before anything else is itself.
fn parts(replacement: &str) -> impl Iterator<Item = Part<'_>> {
    let mut left = replacement;
    std::iter::from_fn(move || {
        let (part, taken) = match left.as_bytes() {
            [] => return None,
            [b'\\', b'&', ..] => (Part::Group(0), 2),
            [b'\\', digit @ b'1'..=b'9', ..] => (Part::Group(usize::from(digit - b'0')), 2),
            [b'\\', b'\\', ..] => (Part::Text("\\"), 2),
            [b'\\', ..] => (Part::Text("\\"), 1),
            _ => {
                let end = left.find('\\').unwrap_or(left.len());
                (Part::Text(&left[..end]), end)
            }
        };
        left = &left[taken..];
        Some(part)
    })
}

/// The part's text in a match: that of a group that took no part is empty.
fn shown<'a>(part: &Part<'a>, captures: &Captures<'a>) -> &'a str {
    match part {
        Part::Text(text) => text,
        Part::Group(group) => captures.get(*group).map_or("", |found| found.as_str()),
    }
}

/// A regular expression with its flags, and whether all its matches are replaced.
struct Pattern {
    regex: Regex,
    is_global: bool,
}

impl Pattern {
    /// Errors: `InvalidStatement`.
    fn new(pattern: &str, flags: &str) -> DfResult<Self> {
        let unreadable = || Error::new(Code::InvalidStatement, "a regular expression, or its flags, can not be read");
        let (mut builder, mut is_global) = (RegexBuilder::new(pattern), false);
        for flag in flags.chars() {
            match flag {
                'g' => is_global = true,
                'c' => drop(builder.case_insensitive(false)),
                'i' => drop(builder.case_insensitive(true)),
                'm' | 'n' => drop(builder.multi_line(true)),
                's' => drop(builder.dot_matches_new_line(true)),
                'x' => drop(builder.ignore_whitespace(true)),
                _ => return Err(wrap(unreadable())),
            }
        }
        let regex = builder.build().map_err(|_| wrap(unreadable()))?;
        Ok(Self { regex, is_global })
    }

    fn replace(&self, text: &str, replacement: &str, texts: &mut Texts) -> DfResult<()> {
        let (mut made, mut copied, mut at) = (String::new(), 0, 0);
        texts.reserve(text.len())?;
        while let Some(captures) = self.regex.captures_at(text, at) {
            let whole = captures.get_match();
            texts.reserve(parts(replacement).map(|part| shown(&part, &captures).len()).sum())?;
            made.push_str(&text[copied..whole.start()]);
            made.extend(parts(replacement).map(|part| shown(&part, &captures)));
            copied = whole.end();
            // After a match of nothing, the next one begins a character later.
            let next = text[copied..].chars().next().filter(|_| whole.is_empty()).map_or(0, char::len_utf8);
            at = copied + next;
            if !self.is_global || whole.is_empty() && next == 0 {
                break;
            }
        }
        made.push_str(&text[copied..]);
        texts.made.append_value(made);
        Ok(())
    }
}

/// How many regular expressions of a batch are kept.
const KEPT_MAX: usize = 64;

fn regexp_replace(args: &[ArrayRef], _: &ScalarFunctionArgs) -> DfResult<ArrayRef> {
    let columns: Vec<_> = args.iter().map(|arg| arg.as_string_view()).collect();
    let mut kept: HashMap<(&str, &str), Pattern> = HashMap::new();
    each_row(args, |row, texts| {
        let [text, pattern, replacement] = [0, 1, 2].map(|at| columns[at].value(row));
        let flags = columns.get(3).map_or("", |flags| flags.value(row));
        if kept.len() == KEPT_MAX && !kept.contains_key(&(pattern, flags)) {
            kept.clear();
        }
        let used = match kept.entry((pattern, flags)) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(new) => new.insert(Pattern::new(pattern, flags)?),
        };
        used.replace(text, replacement, texts)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bounds::BYTES_MAX;

    fn replaced(text: &str, pattern: &str, replacement: &str, flags: &str) -> DfResult<String> {
        let mut texts = Texts::new(1);
        Pattern::new(pattern, flags)?.replace(text, replacement, &mut texts)?;
        Ok(texts.finish().as_string_view().value(0).to_owned())
    }

    #[test]
    fn a_replacement_names_groups() {
        assert_eq!(replaced("ab-cd", "(.)(.)", r"\2\1", "").unwrap(), "ba-cd");
        assert_eq!(replaced("ab-cd", "([a-z])([a-z])", r"\2\1", "g").unwrap(), "ba-dc");
        assert_eq!(replaced("ab", "b", r"<\&>", "").unwrap(), "a<b>");
        assert_eq!(replaced("ab", "b", r"\\1\", "").unwrap(), r"a\1\");
        assert_eq!(replaced("ab", "b", r"\9$1", "").unwrap(), "a$1");
        assert_eq!(replaced("ab", "b", r"\0", "").unwrap(), r"a\0");
        assert_eq!(replaced("ab", "", "-", "g").unwrap(), "-a-b-");
        assert_eq!(replaced("abc", "b*", "-", "g").unwrap(), "-a--c-");
        assert_eq!(replaced("éa", "x*", "-", "g").unwrap(), "-é-a-");
        assert_eq!(replaced("AB", "b", "x", "i").unwrap(), "Ax");
        assert!(replaced("a", "a", "", "q").is_err());
    }

    #[test]
    fn results_have_a_bound() {
        let text = "a".repeat(1 << 10);
        let replacement = "x".repeat(BYTES_MAX >> 10);
        assert!(replaced(&text, "a", &replacement, "").is_ok());
        assert!(replaced(&text, "a", &replacement, "g").is_err());
        assert!(replaced(&text, "a+", &r"\&".repeat(BYTES_MAX >> 10), "g").is_err());
    }
}
