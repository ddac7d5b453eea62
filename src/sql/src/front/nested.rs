//! Parentheses that a text may leave out, and that the parser needs.
//!
//! | as written                     | as parsed                                     |
//! |--------------------------------|-----------------------------------------------|
//! | `a JOIN b JOIN c ON p ON q`    | `a JOIN (b JOIN c ON p) ON q`                 |
//! | `ANY`, `EXISTS (VALUES (1))`   | `ANY`, `EXISTS (SELECT * FROM (VALUES (1)))`  |
//!
//! Works on tokens, before the scan judges them, so that what is put in counts like what was written.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

/// Puts them in.
pub fn complete(tokens: &mut Vec<TokenWithSpan>) {
    let begins = |token: &TokenWithSpan| {
        matches!(keyword(token), Keyword::JOIN | Keyword::ANY | Keyword::ALL | Keyword::SOME | Keyword::EXISTS)
    };
    if !tokens.iter().any(begins) {
        return;
    }
    let missing = Missing::of(tokens);
    if !missing.0.is_empty() {
        *tokens = missing.put_into(std::mem::take(tokens));
    }
}

/// A JOIN that still waits for its ON or USING.
struct Open {
    /// The place behind it.
    at: usize,
    /// Whether another join follows before that, which is part of its right side.
    is_nest: bool,
}

/// What is known of one depth of parentheses.
#[derive(Default)]
struct Level {
    joins: Vec<Open>,
    /// Whether one more parenthesis was put in where this one opens.
    is_values: bool,
}

/// Tokens, each with the place that it belongs before.
struct Missing(Vec<(usize, Token)>);

impl Missing {
    fn of(tokens: &[TokenWithSpan]) -> Self {
        let (mut found, mut levels, mut level) = (Vec::new(), Vec::new(), Level::default());
        for (at, token) in tokens.iter().enumerate() {
            match (&token.token, keyword(token)) {
                (Token::LParen, _) => {
                    levels.push(std::mem::take(&mut level));
                    level.is_values = is_values(tokens, at);
                    if level.is_values {
                        let opened = ["SELECT", "*", "FROM", "("].map(|spelled| match spelled {
                            "*" => Token::Mul,
                            "(" => Token::LParen,
                            word => Token::make_keyword(word),
                        });
                        found.extend(opened.map(|token| (at + 1, token)));
                    }
                }
                (Token::RParen, _) => {
                    if level.is_values {
                        found.push((at, Token::RParen));
                    }
                    level = levels.pop().unwrap_or_default();
                }
                (Token::SemiColon, _) => level.joins.clear(),
                (_, Keyword::JOIN) => {
                    if let Some(outer) = level.joins.last_mut() {
                        outer.is_nest = true;
                    }
                    if has_condition(tokens, at) {
                        level.joins.push(Open { at: at + 1, is_nest: false });
                    }
                }
                (_, Keyword::ON | Keyword::USING) => {
                    if let Some(Open { at: opened, is_nest: true }) = level.joins.pop() {
                        found.extend([(opened, Token::LParen), (at, Token::RParen)]);
                    }
                }
                _ => {}
            }
        }
        found.sort_by_key(|(at, _)| *at);
        Self(found)
    }

    fn put_into(self, tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
        let mut complete = Vec::with_capacity(tokens.len() + self.0.len());
        let mut missing = self.0.into_iter().peekable();
        for (at, token) in tokens.into_iter().enumerate() {
            while let Some((_, put_in)) = missing.next_if(|(before, _)| *before == at) {
                complete.push(TokenWithSpan::new(put_in, Span::new(token.span.start, token.span.start)));
            }
            complete.push(token);
        }
        complete
    }
}

fn keyword(token: &TokenWithSpan) -> Keyword {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// Whether the parenthesis at `at` is that of `ANY (VALUES ...)` and its like.
fn is_values(tokens: &[TokenWithSpan], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| keyword(&tokens[before]));
    matches!(before, Some(Keyword::ANY | Keyword::ALL | Keyword::SOME | Keyword::EXISTS))
        && tokens.get(at + 1).is_some_and(|next| keyword(next) == Keyword::VALUES)
}

/// Whether the JOIN at `at` wants ON or USING: those that are CROSS or NATURAL do not.
fn has_condition(tokens: &[TokenWithSpan], at: usize) -> bool {
    let kind = |token: &&TokenWithSpan| {
        use Keyword as K;
        matches!(keyword(token), K::INNER | K::LEFT | K::RIGHT | K::FULL | K::OUTER)
    };
    let before = tokens[..at].iter().rev().find(|token| !kind(token));
    !before.is_some_and(|token| matches!(keyword(token), Keyword::CROSS | Keyword::NATURAL))
}

#[cfg(test)]
mod tests {
    use crate::front::scan::{TextLimits, scan};

    fn completed(text: &str) -> String {
        let scanned = scan(text, &TextLimits::default()).unwrap();
        scanned.tokens.iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn joins_within_joins_get_parentheses() {
        for (written, expected) in [
            ("a JOIN b JOIN c ON p ON q", "a JOIN ( b JOIN c ON p ) ON q"),
            ("a JOIN b JOIN c JOIN d ON p ON q ON r", "a JOIN ( b JOIN ( c JOIN d ON p ) ON q ) ON r"),
            ("a LEFT JOIN b CROSS JOIN c ON p", "a LEFT JOIN ( b CROSS JOIN c ) ON p"),
            ("a JOIN b NATURAL LEFT OUTER JOIN c USING ( p )", "a JOIN ( b NATURAL LEFT OUTER JOIN c ) USING ( p )"),
            ("a JOIN b JOIN c ON p JOIN d ON q ON r", "a JOIN ( b JOIN c ON p JOIN d ON q ) ON r"),
        ] {
            assert_eq!(completed(written), expected);
        }
    }

    #[test]
    fn other_joins_stay_as_they_are() {
        for text in [
            "a JOIN b ON p JOIN c ON q",
            "a CROSS JOIN b JOIN c ON p",
            "a NATURAL JOIN b JOIN c ON p",
            "a JOIN ( b JOIN c ON p ) ON q",
            "a JOIN b JOIN c ON p",
            "ON ON ) ) JOIN",
        ] {
            assert_eq!(completed(text), text);
        }
    }

    #[test]
    fn values_behind_a_quantifier_become_a_query() {
        assert_eq!(completed("a < ANY ( VALUES ( 1 ) )"), "a < ANY ( SELECT * FROM ( VALUES ( 1 ) ) )");
        assert_eq!(completed("a < ALL ( SELECT 1 )"), "a < ALL ( SELECT 1 )");
    }
}
