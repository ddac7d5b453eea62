//! INSERT, UPDATE and DELETE that are no point statements: a query finds what to change, then the changes are written.
//!
//! UPDATE and DELETE become a SELECT of the primary key, of the old values of every column that the statement read, and
//! of the new values. Each change carries the old values, and its storage refuses the lot when a row has become another
//! one meanwhile; then the statement computes everything again. All rows are collected before the first is written, so
//! a statement never sees its own changes, and what RETURNING shows is computed before anything is written, so that an
//! error in it leaves nothing behind.

mod arbiter;
mod conflict;
mod defaults;
mod insert;
mod literal_rows;
mod returning;
mod select;

pub(super) use insert::InsertRows;

use super::execute::RowSet;
use super::literal;
use super::parse::parse;
use super::queries::{QueryEngine, QueryRequest};
use super::statement::Statement;
use super::views;
use crate::cluster::{Cluster, RowChange};
use crate::stop::Stop;
use crud::cell::Cell;
use model::{Code, ColumnType, Error, Result, Table, Value};
use sqlparser::ast::{Expr, Ident, Query};
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

/// How often a statement looks again for keys that were there after all.
const DUPLICATES_MAX: u32 = 3;

/// One execution of a statement that changes rows.
pub struct Changer<'a> {
    pub engine: &'a dyn QueryEngine,
    pub cluster: &'a Arc<dyn Cluster>,
    pub text: &'a str,
    pub params: &'a [Value],
    pub limits: ChangeLimits,
    pub deadline: Instant,
    /// When the statement began, in microseconds since 1970-01-01 UTC.
    pub now_us: i64,
    /// Whether INSERT says OVERRIDING SYSTEM VALUE.
    pub overrides: bool,
    /// Memory that each query of it may take on each instance.
    pub memory_bytes_max: usize,
    pub stop: &'a Stop,
}

/// What a statement did.
pub struct Changed {
    /// Rows changed.
    pub count: u64,
    /// The rows of RETURNING.
    pub returned: Option<RowSet>,
}

/// What a statement is about to do.
struct Plan {
    table: Arc<Table>,
    changes: Vec<RowChange>,
    returned: Option<RowSet>,
    /// Whether rows with the keys of those to insert were looked for, in unique indexes too.
    looked_for_keys: bool,
}

impl Changer<'_> {
    /// Carries out the statement. `began_writing` is set before the first write, when the statement can no longer be
    /// tried again as if nothing had happened.
    ///
    /// Errors: those of names and types before anything is written; `DuplicateKey` and the like from the storages;
    /// `Unknown` when a part was written and the rest was not, with the count.
    pub async fn run(&self, statement: &Statement, began_writing: &AtomicBool) -> Result<Changed> {
        let mut attempt = 0;
        loop {
            let plan = self.plan(statement).await?;
            began_writing.store(true, Ordering::Relaxed);
            match self.write(&plan.table, plan.changes).await {
                Err(error) if error.code == Code::Conflict && attempt < self.limits.retries_max => attempt += 1,
                // Another row may have got the key since it was looked for.
                Err(error) if error.code == Code::DuplicateKey && plan.looked_for_keys && attempt < DUPLICATES_MAX => {
                    attempt += 1;
                }
                result => return result.map(|count| Changed { count, returned: plan.returned }),
            }
        }
    }

    async fn plan(&self, statement: &Statement) -> Result<Plan> {
        match statement {
            Statement::Insert(insert) => self.plan_insert(insert).await,
            Statement::Update(_) | Statement::Delete(_) => self.plan_selected(statement).await,
            other => Err(Error::internal(format!("{} changes no rows", other.kind()))),
        }
    }

    fn request(&self, query: Box<Query>) -> QueryRequest {
        QueryRequest {
            query,
            rows_max: self.limits.rows_max,
            memory_bytes_max: self.memory_bytes_max,
            deadline: self.deadline,
            stop: self.stop.clone(),
        }
    }

    /// All rows of a query of `width` columns.
    async fn rows(&self, mut query: Box<Query>, width: usize) -> Result<Vec<Vec<Value>>> {
        views::expand(&mut query, &*self.cluster.schema())?;
        let mut stream = self.engine.query(self.cluster, self.request(query)).await?;
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

pub(super) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// The default of a column as far as it is the same for all rows; NULL stands in for one that is computed.
fn default_expression(table: &Table, column: usize) -> Expr {
    literal::expression(table.columns[column].default.as_ref().unwrap_or(&Value::Null))
}

/// A query to build on: the parser's own defaults stand in every clause that we do not fill.
pub(super) fn template(text: &str) -> Result<Box<Query>> {
    match parse(text)?.statement {
        Statement::Query(query) => Ok(query),
        other => Err(Error::internal(format!("a template is a query, not {}", other.kind()))),
    }
}
