//! INSERT: where its rows come from, and how they are made complete.

use super::arbiter::Arbiter;
use super::returning::Returning;
use super::{Changer, Plan};
use crate::cluster::{RowChange, Schema};
use crate::front::literal;
use crate::front::names::Names;
use crate::front::numbers;
use crate::front::params::substitute;
use crate::front::statement::{Insert, InsertSource, OnConflict};
use model::{Code, Error, Result, Table, Value};
use sqlparser::ast::{Expr, Query, SetExpr};
use std::sync::Arc;

/// Rows to insert: where they come from and which columns they fill.
pub(in crate::front) struct Inserted {
    pub table: Arc<Table>,
    pub columns: Vec<usize>,
    pub rows: InsertRows,
}

/// None stands for DEFAULT.
type GivenRow = Vec<Option<Value>>;

pub(in crate::front) enum InsertRows {
    Constant(Vec<GivenRow>),
    Query {
        query: Box<Query>,
        /// Row and place of what is DEFAULT all the same.
        defaults: Vec<(usize, usize)>,
    },
}

impl Changer<'_> {
    pub(super) async fn plan_insert(&self, insert: &Insert) -> Result<Plan> {
        let schema = self.cluster.schema();
        let inserted = self.inserted(insert, &*schema)?;
        let table = inserted.table;
        let qualifier = insert.alias.as_ref().unwrap_or(&insert.table).text.clone();
        let returning = insert.returning.as_deref();
        let returning = returning.map(|items| Returning::new(items, &table, &qualifier, self.params)).transpose()?;
        let given = match inserted.rows {
            InsertRows::Constant(rows) => rows,
            InsertRows::Query { mut query, defaults } => {
                numbers::settle(&mut query, &*schema, self.cluster, self.deadline).await?;
                let rows = self.rows(query, inserted.columns.len()).await?;
                let mut given: Vec<GivenRow> =
                    rows.into_iter().map(|row| row.into_iter().map(Some).collect()).collect();
                for (row, place) in defaults {
                    given[row][place] = None;
                }
                given
            }
        };
        let rows = self.complete(&table, &inserted.columns, given).await?;
        let arbiters = arbiters(insert, &table, &Names { schema: &*schema, text: self.text })?;
        let looks_for_keys = arbiters.iter().any(|arbiter| !arbiter.is_primary);
        let changed = match &insert.on_conflict {
            OnConflict::Update { assignments, selection } => {
                let names = Names { schema: &*schema, text: self.text };
                let [arbiter] = &arbiters[..] else { return Err(Error::internal("DO UPDATE of several keys")) };
                let update = (&assignments[..], selection.as_deref());
                self.update_or_insert(&table, &names, &qualifier, arbiter, update, rows).await?
            }
            // Only what was inserted is returned, so it has to be known before.
            OnConflict::Skip if returning.is_some() || looks_for_keys => {
                self.insert_absent(&table, &arbiters, rows).await?
            }
            other => rows.into_iter().map(|row| (plain_change(other, row.clone()), row)).collect(),
        };
        let (changes, rows): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
        let returned = match returning {
            Some(returning) => Some(self.returned(&returning, &rows).await?),
            None => None,
        };
        Ok(Plan { table, changes, returned, looked_for_keys: looks_for_keys })
    }

    pub(in crate::front) fn inserted(&self, insert: &Insert, schema: &dyn Schema) -> Result<Inserted> {
        let names = Names { schema, text: self.text };
        let table = names.table(&insert.table)?;
        arbiters(insert, &table, &names)?;
        let mut columns = match &insert.columns {
            Some(names_of_columns) => names.columns(&table, names_of_columns)?,
            None => table.visible().collect(),
        };
        let rows = match &insert.source {
            InsertSource::Defaults => {
                columns.clear();
                InsertRows::Constant(vec![Vec::new()])
            }
            InsertSource::Query(query) => {
                let mut query = query.clone();
                substitute(&mut query, self.params);
                InsertRows::Query { query, defaults: Vec::new() }
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
        rows.iter_mut().flatten().flatten().for_each(|expr| substitute(expr, self.params));
        if let Some(constants) = constants(&rows) {
            return constants.map(InsertRows::Constant);
        }
        let mut defaults = Vec::new();
        for (row, exprs) in rows.iter_mut().enumerate() {
            for (place, (expr, column)) in exprs.iter_mut().zip(columns).enumerate() {
                if expr.is_none() {
                    defaults.push((row, place));
                    *expr = Some(super::default_expression(table, *column));
                }
            }
        }
        let mut query = super::template("VALUES (1)")?;
        let SetExpr::Values(values) = &mut *query.body else { return Err(Error::internal("a template is no VALUES")) };
        let Some(pattern) = values.rows.pop() else { return Err(Error::internal("a template has no row")) };
        for row in rows {
            let mut parens = pattern.clone();
            parens.content = row.into_iter().flatten().collect();
            values.rows.push(parens);
        }
        Ok(InsertRows::Query { query, defaults })
    }
}

/// The keys that ON CONFLICT is about.
///
/// Errors: `NoSuchColumn`, `InvalidStatement`; `Unsupported` for DO REPLACE of a key that is not the primary one.
fn arbiters(insert: &Insert, table: &Table, names: &Names<'_>) -> Result<Vec<Arbiter>> {
    let named = insert.conflict_target.as_deref().map(|target| Arbiter::named(table, names, target)).transpose()?;
    match (&insert.on_conflict, named) {
        (OnConflict::Replace, Some(Arbiter { is_primary: false, .. })) => {
            let message = "ON CONFLICT DO REPLACE of a key that is not the primary one is not supported";
            Err(Error::new(Code::Unsupported, message).with_hint("use DO UPDATE"))
        }
        (OnConflict::Fail | OnConflict::Replace, _) => Ok(Vec::new()),
        (_, Some(named)) => Ok(vec![named]),
        (_, None) => Ok(Arbiter::all(table)),
    }
}

fn plain_change(on_conflict: &OnConflict, row: Vec<Value>) -> RowChange {
    match on_conflict {
        OnConflict::Skip => RowChange::InsertOrSkip { row },
        OnConflict::Replace => RowChange::Replace { row },
        OnConflict::Fail | OnConflict::Update { .. } => RowChange::Insert { row },
    }
}

/// The rows when they are literals; None when there is an expression among them.
fn constants(rows: &[Vec<Option<Expr>>]) -> Option<Result<Vec<GivenRow>>> {
    let value = |expr: &Option<Expr>| match expr {
        None => Some(Ok(None)),
        Some(expr) => literal::constant(expr).map(|value| value.map(Some)),
    };
    let rows: Option<Vec<Vec<Result<Option<Value>>>>> =
        rows.iter().map(|row| row.iter().map(value).collect()).collect();
    rows.map(|rows| rows.into_iter().map(|row| row.into_iter().collect()).collect())
}
