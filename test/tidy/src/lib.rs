//! The style that no compiler checks, as a test: `cargo test --package picodata-tidy`.
//!
//! In come the files that git tracks; out goes a list of what breaks a rule, with file and line. The rules are few and
//! mechanical; each has its reason beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

pub mod docs;
pub mod rust;
pub mod text;

/// A file of the repository.
pub struct Source {
    /// Relative to the root, with slashes.
    pub path: String,
    pub text: String,
}

impl Source {
    /// What follows the last dot of the name, or nothing.
    pub fn extension(&self) -> &str {
        Path::new(&self.path).extension().and_then(|e| e.to_str()).unwrap_or("")
    }
}

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: String,
    /// From 1.
    pub line: usize,
    pub what: String,
}

impl Finding {
    pub fn new(source: &Source, line: usize, what: impl Into<String>) -> Self {
        Self { path: source.path.clone(), line, what: what.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All text files that git tracks or would add.
pub fn sources() -> std::io::Result<Vec<Source>> {
    let list = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()?;
    let mut sources = Vec::new();
    for path in String::from_utf8_lossy(&list.stdout).lines() {
        // A file that is deleted but not yet from the index, or not text, is nobody's style.
        if let Ok(text) = std::fs::read_to_string(root().join(path)) {
            sources.push(Source { path: path.to_owned(), text });
        }
    }
    Ok(sources)
}
