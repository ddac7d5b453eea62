//! INSERT ... ON CONFLICT where it matters which rows are there: they are looked up by their keys first.
//!
//! A row that was not there is inserted as one that must still be absent, a row that was there is updated as one that
//! must still be what was read; either way the storage answers `Conflict` when that no longer holds, and the statement
//! looks again.

use super::defaults::check_assigned;
use super::literal_rows::{self, NUMBER};
use super::select::{columns_read, computed_defaults, not_in_primary_key};
use super::{Changer, coerced, key_bytes, null_violation, quoted};
use crate::cluster::RowChange;
use crate::front::names::Names;
use crate::front::params::substitute;
use crate::front::statement::{Assignment, Name};
use model::{Code, Error, Result, Table, Value};
use sqlparser::ast::{BinaryOperator, Expr};
use std::collections::HashSet;
use std::sync::Arc;

/// Rows whose new values are computed by one query.
const CHUNK_ROWS: usize = 1_000;
/// The name of the row that was to be inserted.
const EXCLUDED: &str = "excluded";

/// A change, and the row as it is afterwards.
type ChangedRow = (RowChange, Vec<Value>);

/// A row that is there already, and the one that was to be inserted.
struct Pair {
    old: Vec<Value>,
    excluded: Vec<Value>,
}

impl Changer<'_> {
    /// DO NOTHING with RETURNING: changes for the rows that are not there yet.
    pub(super) async fn insert_absent(&self, table: &Arc<Table>, rows: Vec<Vec<Value>>) -> Result<Vec<ChangedRow>> {
        let mut seen = HashSet::new();
        let first: Vec<Vec<Value>> = rows.into_iter().filter(|row| seen.insert(key_bytes(table, row))).collect();
        let found = self.rows_by_key(table, &first).await?;
        let absent = first.into_iter().zip(found).filter(|(_, found)| found.is_none());
        Ok(absent.map(|(row, _)| (RowChange::InsertAbsent { row: row.clone() }, row)).collect())
    }

    /// DO UPDATE.
    pub(super) async fn update_or_insert(
        &self,
        table: &Arc<Table>,
        names: &Names<'_>,
        qualifier: &str,
        assignments: &[Assignment],
        selection: Option<&Expr>,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<ChangedRow>> {
        let targets: Vec<Name> = assignments.iter().map(|(name, _)| name.clone()).collect();
        let set = names.columns(table, &targets)?;
        not_in_primary_key(table, &set, &targets, self.text)?;
        let written = assignments.iter().zip(&set);
        check_assigned(table, written.filter(|((_, value), _)| value.is_some()).map(|(_, column)| *column))?;
        each_key_once(table, &rows)?;
        let found = self.rows_by_key(table, &rows).await?;
        let (mut changed, mut pairs) = (Vec::new(), Vec::new());
        for (row, found) in rows.into_iter().zip(found) {
            match found {
                None => changed.push((RowChange::InsertAbsent { row: row.clone() }, row)),
                Some(old) => pairs.push(Pair { old, excluded: row }),
            }
        }
        let bound = |expr: &Expr| {
            let mut expr = expr.clone();
            substitute(&mut expr, self.params);
            expr
        };
        let selection = selection.map(bound);
        let values = assignments.iter().zip(&set).map(|((_, value), column)| match value {
            Some(value) => bound(value),
            None => super::default_expression(table, *column),
        });
        let values: Vec<Expr> = values.collect();
        let read = columns_read(table, values.iter().chain(selection.as_ref()));
        for chunk in pairs.chunks(CHUNK_ROWS) {
            let mut new = self.new_values(table, qualifier, &values, selection.as_ref(), chunk).await?;
            for place in computed_defaults(table, assignments, &set) {
                let defaults = self.defaults(table, set[place], new.len()).await?;
                new.iter_mut().zip(defaults).for_each(|((_, row), value)| row[place] = value);
            }
            for (at, new) in new {
                let pair = chunk.get(at).ok_or_else(|| Error::internal("a row has a number that was not given"))?;
                changed.push(updated(table, &pair.old, &set, &read, new)?);
            }
        }
        Ok(changed)
    }

    /// For each pair that the condition takes, by its number: the values to set.
    async fn new_values(
        &self,
        table: &Table,
        qualifier: &str,
        values: &[Expr],
        selection: Option<&Expr>,
        pairs: &[Pair],
    ) -> Result<Vec<(usize, Vec<Value>)>> {
        let old = literal_rows::relation(table, qualifier, pairs.iter().map(|pair| &pair.old[..]))?;
        let excluded = literal_rows::relation(table, EXCLUDED, pairs.iter().map(|pair| &pair.excluded[..]))?;
        let number = |relation: &str| Expr::CompoundIdentifier(vec![quoted(relation), quoted(NUMBER)]);
        let both = |left, op, right| Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) };
        let mut condition = both(number(qualifier), BinaryOperator::Eq, number(EXCLUDED));
        if let Some(selection) = selection {
            let selection = Expr::Nested(Box::new(selection.clone()));
            condition = both(condition, BinaryOperator::And, selection);
        }
        let items: Vec<Expr> = std::iter::once(number(qualifier)).chain(values.iter().cloned()).collect();
        let width = items.len();
        let query = super::select::query_of(items, vec![old, excluded], Some(condition))?;
        let split = |mut row: Vec<Value>| match row.remove(0) {
            Value::Integer(number) => Ok((number as usize, row)),
            other => Err(Error::internal(format!("a row's number is {other}"))),
        };
        self.rows(query, width).await?.into_iter().map(split).collect()
    }

    /// For each row the one with the same primary key in the table.
    async fn rows_by_key(&self, table: &Arc<Table>, rows: &[Vec<Value>]) -> Result<Vec<Option<Vec<Value>>>> {
        let key = |row: &Vec<Value>| table.primary_key.iter().map(|at| row[*at].clone()).collect();
        self.cluster.rows(table, rows.iter().map(key).collect(), self.deadline).await
    }
}

fn each_key_once(table: &Table, rows: &[Vec<Value>]) -> Result<()> {
    let mut seen = HashSet::new();
    if rows.iter().all(|row| seen.insert(key_bytes(table, row))) {
        return Ok(());
    }
    let message = "ON CONFLICT DO UPDATE can not change a row twice: two of the rows have the same primary key";
    Err(Error::new(Code::InvalidStatement, message).with_hint("insert each key once"))
}

fn updated(table: &Table, old: &[Value], set: &[usize], read: &[usize], new: Vec<Value>) -> Result<ChangedRow> {
    let mut row = old.to_vec();
    let mut assigned = Vec::with_capacity(set.len());
    for (column, value) in set.iter().zip(new) {
        let value = coerced(table, *column, value)?;
        if value.is_null() && !table.columns[*column].nullable {
            return Err(null_violation(table, *column));
        }
        row[*column] = value.clone();
        assigned.push((*column, value));
    }
    let key = table.primary_key.iter().map(|at| old[*at].clone()).collect();
    let expected = read.iter().map(|at| (*at, old[*at].clone())).collect();
    Ok((RowChange::Update { key, expected, set: assigned }, row))
}
