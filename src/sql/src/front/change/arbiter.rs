//! The keys that ON CONFLICT looks at: the primary key, or those of unique indexes, and the rows that have them already.
//!
//! Every unique key holds the sharding key, so rows that share one lie on one replicaset, which refuses the second of them
//! whatever was found here before.

use super::literal_rows::{self, NUMBER};
use super::select::{query_of, target};
use super::{Changer, coerced, quoted};
use crate::front::literal;
use crate::front::names::Names;
use crate::front::statement::Name;
use model::{Code, Error, Result, Table, Value};
use sqlparser::ast::{BinaryOperator, Expr};
use std::collections::HashSet;
use std::sync::Arc;

/// Rows that are looked up by one query.
const CHUNK_ROWS: usize = 1_000;
/// So few values restrict the part of the index that is read.
const VALUES_MAX: usize = 64;
/// The names of the table and of the rows to insert, in the query.
const OLD: &str = "old";
const NEW: &str = "new";

/// A key that no two rows of a table share, unless they have NULL in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Arbiter {
    pub columns: Vec<usize>,
    pub is_primary: bool,
}

impl Arbiter {
    fn primary(table: &Table) -> Self {
        Self { columns: table.primary_key.clone(), is_primary: true }
    }

    /// All unique keys of a table.
    pub fn all(table: &Table) -> Vec<Self> {
        let unique = table.indexes.iter().filter(|index| index.unique);
        let others = unique.map(|index| Self { columns: index.columns.clone(), is_primary: false });
        std::iter::once(Self::primary(table)).chain(others).collect()
    }

    /// The key of exactly these columns, in any order.
    ///
    /// Errors: `NoSuchColumn`; `InvalidStatement` when no key of the table is unique in them.
    pub fn named(table: &Table, names: &Names<'_>, target: &[Name]) -> Result<Self> {
        let columns = names.columns(table, target)?;
        let has_them = |arbiter: &Self| {
            arbiter.columns.len() == columns.len() && columns.iter().all(|at| arbiter.columns.contains(at))
        };
        Self::all(table).into_iter().find(has_them).ok_or_else(|| {
            let message = "ON CONFLICT names columns that are neither the primary key nor those of a unique index";
            Error::new(Code::InvalidStatement, message).with_hint("name all columns of one of them")
        })
    }

    /// The key of a row, as bytes that are equal for equal keys; None when a NULL keeps it apart from all others.
    pub fn bytes(&self, row: &[Value]) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for at in &self.columns {
            if row[*at].is_null() {
                return None;
            }
            row[*at].write_stored(&mut bytes);
        }
        Some(bytes)
    }

    /// Errors: `InvalidStatement` when two of the rows have the same key.
    pub fn check_each_once(&self, rows: &[Vec<Value>]) -> Result<()> {
        let mut seen = HashSet::new();
        if rows.iter().filter_map(|row| self.bytes(row)).all(|key| seen.insert(key)) {
            return Ok(());
        }
        let message = "ON CONFLICT DO UPDATE can not change a row twice: two of the rows have the same key";
        Err(Error::new(Code::InvalidStatement, message).with_hint("insert each key once"))
    }
}

impl Changer<'_> {
    /// For each row the one of the table that has the same key.
    pub(super) async fn rows_by(
        &self,
        table: &Arc<Table>,
        arbiter: &Arbiter,
        rows: &[Vec<Value>],
    ) -> Result<Vec<Option<Vec<Value>>>> {
        if arbiter.is_primary {
            let key = |row: &Vec<Value>| table.primary_key.iter().map(|at| row[*at].clone()).collect();
            return self.cluster.rows(table, rows.iter().map(key).collect(), self.deadline).await;
        }
        let mut found = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(CHUNK_ROWS) {
            let first = found.len();
            found.resize(first + chunk.len(), None);
            let width = table.columns.len() + 1;
            for mut row in self.rows(lookup(table, arbiter, chunk)?, width).await? {
                let values = row.split_off(1);
                let old = values.into_iter().enumerate().map(|(at, value)| coerced(table, at, value));
                let Some(Value::Integer(number)) = row.first() else {
                    return Err(Error::internal("a row came back without its number"));
                };
                let place = usize::try_from(*number).ok().and_then(|number| found.get_mut(first + number));
                *place.ok_or_else(|| Error::internal("a row has a number that was not given"))? =
                    Some(old.collect::<Result<_>>()?);
            }
        }
        Ok(found)
    }
}

/// The numbers of the new rows whose key is there, with the rows that have it.
fn lookup(table: &Table, arbiter: &Arbiter, rows: &[Vec<Value>]) -> Result<Box<sqlparser::ast::Query>> {
    let column =
        |relation: &str, at: usize| Expr::CompoundIdentifier(vec![quoted(relation), quoted(&table.columns[at].name)]);
    let both = |left: Expr, op, right: Expr| Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) };
    let mut condition: Option<Expr> = None;
    let mut require = |expr: Expr| {
        condition = Some(match condition.take() {
            Some(before) => both(before, BinaryOperator::And, expr),
            None => expr,
        });
    };
    for at in &arbiter.columns {
        require(both(column(OLD, *at), BinaryOperator::Eq, column(NEW, *at)));
        if rows.len() <= VALUES_MAX {
            let list = rows.iter().map(|row| literal::expression(&row[*at])).collect();
            require(Expr::InList { expr: Box::new(column(OLD, *at)), list, negated: false });
        }
    }
    let number = Expr::CompoundIdentifier(vec![quoted(NEW), quoted(NUMBER)]);
    let items = std::iter::once(number).chain((0..table.columns.len()).map(|at| column(OLD, at))).collect();
    let new = literal_rows::relation(table, NEW, rows.iter().map(Vec::as_slice))?;
    query_of(items, vec![target(table, Some(OLD))?, new], condition)
}
