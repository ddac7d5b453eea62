//! What EXPLAIN says of a change before its query's plan: where it writes, and what is all or nothing.

use super::literal;
use super::parse::fold;
use crate::cluster::Schema;
use model::{Distribution, Durability, ReplicasetName, Table, Value};
use sqlparser::ast::{BinaryOperator, Expr};
use std::collections::BTreeSet;

/// The sentence on atomicity, for a change of rows that may lie on these replicasets.
pub(super) fn writes_to(table: &Table, replicasets: &BTreeSet<ReplicasetName>) -> String {
    if table.is_global() {
        return "  writes through the Raft log: all or nothing in the whole cluster".into();
    }
    let names: Vec<&str> = replicasets.iter().map(ReplicasetName::as_str).collect();
    match &names[..] {
        [] => "  writes nothing".into(),
        [only] => format!("  writes to one replicaset, {only}: all or nothing{}", waits(table.durability)),
        many => format!(
            "  writes to up to {} replicasets, {}: all or nothing on each, not on all together{}",
            many.len(),
            many.join(", "),
            waits(table.durability)
        ),
    }
}

/// What is worth knowing of a table's durability.
fn waits(durability: Durability) -> &'static str {
    match durability {
        Durability::Replicated => "",
        Durability::Local => "; answered before the replicas have it",
    }
}

/// All replicasets that have rows of the table.
pub(super) fn all_owners(table: &Table, schema: &dyn Schema) -> BTreeSet<ReplicasetName> {
    match &table.distribution {
        Distribution::Global => BTreeSet::new(),
        Distribution::Sharded { tier, .. } => {
            schema.placement(tier).into_iter().map(|range| range.replicaset).collect()
        }
    }
}

/// The replicaset that owns the bucket of these values of the sharding key; None when that can not be said.
fn owner(table: &Table, key: &[Value], schema: &dyn Schema) -> Option<ReplicasetName> {
    let Distribution::Sharded { tier, .. } = &table.distribution else { return None };
    let bucket = sharding::bucket_of(sharding::hash_values(key.iter()).ok()?, schema.bucket_count(tier)?);
    let range = schema.placement(tier).into_iter().find(|range| range.buckets.contains(bucket))?;
    Some(range.replicaset)
}

/// Where rows with constants go; `columns` are those that the values fill.
pub(super) fn owners_of_rows(
    table: &Table,
    columns: &[usize],
    rows: &[Vec<Option<Value>>],
    schema: &dyn Schema,
) -> BTreeSet<ReplicasetName> {
    let value = |row: &[Option<Value>], column: usize| {
        let definition = &table.columns[column];
        let given =
            columns.iter().position(|other| *other == column).and_then(|place| row.get(place).cloned().flatten());
        given.or_else(|| definition.default.clone()).and_then(|value| value.coerce(definition.ty).ok())
    };
    let mut owners = BTreeSet::new();
    for row in rows {
        let key: Option<Vec<Value>> =
            table.sharding_key().unwrap_or(&[]).iter().map(|column| value(row, *column)).collect();
        match key.and_then(|key| owner(table, &key, schema)) {
            Some(owner) => {
                owners.insert(owner);
            }
            // A number that is not known yet may lead anywhere.
            None => return all_owners(table, schema),
        }
    }
    owners
}

/// Where the rows are that a condition takes: on one replicaset when it fixes the sharding key by equality with literals.
pub(super) fn owners_of_condition(
    table: &Table,
    qualifier: &str,
    condition: Option<&Expr>,
    schema: &dyn Schema,
) -> BTreeSet<ReplicasetName> {
    let mut fixed: Vec<(usize, Value)> = Vec::new();
    let mut left: Vec<&Expr> = condition.into_iter().collect();
    while let Some(expr) = left.pop() {
        match expr {
            Expr::Nested(inner) => left.push(inner),
            Expr::BinaryOp { left: a, op: BinaryOperator::And, right: b } => left.extend([&**a, &**b]),
            Expr::BinaryOp { left: a, op: BinaryOperator::Eq, right: b } => {
                let sides = [(a, b), (b, a)];
                fixed.extend(sides.into_iter().filter_map(|(name, value)| equality(table, qualifier, name, value)));
            }
            _ => {}
        }
    }
    let value = |column: &usize| fixed.iter().find(|(fixed, _)| fixed == column).map(|(_, value)| value.clone());
    let key: Option<Vec<Value>> = table.sharding_key().and_then(|key| key.iter().map(value).collect());
    match key.and_then(|key| owner(table, &key, schema)) {
        Some(owner) => BTreeSet::from([owner]),
        None => all_owners(table, schema),
    }
}

fn equality(table: &Table, qualifier: &str, name: &Expr, value: &Expr) -> Option<(usize, Value)> {
    let column = match name {
        Expr::Identifier(ident) => fold(ident).text,
        Expr::CompoundIdentifier(parts) => match &parts[..] {
            [table, column] if fold(table).text == qualifier => fold(column).text,
            _ => return None,
        },
        _ => return None,
    };
    let at = table.column_position(&column)?;
    let value = literal::constant(value)?.ok()?.coerce(table.columns[at].ty).ok()?;
    Some((at, value))
}
