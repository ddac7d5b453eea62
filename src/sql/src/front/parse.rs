//! From a text to a `Statement`.
//!
//! The scan judges the text first; then the parser's own tree is taken over clause by clause. A clause that we do not
//! carry out is refused by name, never dropped. Parsing recurses: a text that is not `simple` belongs on a worker
//! thread.

use super::balance::balance;
use super::ddl;
use super::dialect::PicodataDialect;
use super::position::{Position, error_at, from_parser, syntax};
use super::scan::{Scanned, TextLimits, scan};
use super::statement::{Name, Statement};
use model::error::nearest;
use model::{Code, Error, Result};
use sqlparser::ast::{self, ObjectName, ObjectNamePart, Query, SetExpr};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Levels that the parser may recurse: about 20 nested queries or 45 nested parentheses. Higher values let hostile
/// texts take exponential time, as the parser tries some constructs in more than one way.
const RECURSION_MAX: usize = 50;
/// The same for simple texts, which a fiber may parse.
const RECURSION_SIMPLE_MAX: usize = 12;

/// A parsed statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub statement: Statement,
    /// How many parameters it takes. In the tree they are all placeholders `$1`, `$2`, ...
    pub params_count: usize,
}

/// Parses a text of one statement.
///
/// Errors: `Syntax` with the place, `LimitExceeded` for what is too long or too deep, `Unsupported` for clauses and
/// statements that we know but do not have, `InvalidStatement` for definitions without a meaning.
pub fn parse(text: &str) -> Result<Parsed> {
    parse_with(text, &TextLimits::default())
}

/// `parse` with limits of one's own.
pub fn parse_with(text: &str, limits: &TextLimits) -> Result<Parsed> {
    parse_scanned(scan(text, limits)?)
}

/// `parse` of what `scan` has passed.
pub fn parse_scanned(scanned: Scanned<'_>) -> Result<Parsed> {
    let Scanned { text, tokens, simple, params_count } = scanned;
    let statement = match begins_transaction(&tokens) {
        Some(behind) => Statement::Transaction(transaction(text, tokens, behind)?),
        None => parse_tokens(text, tokens, simple)?,
    };
    Ok(Parsed { statement, params_count })
}

/// Parses tokens that hold one statement.
fn parse_tokens(text: &str, mut tokens: Vec<TokenWithSpan>, simple: bool) -> Result<Statement> {
    let replaces = take_do_replace(&mut tokens);
    let overriding = take_overriding(&mut tokens);
    complete_trims(&mut tokens);
    let recursion_max = if simple { RECURSION_SIMPLE_MAX } else { RECURSION_MAX };
    let parser = Parser::new(&PicodataDialect).with_recursion_limit(recursion_max).with_tokens_with_locations(tokens);
    let mut source = Source { text, parser, replaces, overriding };
    let statement = source.statement()?;
    source.end()?;
    Ok(statement)
}

/// Statements of one transaction.
const TRANSACTION_STATEMENTS_MAX: usize = 1_000;

fn word_is(token: Option<&TokenWithSpan>, spelled: &str) -> bool {
    matches!(token.map(|token| &token.token),
        Some(Token::Word(word)) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(spelled))
}

/// Where the first statement of `BEGIN [TRANSACTION | WORK];` or `START TRANSACTION;` begins; None when the text is no
/// such thing.
fn begins_transaction(tokens: &[TokenWithSpan]) -> Option<usize> {
    let begins = word_is(tokens.first(), "begin");
    let starts = word_is(tokens.first(), "start") && word_is(tokens.get(1), "transaction");
    if !begins && !starts {
        return None;
    }
    let noise = word_is(tokens.get(1), "transaction") || word_is(tokens.get(1), "work");
    Some(1 + usize::from(noise))
}

/// The statements between BEGIN and COMMIT.
fn transaction(text: &str, tokens: Vec<TokenWithSpan>, behind: usize) -> Result<Vec<Statement>> {
    let place = |token: Option<&TokenWithSpan>| {
        token.and_then(|token| Position::of(token.span.start)).or_else(|| Some(Position::end(text)))
    };
    let is_end = |token: &TokenWithSpan| matches!(token.token, Token::SemiColon | Token::EOF);
    let mut parts = tokens.split(is_end);
    let first = parts.next().unwrap_or_default();
    if first.len() > behind {
        return Err(syntax("expected ; behind BEGIN", text, place(first.get(behind))));
    }
    let mut statements = Vec::new();
    let mut is_over = false;
    for part in parts.filter(|part| !part.is_empty()) {
        if is_over {
            return Err(syntax("a statement behind COMMIT: send it in a call of its own", text, place(part.first())));
        }
        if word_is(part.first(), "commit") || word_is(part.first(), "end") {
            is_over = true;
            continue;
        }
        if word_is(part.first(), "rollback") {
            return Err(syntax("a transaction that rolls itself back does nothing", text, place(part.first())));
        }
        if statements.len() >= TRANSACTION_STATEMENTS_MAX {
            let message = format!("a transaction has at most {TRANSACTION_STATEMENTS_MAX} statements");
            return Err(Error::new(Code::LimitExceeded, message));
        }
        match parse_tokens(text, part.to_vec(), false)? {
            Statement::Explain { .. } | Statement::Schema(_) | Statement::Transaction(_) => {
                let what = "a transaction takes SELECT, INSERT, UPDATE and DELETE";
                return Err(error_at(Code::Unsupported, what, text, place(part.first())));
            }
            statement => statements.push(statement),
        }
    }
    if is_over {
        return Ok(statements);
    }
    let error = error_at(Code::Unsupported, "BEGIN without COMMIT in the same text is not supported", text, None);
    Err(error.with_hint("send BEGIN; statement; ...; COMMIT as one text"))
}

/// `ON CONFLICT ... DO REPLACE` is ours: the parser is shown DO NOTHING, and the answer says that REPLACE was meant.
fn take_do_replace(tokens: &mut [TokenWithSpan]) -> bool {
    let is = |token: &Token, keyword| matches!(token, Token::Word(word) if word.keyword == keyword);
    let has_conflict = tokens.windows(2).any(|w| is(&w[0].token, Keyword::ON) && is(&w[1].token, Keyword::CONFLICT));
    let found = tokens.windows(2).rposition(|w| is(&w[0].token, Keyword::DO) && is(&w[1].token, Keyword::REPLACE));
    match (has_conflict, found) {
        (true, Some(at)) => {
            tokens[at + 1].token = Token::make_keyword("NOTHING");
            true
        }
        _ => false,
    }
}

/// Takes out the standard's `OVERRIDING SYSTEM VALUE` in front of VALUES or a query.
fn take_overriding(tokens: &mut Vec<TokenWithSpan>) -> bool {
    const WORDS: [&str; 3] = ["overriding", "system", "value"];
    let is = |token: &TokenWithSpan, spelled: &str| matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(spelled));
    let begins = |window: &[TokenWithSpan]| window.iter().zip(WORDS).all(|(token, word)| is(token, word));
    let is_insert = tokens.first().is_some_and(|token| is(token, "insert"));
    match tokens.windows(WORDS.len()).position(begins).filter(|_| is_insert) {
        Some(at) => {
            tokens.drain(at..at + WORDS.len());
            true
        }
        None => false,
    }
}

/// `TRIM(FROM a)` and `TRIM(TRAILING FROM a)` trim spaces: the parser is shown the space.
fn complete_trims(tokens: &mut Vec<TokenWithSpan>) {
    let keyword = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    };
    let mut at = 0;
    while at + 2 < tokens.len() {
        if keyword(&tokens[at]) == Keyword::TRIM && tokens[at + 1].token == Token::LParen {
            let named = matches!(keyword(&tokens[at + 2]), Keyword::BOTH | Keyword::LEADING | Keyword::TRAILING);
            let from = at + 2 + usize::from(named);
            if tokens.get(from).is_some_and(|token| keyword(token) == Keyword::FROM) {
                let space = TokenWithSpan::new(Token::SingleQuotedString(" ".into()), tokens[from].span);
                tokens.insert(from, space);
            }
        }
        at += 1;
    }
}

/// The text being parsed. The methods consume what they parse.
pub(super) struct Source<'a> {
    pub text: &'a str,
    pub parser: Parser<'a>,
    /// Whether ON CONFLICT says DO REPLACE, which the parser knows as DO NOTHING.
    pub replaces: bool,
    /// Whether INSERT says OVERRIDING SYSTEM VALUE, which the parser does not know.
    pub overriding: bool,
}

/// Whether a query is nothing but its body.
pub fn is_bare(query: &ast::Query) -> bool {
    query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty()
        && query.for_clause.is_none()
}

impl<'a> Source<'a> {
    /// The place of the next token; past the last one, the end of the text.
    pub fn here(&self) -> Option<Position> {
        Position::of(self.parser.peek_token_ref().span.start).or_else(|| Some(Position::end(self.text)))
    }

    /// The parser's answer, its error with a place.
    pub fn ask<T>(&mut self, parse: impl FnOnce(&mut Parser<'a>) -> Result<T, ParserError>) -> Result<T> {
        parse(&mut self.parser).map_err(|error| from_parser(error, self.text, self.here()))
    }

    pub fn expected<T>(&self, what: &str) -> Result<T> {
        let found = match &self.parser.peek_token_ref().token {
            Token::EOF => "the end of the text".to_owned(),
            token => format!("\"{token}\""),
        };
        Err(syntax(format!("expected {what}, found {found}"), self.text, self.here()))
    }

    pub fn unsupported(&self, what: &str, at: Option<Position>) -> Error {
        error_at(Code::Unsupported, format!("{what} is not supported"), self.text, at)
    }

    /// Fails with `what is not supported` when the clause was written.
    pub fn refuse(&self, written: bool, what: &str) -> Result<()> {
        if written { Err(self.unsupported(what, None)) } else { Ok(()) }
    }

    /// Whether an unquoted word comes next that is spelled so, whether or not it is a keyword to the parser.
    pub fn is_word(&self, spelled: &str) -> bool {
        matches!(&self.parser.peek_token_ref().token,
            Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(spelled))
    }

    /// Consumes such a word.
    pub fn take_word(&mut self, spelled: &str) -> bool {
        let is_next = self.is_word(spelled);
        if is_next {
            self.parser.next_token();
        }
        is_next
    }

    pub fn expect_word(&mut self, spelled: &str) -> Result<()> {
        if self.take_word(spelled) { Ok(()) } else { self.expected(spelled) }
    }

    pub fn name(&mut self) -> Result<Name> {
        self.ask(Parser::parse_identifier).map(|ident| fold(&ident))
    }

    /// The name of a table or an index: one part, as there are no schemas.
    pub fn object_name(&mut self) -> Result<Name> {
        let name = self.ask(|p| p.parse_object_name(false))?;
        self.one_part(&name)
    }

    pub fn one_part(&self, name: &ObjectName) -> Result<Name> {
        match &name.0[..] {
            [ObjectNamePart::Identifier(ident)] => Ok(fold(ident)),
            [ObjectNamePart::Identifier(first), ..] => {
                let what = format!("the name {name} with more than one part");
                Err(self
                    .unsupported(&what, Position::of(first.span.start))
                    .with_hint("there are no schemas: write the last part only"))
            }
            _ => Err(self.unsupported(&format!("the name {name}"), None)),
        }
    }

    /// Nothing may follow the statement but semicolons.
    fn end(&mut self) -> Result<()> {
        while self.parser.consume_token(&Token::SemiColon) {
            if !matches!(self.parser.peek_token_ref().token, Token::EOF | Token::SemiColon) {
                let what = "a second statement begins: send one statement a call";
                return Err(syntax(what, self.text, self.here()));
            }
        }
        match self.parser.peek_token_ref().token {
            Token::EOF => Ok(()),
            _ => self.expected("the end of the statement"),
        }
    }

    fn statement(&mut self) -> Result<Statement> {
        let keyword = match &self.parser.peek_token_ref().token {
            Token::Word(word) => word.keyword,
            Token::LParen => Keyword::SELECT,
            Token::EOF | Token::SemiColon => {
                return Err(Error::new(Code::Syntax, "the text holds no statement"));
            }
            _ => return self.expected("a statement"),
        };
        match keyword {
            Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::TABLE => self.query(),
            Keyword::INSERT | Keyword::UPDATE | Keyword::DELETE => {
                let statement = self.ask(Parser::parse_statement)?;
                self.change(statement, None)
            }
            Keyword::EXPLAIN => self.explain(),
            Keyword::CREATE | Keyword::ALTER | Keyword::DROP | Keyword::TRUNCATE => {
                ddl::schema_statement(self).map(Statement::Schema)
            }
            _ => Err(self.unknown_statement()),
        }
    }

    fn query(&mut self) -> Result<Statement> {
        let mut query = self.ask(Parser::parse_query)?;
        match *query.body {
            SetExpr::Insert(change) | SetExpr::Update(change) | SetExpr::Delete(change) | SetExpr::Merge(change) => {
                balance(&mut query.with);
                self.change(change, query.with)
            }
            body => {
                query = Box::new(Query { body: Box::new(body), ..*query });
                balance(&mut query);
                Ok(Statement::Query(query))
            }
        }
    }

    fn explain(&mut self) -> Result<Statement> {
        self.expect_word("EXPLAIN")?;
        let mut analyze = self.take_word("ANALYZE");
        if !analyze && self.parser.peek_token_ref().token == Token::LParen && !self.is_query_in_parentheses() {
            let options = self.ask(Parser::parse_utility_options)?;
            match &options[..] {
                [option] if option.arg.is_none() && option.name.value.eq_ignore_ascii_case("analyze") => analyze = true,
                _ => return Err(self.unsupported("EXPLAIN with options other than ANALYZE", None)),
            }
        }
        let at = self.here();
        match self.statement_to_explain()? {
            Statement::Explain { .. } | Statement::Schema(_) => {
                Err(syntax("only SELECT, INSERT, UPDATE and DELETE can be explained", self.text, at))
            }
            statement => Ok(Statement::Explain { analyze, statement: Box::new(statement) }),
        }
    }

    /// What stands behind an opening parenthesis, else options.
    fn is_query_in_parentheses(&self) -> bool {
        match &self.parser.peek_nth_token_ref(1).token {
            Token::LParen => true,
            Token::Word(word) => matches!(word.keyword, Keyword::SELECT | Keyword::VALUES | Keyword::WITH),
            _ => false,
        }
    }

    /// EXPLAIN does not nest, so neither does this.
    fn statement_to_explain(&mut self) -> Result<Statement> {
        match &self.parser.peek_token_ref().token {
            Token::Word(word) if word.keyword == Keyword::EXPLAIN => self.expected("a statement to explain"),
            _ => self.statement(),
        }
    }

    fn unknown_statement(&self) -> Error {
        const OURS: [&str; 10] =
            ["SELECT", "INSERT", "UPDATE", "DELETE", "EXPLAIN", "CREATE", "ALTER", "DROP", "TRUNCATE", "VALUES"];
        const OTHERS: [&str; 23] = [
            "SHOW",
            "SET",
            "BEGIN",
            "START",
            "COMMIT",
            "ROLLBACK",
            "GRANT",
            "REVOKE",
            "MERGE",
            "CALL",
            "COPY",
            "DO",
            "PREPARE",
            "EXECUTE",
            "DEALLOCATE",
            "DECLARE",
            "FETCH",
            "LOCK",
            "ANALYZE",
            "VACUUM",
            "USE",
            "DESCRIBE",
            "COMMENT",
        ];
        let word = self.parser.peek_token_ref().to_string();
        if OTHERS.iter().any(|other| other.eq_ignore_ascii_case(&word)) {
            return self.unsupported(&format!("the statement {}", word.to_uppercase()), None);
        }
        let error = syntax(format!("no statement begins with \"{word}\""), self.text, self.here());
        match nearest(&word, OURS) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error,
        }
    }
}

/// A name as the catalog spells it: lower case, unless it was quoted.
pub fn fold(ident: &ast::Ident) -> Name {
    let text = if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() };
    Name { text, at: Position::of(ident.span.start) }
}
