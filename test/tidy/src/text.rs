//! Rules for every text file.

use crate::{Finding, Source};

/// Above this a file holds more than one thing.
const LINES_MAX: usize = 800;
const CHARS_MAX: usize = 120;

/// Files whose form is not ours to choose.
fn is_foreign(source: &Source) -> bool {
    source.path == "Cargo.lock" || source.path.contains("/scripts/") || matches!(source.extension(), "slt" | "golden")
}

pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_foreign(source) {
        return findings;
    }
    let code = matches!(source.extension(), "rs" | "py" | "lua");
    if code && source.text.lines().count() > LINES_MAX {
        findings.push(Finding::new(source, 1, format!("has more than {LINES_MAX} lines")));
    }
    for (at, line) in source.text.lines().enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(source, at + 1, "ends in white space"));
        }
        // Long literals can not be broken, so only what no rustfmt looks at is measured.
        if source.extension() == "lua" && line.chars().count() > CHARS_MAX {
            findings.push(Finding::new(source, at + 1, format!("is longer than {CHARS_MAX} characters")));
        }
        if let Some(folder) = ["/home/", "/root/", "/work/"].into_iter().find(|f| has_path(line, f)) {
            findings.push(Finding::new(source, at + 1, format!("names a path of one machine, {folder}")));
        }
    }
    if !source.text.is_empty() && !source.text.ends_with('\n') {
        findings.push(Finding::new(source, source.text.lines().count(), "does not end with a newline"));
    }
    findings
}

/// Whether an absolute path begins in the line, not one inside a longer path or this list itself.
fn has_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + folder.len()..].chars().next();
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-' | '}' | ')' | '~'));
        starts && after.is_some_and(|c| c.is_alphanumeric() || c == '.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&Source { path: path.into(), text: text.into() }).into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn finds_what_is_wrong_and_nothing_else() {
        assert_eq!(findings("a.md", "fine\n"), Vec::<String>::new());
        assert_eq!(findings("a.md", "blank \n").len(), 1);
        assert_eq!(findings("a.md", "no newline").len(), 1);
        assert_eq!(findings("a.rs", &"//\n".repeat(801)).len(), 1);
        assert_eq!(findings("a.md", concat!("see /ro", "ot/x\n")).len(), 1);
        assert_eq!(findings("a.md", "$HOME/work/x ../work/main\n"), Vec::<String>::new());
    }
}
