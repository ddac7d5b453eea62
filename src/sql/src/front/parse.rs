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
use super::statement::{Delete, Insert, InsertSource, Name, OnConflict, Statement, Update};
use model::error::nearest;
use model::{Code, Error, Result};
use sqlparser::ast::{self, AssignmentTarget, Expr, FromTable, ObjectName, ObjectNamePart, SetExpr, TableFactor};
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
    let Scanned { text, mut tokens, simple, params_count } = scanned;
    let replaces = take_do_replace(&mut tokens);
    let recursion_max = if simple { RECURSION_SIMPLE_MAX } else { RECURSION_MAX };
    let parser = Parser::new(&PicodataDialect).with_recursion_limit(recursion_max).with_tokens_with_locations(tokens);
    let mut source = Source { text, parser, replaces };
    let statement = source.statement()?;
    source.end()?;
    Ok(Parsed { statement, params_count })
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

/// The text being parsed. The methods consume what they parse.
pub(super) struct Source<'a> {
    pub text: &'a str,
    pub parser: Parser<'a>,
    replaces: bool,
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

    /// Consumes an unquoted word that is spelled so, whether or not it is a keyword to the parser.
    pub fn take_word(&mut self, spelled: &str) -> bool {
        let is_next = matches!(&self.parser.peek_token_ref().token,
            Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(spelled));
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
                self.change(statement)
            }
            Keyword::EXPLAIN => self.explain(),
            Keyword::CREATE | Keyword::DROP | Keyword::TRUNCATE => ddl::schema_statement(self).map(Statement::Schema),
            _ => Err(self.unknown_statement()),
        }
    }

    fn query(&mut self) -> Result<Statement> {
        let mut query = self.ask(Parser::parse_query)?;
        balance(&mut query);
        match &*query.body {
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                Err(self.unsupported("WITH before a statement that changes data", None))
            }
            _ => Ok(Statement::Query(query)),
        }
    }

    fn explain(&mut self) -> Result<Statement> {
        self.expect_word("EXPLAIN")?;
        let mut analyze = self.take_word("ANALYZE");
        if !analyze && self.parser.peek_token_ref().token == Token::LParen {
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

    /// EXPLAIN does not nest, so neither does this.
    fn statement_to_explain(&mut self) -> Result<Statement> {
        match &self.parser.peek_token_ref().token {
            Token::Word(word) if word.keyword == Keyword::EXPLAIN => self.expected("a statement to explain"),
            _ => self.statement(),
        }
    }

    fn unknown_statement(&self) -> Error {
        const OURS: [&str; 9] =
            ["SELECT", "INSERT", "UPDATE", "DELETE", "EXPLAIN", "CREATE", "DROP", "TRUNCATE", "VALUES"];
        const OTHERS: [&str; 24] = [
            "ALTER",
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

    fn change(&mut self, statement: ast::Statement) -> Result<Statement> {
        match statement {
            ast::Statement::Insert(insert) => self.insert(insert).map(Statement::Insert),
            ast::Statement::Update(update) => self.update(update).map(Statement::Update),
            ast::Statement::Delete(delete) => self.delete(delete).map(Statement::Delete),
            other => Err(self.unsupported(&format!("the statement {other}"), None)),
        }
    }

    fn insert(&self, insert: ast::Insert) -> Result<Insert> {
        self.refuse(insert.overwrite || insert.partitioned.is_some(), "INSERT OVERWRITE or PARTITION")?;
        self.refuse(!insert.assignments.is_empty() || !insert.after_columns.is_empty(), "INSERT ... SET")?;
        self.refuse(insert.returning.is_some() || insert.output.is_some(), "RETURNING")?;
        self.refuse(insert.ignore || insert.replace_into || insert.or.is_some(), "INSERT OR ...")?;
        self.refuse(insert.table_alias.is_some(), "an alias in INSERT")?;
        let ast::TableObject::TableName(table) = &insert.table else {
            return Err(self.unsupported("INSERT into anything but a table", None));
        };
        let columns: Result<Vec<Name>> = insert.columns.iter().map(|name| self.one_part(name)).collect();
        let columns = Some(columns?).filter(|columns| !columns.is_empty());
        let (on_conflict, conflict_target) = self.on_conflict(insert.on)?;
        let source = match insert.source {
            None => InsertSource::Defaults,
            Some(query) => self.insert_source(query)?,
        };
        Ok(Insert { table: self.one_part(table)?, columns, source, on_conflict, conflict_target })
    }

    fn on_conflict(&self, on: Option<ast::OnInsert>) -> Result<(OnConflict, Option<Vec<Name>>)> {
        let conflict = match on {
            None => return Ok((OnConflict::Fail, None)),
            Some(ast::OnInsert::OnConflict(conflict)) => conflict,
            Some(_) => return Err(self.unsupported("ON DUPLICATE KEY", None).with_hint("use ON CONFLICT")),
        };
        let target = match conflict.conflict_target {
            None => None,
            Some(ast::ConflictTarget::Columns(columns)) => Some(columns.iter().map(fold).collect()),
            Some(ast::ConflictTarget::OnConstraint(_)) => {
                return Err(self.unsupported("ON CONFLICT ON CONSTRAINT", None));
            }
        };
        match (conflict.action, self.replaces) {
            (ast::OnConflictAction::DoNothing, true) => Ok((OnConflict::Replace, target)),
            (ast::OnConflictAction::DoNothing, false) => Ok((OnConflict::Skip, target)),
            (ast::OnConflictAction::DoUpdate(_), _) => {
                Err(self.unsupported("ON CONFLICT DO UPDATE", None).with_hint("DO NOTHING and DO REPLACE are"))
            }
        }
    }

    fn insert_source(&self, mut query: Box<ast::Query>) -> Result<InsertSource> {
        let plain =
            query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
        match *query.body {
            SetExpr::Values(values) if plain => {
                let mut rows = Vec::with_capacity(values.rows.len());
                for row in values.rows {
                    rows.push(row.content.into_iter().map(default_or).collect::<Vec<_>>());
                }
                let width = rows.first().map_or(0, Vec::len);
                if rows.iter().any(|row| row.len() != width) {
                    return Err(Error::new(Code::InvalidStatement, "the rows of VALUES differ in length"));
                }
                rows.iter_mut().flatten().flatten().for_each(balance);
                Ok(InsertSource::Values(rows))
            }
            _ => {
                balance(&mut query);
                Ok(InsertSource::Query(query))
            }
        }
    }

    fn update(&self, update: ast::Update) -> Result<Update> {
        self.refuse(update.from.is_some(), "UPDATE ... FROM")?;
        self.refuse(update.returning.is_some() || update.output.is_some(), "RETURNING")?;
        self.refuse(update.or.is_some(), "UPDATE OR ...")?;
        self.refuse(!update.order_by.is_empty() || update.limit.is_some(), "ORDER BY or LIMIT in UPDATE")?;
        let (table, alias) = self.one_table(update.table, "UPDATE")?;
        let mut assignments = Vec::with_capacity(update.assignments.len());
        for assignment in update.assignments {
            let AssignmentTarget::ColumnName(target) = &assignment.target else {
                return Err(self.unsupported("SET (a, b) = ...", None).with_hint("assign the columns one by one"));
            };
            let mut value = default_or(assignment.value);
            value.iter_mut().for_each(balance);
            assignments.push((self.one_part(target)?, value));
        }
        let mut selection = update.selection;
        selection.iter_mut().for_each(balance);
        Ok(Update { table, alias, assignments, selection })
    }

    fn delete(&self, delete: ast::Delete) -> Result<Delete> {
        self.refuse(delete.using.is_some(), "DELETE ... USING")?;
        self.refuse(delete.returning.is_some() || delete.output.is_some(), "RETURNING")?;
        self.refuse(!delete.order_by.is_empty() || delete.limit.is_some(), "ORDER BY or LIMIT in DELETE")?;
        self.refuse(!delete.tables.is_empty(), "DELETE from several tables")?;
        let (FromTable::WithFromKeyword(mut from) | FromTable::WithoutKeyword(mut from)) = delete.from;
        let only = from.pop().filter(|_| from.is_empty());
        let only = only.ok_or_else(|| self.unsupported("DELETE from several tables", None))?;
        let (table, alias) = self.one_table(only, "DELETE")?;
        let mut selection = delete.selection;
        selection.iter_mut().for_each(balance);
        Ok(Delete { table, alias, selection })
    }

    /// The one table that UPDATE or DELETE changes, and its alias.
    fn one_table(&self, from: ast::TableWithJoins, statement: &str) -> Result<(Name, Option<Name>)> {
        self.refuse(!from.joins.is_empty(), &format!("a join as the target of {statement}"))?;
        let TableFactor::Table { name, alias, args: None, .. } = from.relation else {
            return Err(self.unsupported(&format!("{statement} of anything but a table"), None));
        };
        self.refuse(alias.as_ref().is_some_and(|a| !a.columns.is_empty()), "an alias with columns here")?;
        Ok((self.one_part(&name)?, alias.map(|alias| fold(&alias.name))))
    }
}

/// DEFAULT in the place of an expression: the parser takes it for a name.
fn default_or(expr: Expr) -> Option<Expr> {
    match expr {
        Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default") => None,
        other => Some(other),
    }
}

/// A name as the catalog spells it: lower case, unless it was quoted.
pub fn fold(ident: &ast::Ident) -> Name {
    let text = if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() };
    Name { text, at: Position::of(ident.span.start) }
}
