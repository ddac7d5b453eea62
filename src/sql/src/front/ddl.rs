//! Schema statements: CREATE and DROP of tables, indexes, views and sequences, ALTER TABLE, TRUNCATE.
//!
//! The parser reads names, columns and constraints; our own clauses (USING, DISTRIBUTED, IN TIER, WITH, WAIT APPLIED,
//! OPTION) are read here with its token interface, in any order, each once. A CREATE TABLE leaves as a complete and
//! checked `model::Table`; what needs the schema (columns of an index, the table of an index) stays a name.

use super::ddl_alter::alter_table;
use super::ddl_column::{column, hidden_key};
use super::ddl_sequence::create_sequence;
use super::ddl_view::create_view;
use super::parse::{Source, fold};
use super::position::{error_at, syntax};
use super::program::{Scope, condition};
use super::statement::{
    ColumnDraft, DEFAULT_TIER, DefaultDraft, DistributionDraft, Name, SchemaAction, SchemaStatement, TableClauses,
};
use model::error::nearest;
use model::{Check, Code, Column, Distribution, Durability, Engine, Error, Index, Result, Table, TableState};
use sqlparser::ast::{
    CheckConstraint, Expr, IndexColumn, OrderByExpr, PrimaryKeyConstraint, SqlOption, TableConstraint, UniqueConstraint,
};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// The longest time that OPTION (TIMEOUT = ...) can ask for: a day.
const TIMEOUT_SECONDS_MAX: f64 = 86_400.0;

/// Parses a statement that begins with CREATE, ALTER, DROP or TRUNCATE.
pub(super) fn schema_statement(source: &mut Source) -> Result<SchemaStatement> {
    let at = source.here();
    if source.take_word("TRUNCATE") {
        source.take_word("TABLE");
        let if_exists = source.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let action = SchemaAction::Truncate { table: source.object_name()?, if_exists };
        return finish(source, action);
    }
    if source.take_word("DROP") {
        return drop(source);
    }
    if source.take_word("ALTER") {
        return alter_table(source);
    }
    source.expect_word("CREATE")?;
    if source.parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]) {
        source.expect_word("VIEW")?;
        return create_view(source, true);
    }
    if source.take_word("VIEW") {
        return create_view(source, false);
    }
    if source.take_word("SEQUENCE") {
        return create_sequence(source);
    }
    if source.take_word("TABLE") {
        return create_table(source);
    }
    if source.take_word("UNIQUE") {
        source.expect_word("INDEX")?;
        return create_index(source, true);
    }
    if source.take_word("INDEX") {
        return create_index(source, false);
    }
    let what = format!("CREATE {}", source.parser.peek_token_ref().to_string().to_uppercase());
    Err(source.unsupported(&what, at))
}

fn drop(source: &mut Source) -> Result<SchemaStatement> {
    let at = source.here();
    let kinds = ["TABLE", "INDEX", "VIEW", "SEQUENCE"];
    let Some(kind) = kinds.into_iter().find(|kind| source.take_word(kind)) else {
        let what = format!("DROP {}", source.parser.peek_token_ref().to_string().to_uppercase());
        return Err(source.unsupported(&what, at));
    };
    let if_exists = source.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = source.object_name()?;
    if source.parser.peek_token_ref().token == Token::Comma {
        return Err(source.unsupported("DROP of several things at once", source.here()));
    }
    if kind == "INDEX" {
        let table = if source.take_word("ON") { Some(source.object_name()?) } else { None };
        return finish(source, SchemaAction::DropIndex { name, table, if_exists });
    }
    let cascade = source.take_word("CASCADE");
    if !cascade {
        source.take_word("RESTRICT");
    }
    let action = match kind {
        "VIEW" => SchemaAction::DropView { name, if_exists, cascade },
        "SEQUENCE" if cascade => return Err(source.unsupported("DROP SEQUENCE ... CASCADE", at)),
        "SEQUENCE" => SchemaAction::DropSequence { name, if_exists },
        _ => SchemaAction::DropTable { table: name, if_exists, cascade },
    };
    finish(source, action)
}

fn create_index(source: &mut Source, unique: bool) -> Result<SchemaStatement> {
    let if_not_exists = source.parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = source.object_name()?;
    source.expect_word("ON")?;
    let table = source.object_name()?;
    if source.take_word("USING") && !source.take_word("TREE") && !source.take_word("BTREE") {
        return Err(source.unsupported("any index but USING TREE", source.here()));
    }
    source.ask(|p| p.expect_token(&Token::LParen).map(|_| ()))?;
    let columns = source.ask(|p| p.parse_comma_separated(Parser::parse_create_index_expr))?;
    source.ask(|p| p.expect_token(&Token::RParen).map(|_| ()))?;
    let columns = index_columns(source, &columns)?;
    finish(source, SchemaAction::CreateIndex { name, table, columns, unique, if_not_exists })
}

/// The clauses that any schema statement can end in.
pub(super) fn finish(source: &mut Source, action: SchemaAction) -> Result<SchemaStatement> {
    let mut clauses = TableClauses::default();
    while common_clause(source, &mut clauses)? {}
    Ok(SchemaStatement { action, timeout_ms: clauses.timeout_ms })
}

/// `WAIT APPLIED GLOBALLY | LOCALLY` or `OPTION (TIMEOUT = s)`; false when neither is next.
fn common_clause(source: &mut Source, clauses: &mut TableClauses) -> Result<bool> {
    if source.take_word("WAIT") {
        source.expect_word("APPLIED")?;
        // Every schema change waits for all online instances, which is what both words ask for and more.
        if !source.take_word("GLOBALLY") {
            source.expect_word("LOCALLY")?;
        }
        return Ok(true);
    }
    let at = source.here();
    if !source.take_word("OPTION") {
        return Ok(false);
    }
    source.ask(|p| p.expect_token(&Token::LParen).map(|_| ()))?;
    source.expect_word("TIMEOUT")?;
    source.ask(|p| p.expect_token(&Token::Eq).map(|_| ()))?;
    let number = source.ask(Parser::parse_number_value)?.to_string();
    source.ask(|p| p.expect_token(&Token::RParen).map(|_| ()))?;
    let seconds = number.parse::<f64>().ok().filter(|s| *s > 0.0 && *s <= TIMEOUT_SECONDS_MAX);
    let seconds = seconds.ok_or_else(|| {
        let what = format!("TIMEOUT = {number}: seconds go from above 0 to {TIMEOUT_SECONDS_MAX}");
        error_at(Code::InvalidStatement, what, source.text, at)
    })?;
    once(source, &mut clauses.timeout_ms, (seconds * 1000.0).ceil() as u64, "OPTION")?;
    Ok(true)
}

fn once<T>(source: &Source, slot: &mut Option<T>, value: T, clause: &str) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(syntax(format!("{clause} was written twice"), source.text, source.here())),
    }
}

fn create_table(source: &mut Source) -> Result<SchemaStatement> {
    let if_not_exists = source.parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = source.object_name()?;
    if source.parser.peek_token_ref().token != Token::LParen {
        return source.expected("the table's columns in parentheses");
    }
    let (definitions, constraints) = source.ask(Parser::parse_columns)?;
    let mut columns = Vec::with_capacity(definitions.len());
    for definition in &definitions {
        columns.push(column(source, definition)?);
    }
    let clauses = table_clauses(source)?;
    let timeout_ms = clauses.timeout_ms;
    let table = Assembly { source, name, columns }.table(&constraints, clauses)?;
    Ok(SchemaStatement { action: SchemaAction::CreateTable { table, if_not_exists }, timeout_ms })
}

fn table_clauses(source: &mut Source) -> Result<TableClauses> {
    let mut clauses = TableClauses::default();
    loop {
        if source.take_word("USING") {
            let engine = match (source.take_word("MEMTX"), source.take_word("VINYL")) {
                (true, _) => Engine::Memtx,
                (_, true) => Engine::Vinyl,
                _ => return source.expected("memtx or vinyl"),
            };
            once(source, &mut clauses.engine, engine, "USING")?;
        } else if source.take_word("DISTRIBUTED") {
            let distribution = distribution(source)?;
            once(source, &mut clauses.distribution, distribution, "DISTRIBUTED")?;
        } else if source.is_word("WITH") {
            let options = source.ask(|p| p.parse_options(Keyword::WITH))?;
            once(source, &mut clauses.durability, durability(source, &options)?, "WITH")?;
        } else if !common_clause(source, &mut clauses)? {
            return Ok(clauses);
        }
    }
}

/// The one option that a table has: `durability = 'replicated' | 'local'`.
pub(super) fn durability(source: &Source, options: &[SqlOption]) -> Result<Durability> {
    let refuse = |what: String| {
        let error = Error::new(Code::InvalidStatement, what);
        error.with_hint("a table has one option: durability, which is 'replicated' or 'local'")
    };
    let [option, others @ ..] = options else { return Err(refuse("no option is given".to_owned())) };
    let SqlOption::KeyValue { key, value } = option else {
        return Err(source.unsupported(&format!("the option \"{option}\""), None));
    };
    if !key.value.eq_ignore_ascii_case("durability") {
        return Err(refuse(format!("there is no option \"{}\" of tables", key.value)));
    }
    if let Some(other) = others.first() {
        return Err(refuse(format!("the option \"{other}\" is one too many")));
    }
    let name = match value {
        Expr::Value(value) => value.clone().into_string(),
        Expr::Identifier(name) => Some(name.value.clone()),
        _ => None,
    };
    name.as_deref().and_then(Durability::named).ok_or_else(|| refuse(format!("{value} is no durability")))
}

fn distribution(source: &mut Source) -> Result<DistributionDraft> {
    if source.take_word("GLOBALLY") {
        return Ok(DistributionDraft::Globally);
    }
    if !source.take_word("BY") {
        return source.expected("BY (columns) or GLOBALLY");
    }
    source.ask(|p| p.expect_token(&Token::LParen).map(|_| ()))?;
    let key = source.ask(|p| p.parse_comma_separated(Parser::parse_identifier))?.iter().map(fold).collect();
    source.ask(|p| p.expect_token(&Token::RParen).map(|_| ()))?;
    let tier = if source.take_word("IN") {
        source.expect_word("TIER")?;
        Some(source.name()?)
    } else {
        None
    };
    Ok(DistributionDraft::By { key, tier })
}

/// The plain columns of an index or a key.
pub(super) fn index_columns(source: &Source, columns: &[IndexColumn]) -> Result<Vec<Name>> {
    let plain = |column: &IndexColumn| match &column.column {
        OrderByExpr { expr: Expr::Identifier(ident), options, .. }
            if options.asc != Some(false) && options.nulls_first.is_none() && column.operator_class.is_none() =>
        {
            Ok(fold(ident))
        }
        other => Err(source.unsupported(&format!("\"{other}\" in an index"), None).with_hint("name plain columns")),
    };
    columns.iter().map(plain).collect()
}

/// The parts of a CREATE TABLE, on their way to a `Table`.
struct Assembly<'s, 't> {
    source: &'s Source<'t>,
    name: Name,
    columns: Vec<ColumnDraft>,
}

impl Assembly<'_, '_> {
    fn table(mut self, constraints: &[TableConstraint], clauses: TableClauses) -> Result<Table> {
        let own_key = self.primary_key(constraints)?;
        let distribution = match clauses.distribution {
            Some(draft) => Some(draft.resolve(|name| self.position(name))?),
            None => None,
        };
        let primary_key = match own_key {
            Some(key) => key,
            None => self.add_hidden_key(distribution.as_ref()),
        };
        let by_key = || Distribution::Sharded { key: primary_key.clone(), tier: DEFAULT_TIER.into() };
        let mut table = Table {
            id: 0,
            name: self.name.text.clone(),
            version: 0,
            engine: clauses.engine.unwrap_or(Engine::Memtx),
            distribution: distribution.unwrap_or_else(by_key),
            columns: Vec::with_capacity(self.columns.len()),
            indexes: self.unique_indexes(constraints)?,
            primary_key,
            state: TableState::Preparing,
            checks: self.checks(constraints)?,
            durability: clauses.durability.unwrap_or_default(),
        };
        for (position, draft) in self.columns.into_iter().enumerate() {
            let in_key = table.primary_key.contains(&position);
            if in_key && draft.nullable == Some(true) {
                let what = format!("column \"{}\" is part of the primary key and can not be NULL", draft.name.text);
                return Err(error_at(Code::InvalidStatement, what, self.source.text, draft.name.at));
            }
            table.columns.push(draft.finish(in_key));
        }
        table.validate()?;
        Ok(table)
    }

    /// A table without a primary key gets a hidden column with a number of its own in each row, behind the sharding key.
    fn add_hidden_key(&mut self, distribution: Option<&Distribution>) -> Vec<usize> {
        let mut key = match distribution {
            Some(Distribution::Sharded { key, .. }) => key.clone(),
            _ => Vec::new(),
        };
        key.push(self.columns.len());
        self.columns.push(hidden_key());
        key
    }

    fn checks(&self, constraints: &[TableConstraint]) -> Result<Vec<Check>> {
        let of_columns =
            self.columns.iter().flat_map(|column| column.checks.iter().map(|(name, expr)| (name.clone(), expr)));
        let of_table = constraints.iter().filter_map(|constraint| match constraint {
            TableConstraint::Check(CheckConstraint { name, expr, .. }) => Some((name.as_ref().map(fold), &**expr)),
            _ => None,
        });
        let columns = self.columns.iter().enumerate();
        let columns: Vec<_> = columns.map(|(at, column)| (column.name.text.clone(), at, column.ty)).collect();
        let mut checks: Vec<Check> = Vec::new();
        for (name, expr) in of_columns.chain(of_table) {
            let program = condition(expr, Scope { table: &self.name.text, columns: &columns, is_default: false })?;
            let name = match name {
                Some(name) => name.text,
                None => {
                    let read: Vec<&str> = program.columns().map(|at| columns[at].0.as_str()).collect();
                    check_name(&self.name.text, &read, |name| checks.iter().any(|check| check.name == name))
                }
            };
            checks.push(Check { name, program });
        }
        Ok(checks)
    }

    fn position(&self, name: &Name) -> Result<usize> {
        self.columns.iter().position(|column| column.name.text == name.text).ok_or_else(|| {
            let what = format!("table \"{}\" has no column \"{}\"", self.name.text, name.text);
            let error = error_at(Code::NoSuchColumn, what, self.source.text, name.at);
            match nearest(&name.text, self.columns.iter().map(|column| column.name.text.as_str())) {
                Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                None => error,
            }
        })
    }

    fn positions(&self, columns: &[IndexColumn]) -> Result<Vec<usize>> {
        index_columns(self.source, columns)?.iter().map(|name| self.position(name)).collect()
    }

    /// The primary key; None when there is none.
    fn primary_key(&self, constraints: &[TableConstraint]) -> Result<Option<Vec<usize>>> {
        let of_columns: Vec<usize> = (0..self.columns.len()).filter(|at| self.columns[*at].primary).collect();
        let mut keys: Vec<Vec<usize>> = of_columns.into_iter().map(|at| vec![at]).collect();
        for constraint in constraints {
            if let TableConstraint::PrimaryKey(PrimaryKeyConstraint { columns, .. }) = constraint {
                keys.push(self.positions(columns)?);
            }
        }
        if keys.len() > 1 {
            let what = format!("table \"{}\" has more than one primary key", self.name.text);
            return Err(error_at(Code::InvalidStatement, what, self.source.text, self.name.at));
        }
        Ok(keys.pop())
    }

    /// UNIQUE constraints are unique indexes; `Table::validate` refuses those that a replicaset can not enforce alone.
    fn unique_indexes(&self, constraints: &[TableConstraint]) -> Result<Vec<Index>> {
        let mut keys: Vec<(Option<String>, Vec<usize>)> = Vec::new();
        for (position, column) in self.columns.iter().enumerate() {
            keys.extend(column.unique.clone().map(|name| (name.map(|name| name.text), vec![position])));
        }
        for constraint in constraints {
            match constraint {
                TableConstraint::PrimaryKey(_) | TableConstraint::Check(_) => {}
                TableConstraint::ForeignKey(_) => return Err(no_foreign_keys()),
                TableConstraint::Unique(UniqueConstraint { name, columns, .. }) => {
                    keys.push((name.as_ref().map(|name| fold(name).text), self.positions(columns)?));
                }
                other => return Err(self.source.unsupported(&format!("the constraint \"{other}\""), None)),
            }
        }
        let index = |(at, (name, columns)): (usize, (Option<String>, Vec<usize>))| {
            let names: Vec<&str> = columns.iter().map(|at| self.columns[*at].name.text.as_str()).collect();
            let name = name.unwrap_or_else(|| format!("{}_{}_key", self.name.text, names.join("_")));
            Index { id: at as u32 + 1, name, columns, unique: true }
        };
        Ok(keys.into_iter().enumerate().map(index).collect())
    }
}

/// The name of a CHECK that was given none, as PostgreSQL makes it up.
pub(super) fn check_name(table: &str, read: &[&str], is_taken: impl Fn(&str) -> bool) -> String {
    let base = match read.split_first() {
        Some((first, others)) if others.iter().all(|other| other == first) => format!("{table}_{first}_check"),
        _ => format!("{table}_check"),
    };
    let numbered = (1..).map(|number| format!("{base}{number}"));
    std::iter::once(base.clone()).chain(numbered).find(|name| !is_taken(name)).unwrap_or_default()
}

pub(super) fn no_foreign_keys() -> Error {
    let message =
        "foreign keys are not supported: a row and the row that it refers to may lie on different replicasets";
    Error::new(Code::Unsupported, message).with_hint("leave REFERENCES out, and check in the statement that writes")
}

impl ColumnDraft {
    pub(super) fn finish(self, in_key: bool) -> Column {
        let nullable = self.nullable.unwrap_or(true) && !in_key;
        let mut column = Column::new(self.name.text, self.ty, nullable);
        column.hidden = column.name == model::table::ROW_ID;
        match self.default {
            Some(DefaultDraft::Constant(value)) => column.default = Some(value).filter(|value| !value.is_null()),
            Some(DefaultDraft::Generated(generated)) => column.generated = Some(generated),
            None => {}
        }
        column
    }
}
