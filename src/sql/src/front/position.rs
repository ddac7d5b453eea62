//! Where in a statement's text something stands, and how errors show it.
//!
//! In: a line and a column as the tokenizer counts them. Out: sentences that end in the place, with the line of the
//! text and a caret below it, cut so that one long line does not swamp a message.

use model::{Code, Error};
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::Location;

/// How much of a line an error shows at most, in characters.
const EXCERPT_CHARS_MAX: usize = 72;

/// A place in the text: line and column count characters from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

impl Position {
    /// The place of a token; None for tokens that we made ourselves.
    pub fn of(location: Location) -> Option<Position> {
        (location.line > 0).then_some(Position { line: location.line, column: location.column })
    }

    /// Just past the last character.
    pub fn end(text: &str) -> Position {
        let text = text.trim_end();
        let last = text.rsplit('\n').next().unwrap_or("");
        Position { line: text.matches('\n').count() as u64 + 1, column: last.chars().count() as u64 + 1 }
    }
}

/// An error about a place of the text.
pub fn error_at(code: Code, what: impl AsRef<str>, text: &str, at: Option<Position>) -> Error {
    let what = what.as_ref();
    let Some(at) = at else { return Error::new(code, what) };
    Error::new(code, format!("{what} at line {}, column {}{}", at.line, at.column, excerpt(text, at)))
}

/// A syntax error about a place of the text.
pub fn syntax(what: impl AsRef<str>, text: &str, at: Option<Position>) -> Error {
    error_at(Code::Syntax, what, text, at)
}

/// What the parser or the tokenizer said, as our error. `near` stands in where the message names no place.
pub fn from_parser(error: ParserError, text: &str, near: Option<Position>) -> Error {
    match error {
        ParserError::RecursionLimitExceeded => {
            error_at(Code::LimitExceeded, "the statement nests too deeply", text, near)
                .with_hint("take parts of it out into common table expressions (WITH)")
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            let (what, at) = split_place(&message);
            syntax(lowered(what), text, at.or(near))
        }
    }
}

/// Splits the place off `... at Line: 1, Column: 8`.
fn split_place(message: &str) -> (&str, Option<Position>) {
    let place = || {
        let (what, place) = message.rsplit_once(" at Line: ")?;
        let (line, column) = place.split_once(", Column: ")?;
        let at = Position { line: line.parse().ok()?, column: column.trim().parse().ok()? };
        Some((what, (at.line > 0).then_some(at)))
    };
    place().unwrap_or((message, None))
}

/// The parser's sentence in our form: it begins in lower case, and the end of the text has a name.
fn lowered(sentence: &str) -> String {
    let sentence = sentence.replace(", found: EOF", ", found: the end of the text");
    if let Some(rest) = sentence.strip_prefix("Expected: ") {
        return format!("expected {}", rest.replacen(", found: ", ", found ", 1));
    }
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// The line of the text and a caret under the column, on lines of their own.
fn excerpt(text: &str, at: Position) -> String {
    let line = usize::try_from(at.line).ok().and_then(|n| n.checked_sub(1)).and_then(|n| text.lines().nth(n));
    let column = usize::try_from(at.column).unwrap_or(1).max(1) - 1;
    let Some(line) = line else { return String::new() };
    let skipped = column.saturating_sub(EXCERPT_CHARS_MAX * 2 / 3);
    // A tab or another control character would move the caret.
    let shown: String =
        line.chars().skip(skipped).take(EXCERPT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let (before, dots) = if skipped > 0 { ("...", 3) } else { ("", 0) };
    let after = if line.chars().count() > skipped + EXCERPT_CHARS_MAX { "..." } else { "" };
    format!("\n  {before}{shown}{after}\n  {:>width$}", "^", width = column - skipped + dots + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_column() {
        let error = syntax("odd", "SELECT 1\nFORM\tt", Some(Position { line: 2, column: 6 }));
        assert_eq!(error.message, "odd at line 2, column 6\n  FORM t\n       ^");
        assert_eq!(error.code, Code::Syntax);
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let message = syntax("odd", &text, Some(Position { line: 1, column: 501 })).message;
        let lines: Vec<&str> = message.lines().collect();
        assert!(lines[1].len() < 90);
        assert_eq!(lines[1].find('X'), lines[2].find('^'));
    }

    #[test]
    fn places_outside_the_text_show_no_excerpt() {
        for at in [Position { line: 9, column: 1 }, Position { line: u64::MAX, column: u64::MAX }] {
            assert!(!syntax("odd", "SELECT", Some(at)).message.contains('^'));
        }
        assert_eq!(syntax("odd", "x", None).message, "odd");
    }

    #[test]
    fn parser_messages_become_sentences() {
        let error = |m: &str| from_parser(ParserError::ParserError(m.into()), "SELECT 1", None);
        let message = error("Expected: end of statement, found: x at Line: 1, Column: 8").message;
        assert!(message.starts_with("expected end of statement, found x at line 1, column 8\n"), "{message}");
        assert_eq!(error("Odd thing").message, "odd thing");
        assert_eq!(from_parser(ParserError::RecursionLimitExceeded, "", None).code, Code::LimitExceeded);
    }
}
