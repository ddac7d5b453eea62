//! Runs all rules over the checkout.

use tidy::{docs, rust, sources, text};

#[test]
fn the_checkout_keeps_the_rules() {
    let sources = sources().unwrap();
    assert!(sources.len() > 20, "git lists the files");
    let mut findings: Vec<_> = sources.iter().flat_map(|s| text::check(s).into_iter().chain(rust::check(s))).collect();
    findings.extend(docs::check(&sources));
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}
