//! The documentation must know what the code knows: every room has its chapter, every error code its line.

use crate::{Finding, Source};
use model::Code;
use std::collections::BTreeSet;

/// The rooms: folders of `src/` that hold a crate.
pub fn rooms(sources: &[Source]) -> BTreeSet<&str> {
    sources
        .iter()
        .filter_map(|s| s.path.strip_prefix("src/")?.strip_suffix("/Cargo.toml"))
        .filter(|room| !room.contains('/'))
        .collect()
}

pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let missing = |path: &str, what: String| Finding { path: path.to_owned(), line: 1, what };
    for room in rooms(sources) {
        // A large room has a chapter a part: room-part.md.
        let (whole, part) = (format!("docs/architecture/{room}.md"), format!("docs/architecture/{room}-"));
        if !sources.iter().any(|s| s.path == whole || s.path.starts_with(&part)) {
            findings.push(missing(&whole, "the room's chapter is missing".into()));
        }
    }
    let path = "docs/errors.md";
    let Some(errors) = sources.iter().find(|s| s.path == path) else {
        return vec![missing(path, "is missing".into())];
    };
    let documented: BTreeSet<&str> = errors.text.lines().filter(|l| l.starts_with("| 2")).collect();
    for code in Code::ALL {
        let retry = if code.is_retryable() { "yes" } else { "no" };
        let start = format!("| {} | `{}` | {retry} |", *code as u32, code.name());
        if !documented.iter().any(|line| line.starts_with(&start)) {
            findings.push(missing(path, format!("lacks the line that begins {start}")));
        }
    }
    if documented.len() > Code::ALL.len() {
        findings.push(missing(path, "documents codes that do not exist".into()));
    }
    findings
}
