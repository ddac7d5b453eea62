//! INSERT ... ON CONFLICT where it matters which rows are there: they are looked up by their keys first (`arbiter`).
//!
//! A row that was not there is inserted as one that must still be absent, a row that was there is updated as one that
//! must still be what was read; either way the storage answers `Conflict` when that no longer holds, and the statement
//! looks again.

use super::arbiter::Arbiter;
use super::defaults::check_assigned;
use super::literal_rows::{self, NUMBER};
use super::select::{columns_read, computed_defaults, not_in_primary_key};
use super::{Changer, coerced, null_violation, quoted};
use crate::cluster::RowChange;
use crate::front::names::Names;
use crate::front::params::substitute;
use crate::front::statement::{Assignment, Name};
use model::{Error, Result, Table, Value};
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
    /// DO NOTHING: changes for the rows of whose keys none is there yet.
    pub(super) async fn insert_absent(
        &self,
        table: &Arc<Table>,
        arbiters: &[Arbiter],
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<ChangedRow>> {
        let mut is_there = vec![false; rows.len()];
        for arbiter in arbiters {
            let found = self.rows_by(table, arbiter, &rows).await?;
            is_there.iter_mut().zip(found).for_each(|(there, found)| *there |= found.is_some());
        }
        let mut seen = HashSet::new();
        let mut is_first = |row: &[Value]| {
            let keys = arbiters.iter().enumerate().filter_map(|(at, arbiter)| Some((at, arbiter.bytes(row)?)));
            let keys: Vec<(usize, Vec<u8>)> = keys.collect();
            let is_first = keys.iter().all(|key| !seen.contains(key));
            if is_first {
                seen.extend(keys);
            }
            is_first
        };
        let absent = rows.into_iter().zip(is_there).filter(|(row, there)| !there && is_first(row));
        Ok(absent.map(|(row, _)| (insertion(arbiters, row.clone()), row)).collect())
    }

    /// DO UPDATE.
    pub(super) async fn update_or_insert(
        &self,
        table: &Arc<Table>,
        names: &Names<'_>,
        qualifier: &str,
        arbiter: &Arbiter,
        (assignments, selection): (&[Assignment], Option<&Expr>),
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<ChangedRow>> {
        let targets: Vec<Name> = assignments.iter().map(|(name, _)| name.clone()).collect();
        let set = names.columns(table, &targets)?;
        not_in_primary_key(table, &set, &targets, self.text)?;
        let written = assignments.iter().zip(&set);
        check_assigned(table, written.filter(|((_, value), _)| value.is_some()).map(|(_, column)| *column))?;
        arbiter.check_each_once(&rows)?;
        let found = self.rows_by(table, arbiter, &rows).await?;
        let (mut changed, mut pairs) = (Vec::new(), Vec::new());
        for (row, found) in rows.into_iter().zip(found) {
            match found {
                None => changed.push((insertion(std::slice::from_ref(arbiter), row.clone()), row)),
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
        let mut read = columns_read(table, values.iter().chain(selection.as_ref()));
        if !arbiter.is_primary {
            // A row that has another key by then is not the one that was found.
            read.extend(&arbiter.columns);
            read.retain(|at| !table.primary_key.contains(at));
            read.sort_unstable();
            read.dedup();
        }
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
}

/// How a row is inserted that was not found: as one that must still be absent when the primary key is what was looked for.
/// Else its primary key may be there, which is no conflict that the statement speaks of.
fn insertion(arbiters: &[Arbiter], row: Vec<Value>) -> RowChange {
    match arbiters.iter().any(|arbiter| arbiter.is_primary) {
        true => RowChange::InsertAbsent { row },
        false => RowChange::Insert { row },
    }
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
