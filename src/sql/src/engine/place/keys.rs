//! Sharding keys on their way up a plan: which columns of a subplan's output say at which storage a row is.

use super::Spread;
use crate::engine::scan::ScanExec;
use datafusion::arrow::datatypes::DataType;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::{PhysicalExpr, PhysicalExprRef};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use model::ColumnType;
use std::sync::Arc;

/// A sharding key: where its columns are in the output, and their declared types, in the order of the key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub columns: Vec<usize>,
    pub types: Vec<ColumnType>,
}

impl Key {
    /// The key of a scan, when it reads all columns of it.
    pub fn of_scan(scan: &ScanExec, key: &[usize]) -> Option<Self> {
        let columns = key.iter().map(|at| scan.projection.iter().position(|p| p == at)).collect::<Option<_>>()?;
        Some(Self { columns, types: key.iter().map(|at| scan.table.columns[*at].ty).collect() })
    }

    /// The key with its columns elsewhere; None when one is gone.
    pub fn moved(&self, to: impl Fn(usize) -> Option<usize>) -> Option<Self> {
        let columns = self.columns.iter().map(|at| to(*at)).collect::<Option<_>>()?;
        Some(Self { columns, types: self.types.clone() })
    }

    fn hashes_like(&self, other: &Self) -> bool {
        self.types.len() == other.types.len() && self.types.iter().zip(&other.types).all(|(a, b)| a.hashes_like(*b))
    }
}

/// Keys above a node that keeps these columns of its input, in this order.
pub(super) fn through_columns(keys: &[Key], projection: Option<&[usize]>) -> Vec<Key> {
    match projection {
        None => keys.to_vec(),
        Some(kept) => keys.iter().filter_map(|key| key.moved(|at| kept.iter().position(|k| *k == at))).collect(),
    }
}

/// Keys above a projection. A column may come out more than once, also behind casts that keep its values: each
/// combination is a key.
pub(super) fn through_projection(keys: &[Key], projection: &ProjectionExec) -> Vec<Key> {
    const COMBINATIONS_MAX: usize = 8;
    let input = &**projection.input();
    let sources: Vec<Option<usize>> = projection.expr().iter().map(|e| exact_column_of(&e.expr, input)).collect();
    let mut out = Vec::new();
    for key in keys {
        let mut combinations: Vec<Vec<usize>> = vec![Vec::new()];
        for column in &key.columns {
            let places = || sources.iter().enumerate().filter(|(_, from)| **from == Some(*column)).map(|(to, _)| to);
            combinations = combinations
                .iter()
                .flat_map(|prefix| places().map(|to| [prefix.as_slice(), &[to]].concat()))
                .take(COMBINATIONS_MAX)
                .collect();
        }
        out.extend(combinations.into_iter().map(|columns| Key { columns, types: key.types.clone() }));
    }
    out
}

/// Whether the expressions contain all columns of a key: then rows equal in them are at one storage.
pub(super) fn cover(keys: &[Key], exprs: &[Arc<dyn PhysicalExpr>]) -> bool {
    let has = |at: &usize| exprs.iter().any(|expr| column_of(expr) == Some(*at));
    keys.iter().any(|key| key.columns.iter().all(has))
}

/// What two sides of a UNION have in common.
pub(super) fn in_common(a: Spread, b: Spread) -> Spread {
    let same_tier = a.tier == b.tier;
    let has = |key: &Key| b.keys.iter().any(|other| other.columns == key.columns && other.hashes_like(key));
    let keys = if same_tier { a.keys.iter().filter(|key| has(key)).cloned().collect() } else { Vec::new() };
    let tier = if same_tier { a.tier } else { None };
    Spread { tier, keys, limit: None, shipped: [a.shipped, b.shipped].concat() }
}

/// Whether a join on these pairs of columns finds all partners of a row at the row's own storage.
pub(super) fn meet(
    left: &Spread,
    right: &Spread,
    on: &[(PhysicalExprRef, PhysicalExprRef)],
    inputs: [&dyn ExecutionPlan; 2],
) -> bool {
    if left.tier.is_none() || left.tier != right.tier {
        return false;
    }
    let pairs: Vec<(usize, usize)> =
        on.iter().filter_map(|(l, r)| Some((exact_column_of(l, inputs[0])?, exact_column_of(r, inputs[1])?))).collect();
    let joined =
        |l: &Key, r: &Key| l.hashes_like(r) && l.columns.iter().zip(&r.columns).all(|(l, r)| pairs.contains(&(*l, *r)));
    left.keys.iter().any(|l| right.keys.iter().any(|r| joined(l, r)))
}

fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// The column that an expression is, also behind a cast that keeps every value as it is.
fn exact_column_of(expr: &Arc<dyn PhysicalExpr>, input: &dyn ExecutionPlan) -> Option<usize> {
    let Some(cast) = expr.downcast_ref::<CastExpr>() else { return column_of(expr) };
    let at = column_of(cast.expr())?;
    let schema = input.schema();
    keeps_values(schema.fields().get(at)?.data_type(), cast.cast_type()).then_some(at)
}

/// Whether a cast changes no number. Whether numbers of the two types share buckets is the key types' affair.
fn keeps_values(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        // Narrowing fails for what does not fit, so that what passes is the same number.
        (DataType::Int16 | DataType::Int32 | DataType::Int64, DataType::Int16 | DataType::Int32 | DataType::Int64) => {
            true
        }
        (DataType::Int16 | DataType::Int32 | DataType::Int64, DataType::Decimal128(..)) => true,
        (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => to >= from,
        (DataType::Float32, DataType::Float64) => true,
        (from, to) => from == to,
    }
}
