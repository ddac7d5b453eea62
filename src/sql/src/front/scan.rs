//! The look before the parse: a text becomes tokens, and the tokens say whether they can be parsed safely.
//!
//! The parser recurses, and so does whatever walks its tree; stacks are 8 MB on the worker threads and far smaller on
//! the fibers of the tx thread. The scan does not recurse. It bounds the text's size, its tokens, and how deep a tree
//! they can make, and it tells the flat statements, which a fiber may parse itself, from all others. Because the
//! parser gets the very tokens that were judged, the two can not disagree about what is a string or a comment.

use super::dialect::PicodataDialect;
use super::nested;
use super::position::{Position, error_at, from_parser, syntax};
use model::{Code, Error, Result};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};

/// Bounds on the text of a statement.
#[derive(Clone, Copy, Debug)]
pub struct TextLimits {
    pub bytes_max: usize,
    /// Tokens without white space. A token and its part of the tree take about 500 bytes.
    pub tokens_max: usize,
    /// Open parentheses and brackets.
    pub parentheses_max: usize,
    /// Operators and words on the way from the statement to any token, those linked by AND and OR not counted.
    pub chain_max: usize,
    /// ANDs and ORs on that way. Their chains are balanced after the parse, so they may be longer.
    pub links_max: usize,
    /// Parentheses in FROM, POSITIONs, INTERVALs and dots of a name inside one another: the parser reads each in two ways, a
    /// parenthesis in FROM as a query and as a join, what follows a dot as an expression and as a name, so each may double its
    /// time.
    pub forks_max: usize,
    /// Parameters.
    pub params_max: usize,
}

impl Default for TextLimits {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 20,
            tokens_max: 250_000,
            parentheses_max: 128,
            chain_max: 4_096,
            links_max: 20_000,
            forks_max: 16,
            params_max: 65_535,
        }
    }
}

/// What a fiber may parse itself; see `is_simple`.
const SIMPLE_BYTES_MAX: usize = 16 * 1024;
const SIMPLE_PARENTHESES_MAX: usize = 2;
const SIMPLE_CHAIN_MAX: usize = 24;
const SIMPLE_LINKS_MAX: usize = 32;

/// A text that may be parsed.
#[derive(Debug)]
pub struct Scanned<'a> {
    pub text: &'a str,
    /// All but white space and comments; `?` has become `$1`, `$2`, ...; adjacent strings are joined, and joins within joins
    /// have parentheses.
    pub tokens: Vec<TokenWithSpan>,
    /// Whether a fiber may parse it.
    pub simple: bool,
    /// The highest number of a parameter.
    pub params_count: usize,
}

/// Cuts the text into tokens and checks them against the limits.
///
/// Errors: `Syntax` for what is no token and for mixed kinds of parameters, `LimitExceeded`.
pub fn scan<'a>(text: &'a str, limits: &TextLimits) -> Result<Scanned<'a>> {
    if text.len() > limits.bytes_max {
        let message = format!("the statement has {} bytes; at most {} are allowed", text.len(), limits.bytes_max);
        return Err(Error::new(Code::LimitExceeded, message).with_hint("pass long values and long lists as parameters"));
    }
    let raw = Tokenizer::new(&PicodataDialect, text)
        .tokenize_with_location()
        .map_err(|e| from_parser(e.into(), text, None))?;
    let mut tokens = join_strings(raw, text)?;
    nested::complete(&mut tokens);
    if tokens.len() > limits.tokens_max {
        let message =
            format!("the statement has {} words and signs; at most {} are allowed", tokens.len(), limits.tokens_max);
        return Err(Error::new(Code::LimitExceeded, message).with_hint("split it, or pass the values as parameters"));
    }
    let params_count = number_params(&mut tokens, text, limits)?;
    let shape = shape_of(&tokens, text, limits)?;
    let simple = text.len() <= SIMPLE_BYTES_MAX && shape.is_simple(&tokens);
    Ok(Scanned { text, tokens, simple, params_count })
}

/// Whether the text can be parsed on a small stack: one SELECT, INSERT, UPDATE or DELETE without subqueries and other
/// nesting. About a microsecond for a short text; it does not recurse.
pub fn is_simple(text: &str) -> bool {
    text.len() <= SIMPLE_BYTES_MAX && scan(text, &TextLimits::default()).is_ok_and(|scanned| scanned.simple)
}

fn position(token: &TokenWithSpan) -> Option<Position> {
    Position::of(token.span.start)
}

/// Drops white space and comments, and joins strings that only white space with a line break separates: the
/// standard's continuation of a literal, which the parser would take for an alias.
fn join_strings(raw: Vec<TokenWithSpan>, text: &str) -> Result<Vec<TokenWithSpan>> {
    let mut tokens: Vec<TokenWithSpan> = Vec::with_capacity(raw.len() / 2 + 1);
    let (mut gap, mut line_break) = (false, false);
    for token in raw {
        match token.token {
            Token::Whitespace(space) => {
                gap = true;
                line_break |= matches!(space, Whitespace::Newline | Whitespace::SingleLineComment { .. });
                continue;
            }
            Token::SingleQuotedString(ref more) if gap => {
                if let Some(Token::SingleQuotedString(start)) = tokens.last_mut().map(|t| &mut t.token) {
                    if !line_break {
                        let what = "two strings in a row: only strings on separate lines are joined";
                        return Err(syntax(what, text, position(&token)));
                    }
                    start.push_str(more);
                    line_break = false;
                    continue;
                }
                tokens.push(token);
            }
            Token::EOF => {}
            _ => tokens.push(token),
        }
        (gap, line_break) = (false, false);
    }
    Ok(tokens)
}

/// Numbers the `?`s in their order, checks the numbers of `$n`, and answers the highest.
fn number_params(tokens: &mut [TokenWithSpan], text: &str, limits: &TextLimits) -> Result<usize> {
    let (mut questions, mut numbered): (usize, usize) = (0, 0);
    for token in tokens {
        let at = position(token);
        let Token::Placeholder(name) = &mut token.token else { continue };
        if name == "?" {
            questions += 1;
            *name = format!("${questions}");
        } else {
            let number = name.strip_prefix('$').and_then(|digits| digits.parse().ok()).filter(|n| *n > 0);
            let number: usize = number
                .ok_or_else(|| syntax(format!("{name} is no parameter: write ?, or $1, $2 and so on"), text, at))?;
            numbered = numbered.max(number);
        }
        if questions > 0 && numbered > 0 {
            return Err(syntax("parameters are either all ? or all $1, $2 and so on", text, at));
        }
        if questions.max(numbered) > limits.params_max {
            let what = format!("a statement has at most {} parameters", limits.params_max);
            return Err(error_at(Code::LimitExceeded, what, text, at));
        }
    }
    Ok(questions.max(numbered))
}

/// What can nest at one depth of parentheses, since the last comma there.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Set operations nest over commas, so nothing resets them.
    sets: usize,
    /// ANDs and ORs.
    links: usize,
    /// Other operators and words since the last AND, OR or comma.
    chain: usize,
    /// BETWEENs that still wait for their AND, which links nothing.
    betweens: usize,
    /// Whether the tokens here stand in a FROM clause, and whether this level's parenthesis did.
    in_from: bool,
    fork: bool,
    intervals: usize,
    /// Dots of the name that the tokens here belong to.
    dots: usize,
}

/// How deep the tree can get, as far as the tokens say.
#[derive(Clone, Copy, Default)]
struct Shape {
    parentheses: usize,
    chain: usize,
    links: usize,
    forks: usize,
}

impl Shape {
    fn is_simple(&self, tokens: &[TokenWithSpan]) -> bool {
        self.parentheses <= SIMPLE_PARENTHESES_MAX
            && self.chain <= SIMPLE_CHAIN_MAX
            && self.links <= SIMPLE_LINKS_MAX
            && tokens.first().is_some_and(|first| begins_simple(&first.token))
            && tokens.iter().skip(1).all(|token| is_simple_token(&token.token))
    }

    fn max(self, other: Shape) -> Shape {
        Shape {
            parentheses: self.parentheses.max(other.parentheses),
            chain: self.chain.max(other.chain),
            links: self.links.max(other.links),
            forks: self.forks.max(other.forks),
        }
    }

    /// What passes its limit, and the limit.
    fn excess(&self, limits: &TextLimits) -> Option<(&'static str, usize)> {
        [
            (self.parentheses, limits.parentheses_max, "parentheses inside one another"),
            (self.chain, limits.chain_max, "operators and words in a row"),
            (self.links, limits.links_max, "ANDs and ORs in a row"),
            (self.forks, limits.forks_max, "parentheses in FROM, POSITIONs, INTERVALs or dots inside one another"),
        ]
        .into_iter()
        .find_map(|(found, max, what)| (found > max).then_some((what, max)))
    }
}

/// Bounds the tree that the tokens can make.
///
/// Each parenthesis and each operator or word adds at most one level to the branch that it is on; a comma ends the
/// branches of its depth. So the sum over the open depths bounds how deep any branch goes.
fn shape_of(tokens: &[TokenWithSpan], text: &str, limits: &TextLimits) -> Result<Shape> {
    let (mut levels, mut level) = (Vec::new(), Level::default());
    let (mut now, mut highest) = (Shape::default(), Shape::default());
    let mut before = &Token::EOF;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                let inner = opened(&level, before);
                levels.push(std::mem::replace(&mut level, inner));
                now.parentheses += 1;
                now.forks += usize::from(inner.fork);
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                if let Some(outer) = levels.pop() {
                    now.parentheses -= 1;
                    now.chain -= level.chain + level.sets;
                    now.links -= level.links;
                    now.forks -= usize::from(level.fork) + level.intervals + level.dots;
                    level = outer;
                }
            }
            // The next statement of a transaction.
            Token::SemiColon if levels.is_empty() => (level, now) = Default::default(),
            // Nested `ARRAY<` types recurse in the parser without a limit of its own; no type of ours is written so.
            Token::Lt | Token::Neq if opens_type(before) => {
                return Err(syntax("types of the form ARRAY<...> do not exist here", text, position(token)));
            }
            other => {
                if *before != Token::Period && *other != Token::Period {
                    now.forks -= std::mem::take(&mut level.dots);
                }
                count(other, &mut level, &mut now);
            }
        }
        before = &token.token;
        highest = highest.max(now);
        if let Some((what, max)) = now.excess(limits) {
            let what = format!("the statement has more than {max} {what}");
            return Err(
                error_at(Code::LimitExceeded, what, text, position(token)).with_hint("use IN, parameters or WITH")
            );
        }
    }
    Ok(highest)
}

/// Takes a token that is no parenthesis into account.
fn count(token: &Token, level: &mut Level, now: &mut Shape) {
    let keyword = match token {
        Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    };
    let more = |level: &mut Level, now: &mut Shape| {
        level.chain += 1;
        now.chain += 1;
    };
    match (token, keyword) {
        (Token::Comma, _) => {
            now.chain -= level.chain;
            now.links -= level.links;
            now.forks -= level.intervals;
            (level.chain, level.links, level.betweens, level.intervals) = (0, 0, 0, 0);
        }
        (Token::Period, _) => {
            level.dots += 1;
            now.forks += 1;
            more(level, now);
        }
        (_, Keyword::INTERVAL) => {
            level.intervals += 1;
            now.forks += 1;
            more(level, now);
        }
        (_, Keyword::AND) if level.betweens > 0 => {
            level.betweens -= 1;
            more(level, now);
        }
        (_, Keyword::AND | Keyword::OR) => {
            now.chain -= level.chain;
            now.forks -= level.intervals;
            (level.chain, level.links, level.intervals) = (0, level.links + 1, 0);
            now.links += 1;
        }
        (_, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS) => {
            level.sets += 1;
            now.chain += 1;
        }
        (_, Keyword::BETWEEN) => {
            level.betweens += 1;
            more(level, now);
        }
        // Literals and parameters are leaves of the tree.
        (Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) | Token::SemiColon, _) => {}
        _ => more(level, now),
    }
    match keyword {
        Keyword::FROM | Keyword::JOIN => level.in_from = true,
        Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::ORDER | Keyword::ON => level.in_from = false,
        _ => {}
    }
}

/// The level that a parenthesis after `before` opens.
fn opened(outer: &Level, before: &Token) -> Level {
    let in_from = outer.in_from && matches!(before, Token::Word(_) | Token::Comma | Token::LParen);
    let is_position = matches!(before, Token::Word(word) if word.keyword == Keyword::POSITION);
    Level { fork: in_from || is_position, in_from, ..Level::default() }
}

fn opens_type(before: &Token) -> bool {
    matches!(before, Token::Word(w) if matches!(w.keyword, Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP))
}

fn begins_simple(token: &Token) -> bool {
    use Keyword as K;
    matches!(token, Token::Word(word) if matches!(word.keyword, K::SELECT | K::INSERT | K::UPDATE | K::DELETE))
}

/// The tokens of flat statements after their first word: names, literals, comparisons, simple arithmetic, the words of
/// their clauses. Any keyword that can begin a nested expression or query is none of them.
fn is_simple_token(token: &Token) -> bool {
    match token {
        Token::Word(word) => !begins_nesting(word.keyword),
        Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) => true,
        Token::Comma | Token::LParen | Token::RParen | Token::Period | Token::SemiColon | Token::Mul => true,
        Token::Eq | Token::Neq | Token::Lt | Token::LtEq | Token::Gt | Token::GtEq | Token::Plus | Token::Minus => true,
        _ => false,
    }
}

fn begins_nesting(keyword: Keyword) -> bool {
    use Keyword as K;
    matches!(
        keyword,
        K::NOT
            | K::OR
            | K::CASE
            | K::CAST
            | K::TRY_CAST
            | K::SAFE_CAST
            | K::CONVERT
            | K::TRY_CONVERT
            | K::EXISTS
            | K::INTERVAL
            | K::ARRAY
            | K::STRUCT
            | K::MAP
            | K::LATERAL
            | K::WITH
            | K::UNION
            | K::EXCEPT
            | K::INTERSECT
            | K::MINUS
            | K::EXPLAIN
            | K::PRIOR
            | K::BETWEEN
            | K::LIKE
            | K::ILIKE
            | K::SIMILAR
            | K::OVERLAY
            | K::EXTRACT
            | K::SUBSTRING
            | K::TRIM
            | K::POSITION
            | K::CEIL
            | K::FLOOR
            | K::JOIN
            | K::OVER
            | K::FILTER
            | K::TABLE
            | K::NESTED
            | K::TUPLE
            | K::ENUM
            | K::NULLABLE
            | K::LOWCARDINALITY
            | K::MERGE
            | K::RETURNING
            | K::GROUP
            | K::ORDER
            | K::HAVING
            | K::WINDOW
            | K::LAMBDA
            | K::MATCH
            | K::CONNECT_BY_ROOT
            | K::UNNEST
            | K::ROW
            | K::ANY
            | K::ALL
            | K::SOME
            | K::COLLATE
            | K::OPERATOR
            | K::PIVOT
            | K::UNPIVOT
            | K::SELECT
            | K::INSERT
            | K::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> Code {
        scan(text, &TextLimits::default()).map(|_| ()).expect_err(text).code
    }

    #[test]
    fn point_statements_are_simple() {
        for text in [
            "SELECT * FROM t WHERE id = ?",
            "select a, \"B\" from t where id=$1 and part = 'x' limit 1;",
            "SELECT name, value, date FROM t WHERE id IN (1, 2, 3)",
            "INSERT INTO t (a, b) VALUES (1, 'x'), (-2, NULL) ON CONFLICT DO REPLACE",
            "UPDATE t SET n = n + 1, s = ? WHERE id = ?",
            "DELETE FROM t WHERE id = -1",
        ] {
            assert!(is_simple(text), "{text}");
        }
    }

    #[test]
    fn what_nests_is_not_simple() {
        for text in [
            "",
            "?",
            "SELECT (SELECT 1)",
            "SELECT CASE WHEN a THEN b END",
            "SELECT NOT a",
            "WITH a AS (SELECT 1) SELECT 1",
            "SELECT 1 UNION SELECT 2",
            "SELECT ((((1))))",
            "EXPLAIN SELECT 1",
            "SELECT CAST(a AS INT) FROM t",
            "SELECT a::int",
            "CREATE TABLE t (a INT PRIMARY KEY)",
            "SELECT [1]",
            "SELECT 'abc",
            "SELECT - - - - - - - - - - - - - - - - - - - - - - - - 1",
        ] {
            assert!(!is_simple(text), "{text}");
        }
        assert!(!is_simple(&format!("SELECT * FROM t WHERE a IN ({})", "1,".repeat(10_000))));
    }

    #[test]
    fn strings_on_separate_lines_are_one() {
        let scanned = scan("SELECT 'abc'\n  'def' -- more\n'ghi'", &TextLimits::default()).unwrap();
        assert_eq!(scanned.tokens.len(), 2);
        assert_eq!(scanned.tokens[1].token, Token::SingleQuotedString("abcdefghi".into()));
        assert_eq!(fails("SELECT 'abc' 'def'"), Code::Syntax);
    }

    #[test]
    fn parameters_are_numbered_and_never_mixed() {
        let scanned = scan("SELECT ? + ?||'?' FROM t WHERE a=? AND b>=?", &TextLimits::default()).unwrap();
        assert_eq!(scanned.params_count, 4);
        assert!(scanned.tokens.iter().any(|t| t.token == Token::Placeholder("$4".into())));
        assert_eq!(scan("SELECT $3, $1", &TextLimits::default()).unwrap().params_count, 3);
        for text in ["SELECT ?, $1", "SELECT $0", "SELECT $x", "SELECT ?7", "SELECT $99999999999999999999"] {
            assert_eq!(fails(text), Code::Syntax, "{text}");
        }
        assert_eq!(fails("SELECT $65536"), Code::LimitExceeded);
    }

    #[test]
    fn deep_and_large_texts_are_refused() {
        assert_eq!(fails(&format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500))), Code::LimitExceeded);
        assert_eq!(fails(&format!("SELECT 1{}", " + 1".repeat(10_000))), Code::LimitExceeded);
        assert_eq!(fails(&format!("SELECT {}1", "NOT ".repeat(10_000))), Code::LimitExceeded);
        assert_eq!(fails(&format!("SELECT a{}", " BETWEEN 1 AND 2".repeat(5_000))), Code::LimitExceeded);
        assert_eq!(fails(&format!("SELECT a FROM t WHERE a = 1{}", " OR a = 1".repeat(30_000))), Code::LimitExceeded);
        assert_eq!(fails(&format!("SELECT 1{}", " UNION SELECT 1, 2".repeat(5_000))), Code::LimitExceeded);
        assert_eq!(fails(&"x".repeat(2 << 20)), Code::LimitExceeded);
        assert_eq!(fails(&format!("SELECT a IN ({}1)", "1,".repeat(300_000))), Code::LimitExceeded);
        assert_eq!(fails(&format!("SELECT CAST(a AS {}", "ARRAY<".repeat(10_000))), Code::Syntax);
        assert_eq!(fails(&format!("SELECT {}", "a.".repeat(40))), Code::LimitExceeded);
        assert_eq!(fails(&format!("SELECT {}", "a.b.f(".repeat(20))), Code::LimitExceeded);
        assert_eq!(fails(&format!("SELECT {}", "a[1].".repeat(40))), Code::LimitExceeded);
    }

    #[test]
    fn wide_texts_pass() {
        let limits = TextLimits::default();
        assert!(scan(&format!("SELECT a FROM t WHERE a = 1{}", " OR a = 1".repeat(10_000)), &limits).is_ok());
        assert!(scan(&format!("INSERT INTO t VALUES (1, -1 + 2){}", ", (1, -1 + 2)".repeat(10_000)), &limits).is_ok());
        assert!(scan(&format!("SELECT {}1", "a + b, ".repeat(10_000)), &limits).is_ok());
        assert!(scan(&format!("SELECT t.a{} FROM t", " + (t.a * t.b) = t.c".repeat(300)), &limits).is_ok());
        assert!(scan(&format!("SELECT {}1{}", "f(t.a, g(".repeat(50), "))".repeat(50)), &limits).is_ok());
        assert!(
            scan(&format!("BEGIN{}; COMMIT", "; UPDATE t SET v = v + 1 WHERE id = 1".repeat(1_000)), &limits).is_ok()
        );
        assert!(scan(")))", &limits).is_ok(), "closing what was not open is the parser's to refuse");
    }
}
