//! Rules for Rust files. They read lines as rustfmt lays them out, so they need no parser.

use crate::{Finding, Source};

/// A function that does not fit two screens does more than one thing.
const FUNCTION_LINES_MAX: usize = 100;

/// What must not stand in code that runs in production, and why.
const BANNED: &[(&str, &str)] = &[
    (".unwrap()", "unwrap can panic: return an error"),
    (".expect(", "expect can panic: return an error"),
    ("todo!(", "unfinished"),
    ("unimplemented!(", "unfinished"),
    ("dbg!(", "left from debugging"),
    ("println!(", "the host's log is the place to write to"),
    ("process::exit(", "only the host ends the process"),
    ("std::thread::sleep(", "blocks a thread that others need"),
    ("TODO", "unfinished"),
    ("FIXME", "unfinished"),
];

/// Whether the file's code ends up in the module. The simulator, benchmarks and tests may panic.
fn is_production(path: &str) -> bool {
    path.starts_with("src/")
        && !path.starts_with("src/sim/")
        && !path.contains("/tests/")
        && !path.contains("/testing/")
        && !path.contains("/benches/")
        && !path.contains("/examples/")
        && !path.ends_with("/tests.rs")
        && !path.ends_with("_tests.rs")
        && !path.ends_with("build.rs")
}

pub fn check(source: &Source) -> Vec<Finding> {
    if source.extension() != "rs" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if !source.text.starts_with("//!") {
        findings.push(Finding::new(source, 1, "does not open with //! prose"));
    }
    functions(source, &mut findings);
    if is_production(&source.path) {
        banned(source, &mut findings);
    }
    findings
}

fn functions(source: &Source, findings: &mut Vec<Finding>) {
    let lines: Vec<&str> = source.text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if !opens_function(line.trim_start()) {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        let Some(length) = lines[at..].iter().position(|l| *l == closing) else { continue };
        if length + 1 > FUNCTION_LINES_MAX {
            findings.push(Finding::new(source, at + 1, format!("a function of {} lines", length + 1)));
        }
    }
}

fn opens_function(line: &str) -> bool {
    let words = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    line.split(' ').find(|word| !words.contains(word)) == Some("fn") && !line.ends_with(';') && !line.ends_with('}')
}

fn banned(source: &Source, findings: &mut Vec<Finding>) {
    // Tests stand at the end of a file, by convention; a helper for tests alone stands behind the same attribute.
    let tests = source.text.find("#[cfg(test)]\nmod ").unwrap_or(source.text.len());
    for (at, line) in source.text[..tests].lines().enumerate() {
        let code = line.trim_start();
        let comment = code.starts_with("//");
        for (call, why) in BANNED {
            let applies = if comment { call.chars().all(|c| c.is_ascii_uppercase()) } else { true };
            if applies && code.contains(call) {
                findings.push(Finding::new(source, at + 1, format!("{call}: {why}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&Source { path: path.into(), text: text.into() }).into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn finds_what_is_wrong_and_nothing_else() {
        let good = "//! A room.\nfn f() {\n    g()?;\n}\n#[cfg(test)]\nmod tests {\n    fn t() {\n        g().unwrap();\n    }\n}\n";
        assert_eq!(findings("src/a/src/lib.rs", good), Vec::<String>::new());
        assert_eq!(findings("src/a/src/lib.rs", "fn f() {}\n").len(), 1);
        let panics = "//! A room.\nfn f() {\n    g().unwrap();\n}\n";
        assert_eq!(findings("src/a/src/lib.rs", panics).len(), 1);
        assert_eq!(findings("src/sim/src/lib.rs", panics), Vec::<String>::new());
        let long = format!("//! A room.\npub async fn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX));
        assert_eq!(findings("src/a/src/lib.rs", &long).len(), 1);
    }
}
