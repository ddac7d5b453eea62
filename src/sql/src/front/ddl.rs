//! Schema statements: CREATE and DROP of tables and indexes, TRUNCATE.
//!
//! The parser reads names, columns and constraints; our own clauses (USING, DISTRIBUTED, IN TIER, WAIT APPLIED,
//! OPTION) are read here with its token interface, in any order, each once. A CREATE TABLE leaves as a complete and
//! checked `model::Table`; what needs the schema (columns of an index, the table of an index) stays a name.

use super::literal::default_value;
use super::parse::{Source, fold};
use super::position::{error_at, syntax};
use super::statement::{
    ColumnDraft, DEFAULT_TIER, DistributionDraft, Name, SchemaAction, SchemaStatement, TableClauses,
};
use super::types::column_type;
use model::error::nearest;
use model::{Code, Column, Distribution, Engine, Error, Index, Result, Table, TableState};
use sqlparser::ast::{
    ColumnDef, ColumnOption, Expr, IndexColumn, OrderByExpr, PrimaryKeyConstraint, TableConstraint, UniqueConstraint,
};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// The longest time that OPTION (TIMEOUT = ...) can ask for: a day.
const TIMEOUT_SECONDS_MAX: f64 = 86_400.0;

/// Parses a statement that begins with CREATE, DROP or TRUNCATE.
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
    source.expect_word("CREATE")?;
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
    let is_table = source.take_word("TABLE");
    if !is_table && !source.take_word("INDEX") {
        let what = format!("DROP {}", source.parser.peek_token_ref().to_string().to_uppercase());
        return Err(source.unsupported(&what, at));
    }
    let if_exists = source.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = source.object_name()?;
    if source.parser.peek_token_ref().token == Token::Comma {
        return Err(source.unsupported("DROP of several things at once", source.here()));
    }
    if is_table {
        // Nothing can depend on a table yet, so both words of the standard mean the same.
        let _ = source.take_word("RESTRICT") || source.take_word("CASCADE");
        return finish(source, SchemaAction::DropTable { table: name, if_exists });
    }
    let table = if source.take_word("ON") { Some(source.object_name()?) } else { None };
    finish(source, SchemaAction::DropIndex { name, table, if_exists })
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
fn finish(source: &mut Source, action: SchemaAction) -> Result<SchemaStatement> {
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
        } else if !common_clause(source, &mut clauses)? {
            return Ok(clauses);
        }
    }
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

fn column(source: &Source, definition: &ColumnDef) -> Result<ColumnDraft> {
    let name = fold(&definition.name);
    let in_column = |mut error: Error| {
        error.message = format!("column \"{}\": {}", name.text, error.message);
        error
    };
    let ty = column_type(&definition.data_type).map_err(in_column)?;
    let mut draft =
        ColumnDraft { name: name.clone(), ty, nullable: None, default: None, primary: false, unique: false };
    for option in &definition.options {
        match &option.option {
            ColumnOption::Null => draft.nullable = Some(true),
            ColumnOption::NotNull => draft.nullable = Some(false),
            ColumnOption::PrimaryKey(_) => draft.primary = true,
            ColumnOption::Unique(_) => draft.unique = true,
            ColumnOption::Default(expr) => {
                let value = default_value(expr, ty).ok_or_else(|| {
                    let what = format!("DEFAULT {expr} of column \"{}\"", name.text);
                    source.unsupported(&what, name.at).with_hint("a default is a literal")
                })?;
                draft.default = Some(value.map_err(in_column)?).filter(|value| !value.is_null());
            }
            other => return Err(source.unsupported(&format!("\"{other}\" of column \"{}\"", name.text), name.at)),
        }
    }
    Ok(draft)
}

/// The plain columns of an index or a key.
fn index_columns(source: &Source, columns: &[IndexColumn]) -> Result<Vec<Name>> {
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
    fn table(self, constraints: &[TableConstraint], clauses: TableClauses) -> Result<Table> {
        let primary_key = self.primary_key(constraints)?;
        let distribution = match clauses.distribution {
            Some(draft) => draft.resolve(|name| self.position(name))?,
            None => Distribution::Sharded { key: primary_key.clone(), tier: DEFAULT_TIER.into() },
        };
        let mut table = Table {
            id: 0,
            name: self.name.text.clone(),
            version: 0,
            engine: clauses.engine.unwrap_or(Engine::Memtx),
            distribution,
            columns: Vec::with_capacity(self.columns.len()),
            indexes: self.unique_indexes(constraints)?,
            primary_key,
            state: TableState::Preparing,
        };
        for (position, draft) in self.columns.into_iter().enumerate() {
            let in_key = table.primary_key.contains(&position);
            if in_key && draft.nullable == Some(true) {
                let what = format!("column \"{}\" is part of the primary key and can not be NULL", draft.name.text);
                return Err(error_at(Code::InvalidStatement, what, self.source.text, draft.name.at));
            }
            let nullable = draft.nullable.unwrap_or(true) && !in_key;
            table.columns.push(Column { name: draft.name.text, ty: draft.ty, nullable, default: draft.default });
        }
        table.validate()?;
        Ok(table)
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

    fn primary_key(&self, constraints: &[TableConstraint]) -> Result<Vec<usize>> {
        let of_columns: Vec<usize> = (0..self.columns.len()).filter(|at| self.columns[*at].primary).collect();
        let mut keys: Vec<Vec<usize>> = of_columns.into_iter().map(|at| vec![at]).collect();
        for constraint in constraints {
            if let TableConstraint::PrimaryKey(PrimaryKeyConstraint { columns, .. }) = constraint {
                keys.push(self.positions(columns)?);
            }
        }
        let invalid = |what: String| Err(error_at(Code::InvalidStatement, what, self.source.text, self.name.at));
        match keys.len() {
            1 => Ok(keys.remove(0)),
            0 => match invalid(format!("table \"{}\" has no primary key", self.name.text)) {
                Err(error) => {
                    Err(error.with_hint("add PRIMARY KEY to a column, or PRIMARY KEY (a, b) after the columns"))
                }
                ok => ok,
            },
            _ => invalid(format!("table \"{}\" has more than one primary key", self.name.text)),
        }
    }

    /// UNIQUE constraints are unique indexes; `Table::validate` refuses those that a replicaset can not enforce alone.
    fn unique_indexes(&self, constraints: &[TableConstraint]) -> Result<Vec<Index>> {
        let mut keys: Vec<(Option<String>, Vec<usize>)> = Vec::new();
        for (position, _) in self.columns.iter().enumerate().filter(|(_, column)| column.unique) {
            keys.push((None, vec![position]));
        }
        for constraint in constraints {
            match constraint {
                TableConstraint::PrimaryKey(_) => {}
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
