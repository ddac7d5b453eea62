//! INSERT, UPDATE and DELETE that are no point statements: a query finds what to change, then the changes are written.
//!
//! UPDATE and DELETE become a SELECT of the primary key, of the old values of every column that the statement read, and
//! of the new values. Each change carries the old values, and its storage refuses the lot when a row has become another
//! one meanwhile; then the statement computes everything again. All rows are collected before the first is written, so
//! a statement never sees its own changes.

use super::literal;
use super::names::Names;
use super::params::substitute;
use super::parse::{fold, parse};
use super::point::targets_primary_key;
use super::position::error_at;
use super::queries::{QueryEngine, QueryRequest};
use super::statement::{Delete, Insert, InsertSource, Name, OnConflict, Statement, Update};
use crate::cluster::{Cluster, RowChange, Schema};
use crud::cell::Cell;
use model::{Code, ColumnType, Error, Result, Table, Value};
use sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr, TableAlias, TableFactor, Visit, Visitor,
};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Bounds on statements that change rows.
#[derive(Clone, Copy, Debug)]
pub struct ChangeLimits {
    /// Rows that one statement may change.
    pub rows_max: usize,
    /// Rows of one write: up to so many rows a statement is all or nothing on each replicaset.
    pub batch_rows_max: usize,
    /// How often a statement is computed again because rows changed under it.
    pub retries_max: u32,
}

impl Default for ChangeLimits {
    fn default() -> Self {
        Self { rows_max: 1_000_000, batch_rows_max: 50_000, retries_max: 10 }
    }
}

/// One execution of a statement that changes rows.
pub struct Changer<'a> {
    pub engine: &'a dyn QueryEngine,
    pub cluster: &'a Arc<dyn Cluster>,
    pub text: &'a str,
    pub params: &'a [Value],
    pub limits: ChangeLimits,
    pub deadline: Instant,
}

/// A change as a query and what its rows mean.
pub(super) struct Selected {
    pub table: Arc<Table>,
    pub query: Box<Query>,
    /// Columns whose old values follow the primary key in each row.
    read: Vec<usize>,
    /// Columns whose new values follow those; None for a DELETE.
    set: Option<Vec<usize>>,
}

/// Rows to insert: where they come from and which columns they fill.
pub(super) struct Inserted {
    pub table: Arc<Table>,
    columns: Vec<usize>,
    pub rows: InsertRows,
}

pub(super) enum InsertRows {
    Constant(Vec<Vec<Value>>),
    Query(Box<Query>),
}

impl Changer<'_> {
    /// Carries out the statement; answers how many rows it changed. `began_writing` is set before the first write, when
    /// the statement can no longer be tried again as if nothing had happened.
    ///
    /// Errors: those of names and types before anything is written; `DuplicateKey` and the like from the storages;
    /// `Unknown` when a part was written and the rest was not, with the count.
    pub async fn run(&self, statement: &Statement, began_writing: &AtomicBool) -> Result<u64> {
        let mut attempt = 0;
        loop {
            let (table, changes) = self.changes(statement).await?;
            began_writing.store(true, Ordering::Relaxed);
            match self.write(&table, changes).await {
                Err(error) if error.code == Code::Conflict && attempt < self.limits.retries_max => attempt += 1,
                result => return result,
            }
        }
    }

    async fn changes(&self, statement: &Statement) -> Result<(Arc<Table>, Vec<RowChange>)> {
        let schema = self.cluster.schema();
        match statement {
            Statement::Insert(insert) => {
                let inserted = self.inserted(insert, &*schema)?;
                let rows = match inserted.rows {
                    InsertRows::Constant(rows) => rows,
                    InsertRows::Query(query) => self.rows(query, inserted.columns.len()).await?,
                };
                let rows = rows.into_iter().map(|row| complete(&inserted.table, &inserted.columns, row));
                let change = |row| match insert.on_conflict {
                    OnConflict::Fail => RowChange::Insert { row },
                    OnConflict::Skip => RowChange::InsertOrSkip { row },
                    OnConflict::Replace => RowChange::Replace { row },
                };
                let changes = rows.map(|row| row.map(change)).collect::<Result<_>>()?;
                Ok((inserted.table, changes))
            }
            Statement::Update(_) | Statement::Delete(_) => {
                let selected = self.selected(statement, &*schema)?;
                let width = selected.width();
                let rows = self.rows(selected.query.clone(), width).await?;
                let changes = rows.into_iter().map(|row| selected.change(row)).collect::<Result<_>>()?;
                Ok((selected.table, changes))
            }
            other => Err(Error::internal(format!("{} changes no rows", other.kind()))),
        }
    }

    /// All rows of a query of `width` columns.
    async fn rows(&self, query: Box<Query>, width: usize) -> Result<Vec<Vec<Value>>> {
        let mut stream = self
            .engine
            .query(self.cluster, QueryRequest { query, rows_max: self.limits.rows_max, deadline: self.deadline })
            .await?;
        let found = stream.columns().len();
        if found != width {
            let message = format!("the query has {found} columns, {width} are needed");
            return Err(Error::new(Code::InvalidStatement, message));
        }
        let mut rows = Vec::new();
        while let Some(batch) = stream.next_values().await? {
            rows.extend(batch);
            if rows.len() > self.limits.rows_max {
                let message = format!("the statement changes more than {} rows", self.limits.rows_max);
                return Err(Error::new(Code::LimitExceeded, message).with_hint("change them in several statements"));
            }
        }
        Ok(rows)
    }

    async fn write(&self, table: &Arc<Table>, changes: Vec<RowChange>) -> Result<u64> {
        let mut changed = 0;
        let mut changes = changes.into_iter();
        let mut is_first = true;
        loop {
            let batch: Vec<RowChange> = changes.by_ref().take(self.limits.batch_rows_max).collect();
            if batch.is_empty() {
                return Ok(changed);
            }
            match self.cluster.write(table, batch, self.deadline).await {
                Ok(count) => changed += count,
                Err(error) if is_first => return Err(error),
                // No longer one that can be tried again as if nothing had happened.
                Err(error) => {
                    let message = format!("{changed} rows were changed, then the statement failed: {}", error.message);
                    let code = if error.code.is_retryable() { Code::Unknown } else { error.code };
                    return Err(Error { code, message, hint: error.hint });
                }
            }
            is_first = false;
        }
    }

    pub(super) fn inserted(&self, insert: &Insert, schema: &dyn Schema) -> Result<Inserted> {
        let names = Names { schema, text: self.text };
        let table = names.table(&insert.table)?;
        if !targets_primary_key(&table, insert.conflict_target.as_deref()) {
            return Err(Error::new(
                Code::Unsupported,
                "ON CONFLICT of columns that are not the primary key is not supported",
            ));
        }
        let mut columns = match &insert.columns {
            Some(names_of_columns) => names.columns(&table, names_of_columns)?,
            None => (0..table.columns.len()).collect(),
        };
        let rows = match &insert.source {
            InsertSource::Defaults => {
                columns.clear();
                InsertRows::Constant(vec![Vec::new()])
            }
            InsertSource::Query(query) => {
                let mut query = query.clone();
                substitute(&mut query, self.params);
                InsertRows::Query(query)
            }
            InsertSource::Values(values) => self.values(&table, &columns, values)?,
        };
        Ok(Inserted { table, columns, rows })
    }

    fn values(&self, table: &Table, columns: &[usize], values: &[Vec<Option<Expr>>]) -> Result<InsertRows> {
        let width = values.first().map_or(0, Vec::len);
        if width != columns.len() {
            let message = format!("the rows have {width} values, {} columns are to be filled", columns.len());
            return Err(Error::new(Code::InvalidStatement, message));
        }
        let mut rows = values.to_vec();
        for row in &mut rows {
            for (expr, column) in row.iter_mut().zip(columns) {
                match expr {
                    Some(expr) => substitute(expr, self.params),
                    None => *expr = Some(default_expression(table, *column)),
                }
            }
        }
        let constant = |expr: &Option<Expr>| expr.as_ref().and_then(literal::constant);
        let constants: Option<Vec<Vec<Result<Value>>>> =
            rows.iter().map(|row| row.iter().map(constant).collect()).collect();
        if let Some(constants) = constants {
            return constants
                .into_iter()
                .map(|row| row.into_iter().collect())
                .collect::<Result<_>>()
                .map(InsertRows::Constant);
        }
        let mut query = template("VALUES (1)")?;
        let SetExpr::Values(values) = &mut *query.body else { return Err(Error::internal("a template is no VALUES")) };
        let Some(pattern) = values.rows.pop() else { return Err(Error::internal("a template has no row")) };
        for row in rows {
            let mut parens = pattern.clone();
            parens.content = row.into_iter().flatten().collect();
            values.rows.push(parens);
        }
        Ok(InsertRows::Query(query))
    }

    /// The query that finds what an UPDATE or a DELETE changes.
    pub(super) fn selected(&self, statement: &Statement, schema: &dyn Schema) -> Result<Selected> {
        let names = Names { schema, text: self.text };
        let nothing: &[(Name, Option<Expr>)] = &[];
        let (target, alias, assignments, selection) = match statement {
            Statement::Update(Update { table, alias, assignments, selection }) => {
                (table, alias, &assignments[..], selection)
            }
            Statement::Delete(Delete { table, alias, selection }) => (table, alias, nothing, selection),
            other => return Err(Error::internal(format!("{} selects nothing to change", other.kind()))),
        };
        let table = names.table(target)?;
        let targets: Vec<Name> = assignments.iter().map(|(name, _)| name.clone()).collect();
        let set = names.columns(&table, &targets)?;
        if let Some(at) = set.iter().position(|column| table.primary_key.contains(column)) {
            let what = format!("changing column \"{}\" of the primary key is not supported", targets[at].text);
            let error = error_at(Code::Unsupported, what, self.text, targets[at].at);
            return Err(error.with_hint("delete the row and insert it anew"));
        }
        let mut selection = selection.clone();
        selection.iter_mut().for_each(|expr| substitute(expr, self.params));
        let values = assignments.iter().zip(&set).map(|((_, value), column)| match value {
            None => default_expression(&table, *column),
            Some(value) => {
                let mut value = value.clone();
                substitute(&mut value, self.params);
                value
            }
        });
        let values: Vec<Expr> = values.collect();
        let read = columns_read(&table, values.iter().chain(selection.as_ref()));
        let qualifier = alias.as_ref().unwrap_or(target);
        let column =
            |at: &usize| Expr::CompoundIdentifier(vec![quoted(&qualifier.text), quoted(&table.columns[*at].name)]);
        let items = table.primary_key.iter().chain(&read).map(column).chain(values);
        let query = select_from(&table, alias.as_ref(), items.collect(), selection)?;
        let set = matches!(statement, Statement::Update(_)).then_some(set);
        Ok(Selected { table, query, read, set })
    }
}

impl Selected {
    fn width(&self) -> usize {
        self.table.primary_key.len() + self.read.len() + self.set.as_ref().map_or(0, Vec::len)
    }

    /// The change that a row of the query stands for.
    fn change(&self, row: Vec<Value>) -> Result<RowChange> {
        let mut values = row.into_iter();
        let mut take = |column: usize| -> Result<Value> {
            let value = values.next().ok_or_else(|| Error::internal("a row of the query is too short"))?;
            coerced(&self.table, column, value)
        };
        let key = self.table.primary_key.iter().map(|column| take(*column)).collect::<Result<Vec<_>>>()?;
        let expected = self.read.iter().map(|at| Ok((*at, take(*at)?))).collect::<Result<Vec<_>>>()?;
        let Some(set) = &self.set else { return Ok(RowChange::Delete { key, expected }) };
        let set = set.iter().map(|column| {
            let value = take(*column)?;
            if value.is_null() && !self.table.columns[*column].nullable {
                return Err(null_violation(&self.table, *column));
            }
            Ok((*column, value))
        });
        let set = set.collect::<Result<Vec<_>>>()?;
        Ok(RowChange::Update { key, expected, set })
    }
}

/// A row of all columns, from the values of some.
fn complete(table: &Table, columns: &[usize], given: Vec<Value>) -> Result<Vec<Value>> {
    let mut row: Vec<Value> = table.columns.iter().map(|c| c.default.clone().unwrap_or(Value::Null)).collect();
    for (column, value) in columns.iter().zip(given) {
        row[*column] = coerced(table, *column, value)?;
    }
    match row.iter().zip(&table.columns).position(|(value, column)| value.is_null() && !column.nullable) {
        Some(column) => Err(null_violation(table, column)),
        None => Ok(row),
    }
}

fn coerced(table: &Table, column: usize, value: Value) -> Result<Value> {
    let column = &table.columns[column];
    let checked = value.coerce(column.ty).and_then(|value| {
        if column.ty == ColumnType::Json && !value.is_null() {
            let mut stored = Vec::new();
            value.write_stored(&mut stored);
            Cell::new(column.ty).check_stored(&stored)?;
        }
        Ok(value)
    });
    checked.map_err(|mut error| {
        error.message = format!("column \"{}\": {}", column.name, error.message);
        error
    })
}

fn null_violation(table: &Table, column: usize) -> Error {
    let name = &table.columns[column].name;
    Error::new(Code::NullViolation, format!("column \"{name}\" of table \"{}\" can not be null", table.name))
}

fn default_expression(table: &Table, column: usize) -> Expr {
    literal::expression(table.columns[column].default.as_ref().unwrap_or(&Value::Null))
}

/// The columns outside the primary key that the expressions name. A name in a subquery may mean another table's column;
/// then one value more is compared, and no harm is done.
fn columns_read<'e>(table: &Table, exprs: impl Iterator<Item = &'e Expr>) -> Vec<usize> {
    struct Names<'t>(&'t Table, BTreeSet<usize>);
    impl Visitor for Names<'_> {
        type Break = Infallible;
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Infallible> {
            let name = match expr {
                Expr::Identifier(ident) => Some(ident),
                Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            let column = name.and_then(|ident| self.0.column_position(&fold(ident).text));
            self.1.extend(column.filter(|column| !self.0.primary_key.contains(column)));
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(table, BTreeSet::new());
    for expr in exprs {
        // Breaking off is not possible: the visitor has nothing to break with.
        let _ = expr.visit(&mut names);
    }
    names.1.into_iter().collect()
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// A query to build on: the parser's own defaults stand in every clause that we do not fill.
fn template(text: &str) -> Result<Box<Query>> {
    match parse(text)?.statement {
        Statement::Query(query) => Ok(query),
        other => Err(Error::internal(format!("a template is a query, not {}", other.kind()))),
    }
}

fn select_from(table: &Table, alias: Option<&Name>, items: Vec<Expr>, selection: Option<Expr>) -> Result<Box<Query>> {
    let mut query = template("SELECT 1 FROM t")?;
    let SetExpr::Select(select) = &mut *query.body else { return Err(Error::internal("a template is no SELECT")) };
    let number = |(at, expr): (usize, Expr)| SelectItem::ExprWithAlias { expr, alias: quoted(&format!("c{at}")) };
    select.projection = items.into_iter().enumerate().map(number).collect();
    select.selection = selection;
    for from in &mut select.from {
        if let TableFactor::Table { name, alias: known_as, .. } = &mut from.relation {
            *name = ObjectName(vec![ObjectNamePart::Identifier(quoted(&table.name))]);
            *known_as = alias.map(|alias| TableAlias {
                explicit: true,
                name: quoted(&alias.text),
                columns: Vec::new(),
                at: None,
            });
        }
    }
    Ok(query)
}
