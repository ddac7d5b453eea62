//! Predicates -> the part of an index, and the buckets, that hold every row they can be true for.
//!
//! Only what restricts one column by literals counts: `=`, `IN`, `<`, `<=`, `>`, `>=`, `BETWEEN`, and ORs of equalities
//! of one column. The filter itself stays above the scan, so a range may be too wide but never too narrow.

use super::types::value_of;
use crate::cluster::{Bound, BucketRange, KeyRange, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use model::{BucketId, Distribution, Table, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Ranges of one scan: more equalities than this become one range from the least to the greatest.
const RANGES_MAX: usize = 64;
/// Sharding keys that are hashed to prune buckets.
const KEYS_MAX: usize = 4096;

/// What a scan has to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// 0 is the primary index.
    pub index: u32,
    /// None at all: the predicates contradict one another.
    pub ranges: Vec<KeyRange>,
    /// The buckets that can have rows; None for all.
    pub buckets: Option<Vec<BucketRange>>,
    /// At most so many rows, when a unique key says so.
    pub rows_max: Option<usize>,
}

impl Access {
    /// Everything, in the order of the primary index.
    pub fn full() -> Self {
        Self { index: 0, ranges: vec![KeyRange::default()], buckets: None, rows_max: None }
    }
}

/// What is known about one column. Values are of its type.
#[derive(Clone, Debug, Default)]
struct Constraint {
    /// One of these, in order.
    values: Option<Vec<Value>>,
    lower: Option<(Value, bool)>,
    upper: Option<(Value, bool)>,
}

/// Whether the predicate restricts a column in a way that a scan can use.
pub fn is_usable(table: &Table, predicate: &Expr) -> bool {
    let mut found = BTreeMap::new();
    collect(table, predicate, &mut found);
    !found.is_empty()
}

/// The narrowest access for a conjunction of predicates.
pub fn access(table: &Table, schema: &dyn Schema, predicates: &[Expr]) -> Access {
    let mut known = BTreeMap::new();
    predicates.iter().for_each(|predicate| collect(table, predicate, &mut known));
    if known.is_empty() {
        return Access::full();
    }
    let mut access = best_index(table, &known);
    if known.values().any(Constraint::is_empty) {
        access.ranges.clear();
    }
    if let Distribution::Sharded { key, tier } = &table.distribution {
        let count = schema.bucket_count(tier).unwrap_or(1);
        access.buckets = buckets(key, &known, count);
        for range in &mut access.ranges {
            range.bucket = bucket_of_range(table, access.index, key, range, count);
        }
    }
    access
}

impl Constraint {
    fn is_empty(&self) -> bool {
        self.values.as_ref().is_some_and(Vec::is_empty)
    }

    fn restrict_values(&mut self, mut values: Vec<Value>) {
        values.sort_by(compare);
        values.dedup_by(|a, b| compare(a, b).is_eq());
        if let Some(known) = &self.values {
            values.retain(|value| known.iter().any(|k| compare(k, value).is_eq()));
        }
        self.values = Some(values);
    }

    fn restrict_lower(&mut self, value: Value, inclusive: bool) {
        let tighter = self.lower.as_ref().is_none_or(|(known, _)| compare(&value, known).is_ge());
        if tighter {
            self.lower = Some((value, inclusive));
        }
    }

    fn restrict_upper(&mut self, value: Value, inclusive: bool) {
        let tighter = self.upper.as_ref().is_none_or(|(known, _)| compare(&value, known).is_le());
        if tighter {
            self.upper = Some((value, inclusive));
        }
    }
}

/// Values of one column have one variant; others never meet here.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
        (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b))
        | (Value::Time(a), Value::Time(b))
        | (Value::Timestamp(a), Value::Timestamp(b))
        | (Value::TimestampTz(a), Value::TimestampTz(b)) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

/// Adds what one predicate says to what is known by column.
fn collect(table: &Table, predicate: &Expr, known: &mut BTreeMap<usize, Constraint>) {
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            collect(table, left, known);
            collect(table, right, known);
        }
        Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
            let mut values = Vec::new();
            if let Some(column) = alternatives(table, predicate, &mut values) {
                known.entry(column).or_default().restrict_values(values);
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let sides = column_and_literal(table, left, right).map(|(column, value)| (column, value, *op));
            let swapped = || {
                let (column, value) = column_and_literal(table, right, left)?;
                Some((column, value, op.swap()?))
            };
            if let Some((column, value, op)) = sides.or_else(swapped) {
                restrict(known, column, value, op);
            }
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let Some(column) = column_of(table, expr) else { return };
            let values: Option<Vec<Value>> = list.iter().map(|item| literal(table, column, item)).collect();
            if let Some(values) = values {
                known.entry(column).or_default().restrict_values(values);
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let Some(column) = column_of(table, expr) else { return };
            if let Some(value) = literal(table, column, low) {
                restrict(known, column, value, Operator::GtEq);
            }
            if let Some(value) = literal(table, column, high) {
                restrict(known, column, value, Operator::LtEq);
            }
        }
        _ => {}
    }
}

fn restrict(known: &mut BTreeMap<usize, Constraint>, column: usize, value: Value, op: Operator) {
    if !matches!(op, Operator::Eq | Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq) {
        return;
    }
    let constraint = known.entry(column).or_default();
    match op {
        Operator::Eq => constraint.restrict_values(vec![value]),
        Operator::Gt => constraint.restrict_lower(value, false),
        Operator::GtEq => constraint.restrict_lower(value, true),
        Operator::Lt => constraint.restrict_upper(value, false),
        _ => constraint.restrict_upper(value, true),
    }
}

/// The column that every branch of an OR compares with a literal for equality, but for those that are NULL. Walks with a stack of its own: an OR of
/// thousands is as deep as it is long.
fn alternatives(table: &Table, predicate: &Expr, values: &mut Vec<Value>) -> Option<usize> {
    let mut column = None;
    let mut todo = vec![predicate];
    while let Some(branch) = todo.pop() {
        let found = match branch {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                todo.extend([&**left, &**right]);
                continue;
            }
            Expr::Literal(value, _) if value.is_null() => continue,
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                let (found, value) =
                    column_and_literal(table, left, right).or_else(|| column_and_literal(table, right, left))?;
                values.push(value);
                found
            }
            Expr::InList(InList { expr, list, negated: false }) => {
                let found = column_of(table, expr)?;
                for item in list {
                    values.push(literal(table, found, item)?);
                }
                found
            }
            _ => return None,
        };
        if *column.get_or_insert(found) != found {
            return None;
        }
    }
    column
}

fn column_and_literal(table: &Table, column: &Expr, value: &Expr) -> Option<(usize, Value)> {
    let column = column_of(table, column)?;
    Some((column, literal(table, column, value)?))
}

fn column_of(table: &Table, expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column(column) => table.column_position(&column.name),
        _ => None,
    }
}

fn literal(table: &Table, column: usize, expr: &Expr) -> Option<Value> {
    let scalar: &ScalarValue = match expr {
        Expr::Literal(scalar, _) => scalar,
        _ => return None,
    };
    value_of(scalar, table.columns[column].ty)
}

/// The index whose key the constraints pin best, and its ranges.
fn best_index(table: &Table, known: &BTreeMap<usize, Constraint>) -> Access {
    let primary = (0, &table.primary_key, true);
    let secondary = table.indexes.iter().map(|index| (index.id, &index.columns, index.unique));
    let mut best = (Access::full(), 0);
    for (index, columns, unique) in std::iter::once(primary).chain(secondary) {
        let (ranges, pinned, tail) = ranges(columns, known);
        let is_lookup = pinned == columns.len();
        // A whole unique key first, then the longest prefix of equalities, then a range behind it.
        let score = usize::from(is_lookup && unique) * 1000 + pinned * 10 + usize::from(tail);
        if score > best.1 {
            let rows_max = (is_lookup && unique).then_some(ranges.len());
            best = (Access { index, ranges, buckets: None, rows_max }, score);
        }
    }
    best.0
}

/// Ranges over a prefix of the columns; how many columns are pinned to single values, and whether a range follows them.
fn ranges(columns: &[usize], known: &BTreeMap<usize, Constraint>) -> (Vec<KeyRange>, usize, bool) {
    let mut prefixes: Vec<Vec<Value>> = vec![Vec::new()];
    let mut pinned = 0;
    for column in columns {
        let Some(values) = known.get(column).and_then(|c| c.values.as_ref()) else { break };
        if prefixes.len() * values.len() > RANGES_MAX {
            break;
        }
        prefixes = prefixes
            .iter()
            .flat_map(|prefix| values.iter().map(|value| [prefix.as_slice(), std::slice::from_ref(value)].concat()))
            .collect();
        pinned += 1;
    }
    let (lower, upper) = columns.get(pinned).and_then(|column| known.get(column)).map_or((None, None), extent);
    let has_tail = lower.is_some() || upper.is_some();
    let bound = |prefix: &[Value], tail: &Option<(Value, bool)>| match tail {
        Some((value, inclusive)) => {
            Some(Bound { values: [prefix, std::slice::from_ref(value)].concat(), inclusive: *inclusive })
        }
        None if prefix.is_empty() => None,
        None => Some(Bound { values: prefix.to_vec(), inclusive: true }),
    };
    let ranges = prefixes
        .iter()
        .map(|prefix| KeyRange { lower: bound(prefix, &lower), upper: bound(prefix, &upper), bucket: None })
        .collect();
    (ranges, pinned, has_tail)
}

type Ends = (Option<(Value, bool)>, Option<(Value, bool)>);

/// The bounds of a column: as compared, or from the least to the greatest of its values.
fn extent(constraint: &Constraint) -> Ends {
    match constraint.values.as_deref() {
        Some([first, .., last]) => (Some((first.clone(), true)), Some((last.clone(), true))),
        Some([only]) => (Some((only.clone(), true)), Some((only.clone(), true))),
        _ => (constraint.lower.clone(), constraint.upper.clone()),
    }
}

/// The buckets of all combinations of sharding key values; None when some column is not pinned.
fn buckets(key: &[usize], known: &BTreeMap<usize, Constraint>, count: u32) -> Option<Vec<BucketRange>> {
    let mut keys: Vec<Vec<&Value>> = vec![Vec::new()];
    for column in key {
        let values = known.get(column)?.values.as_ref()?;
        if keys.len() * values.len() > KEYS_MAX {
            return None;
        }
        keys =
            keys.iter().flat_map(|prefix| values.iter().map(|value| [prefix.as_slice(), &[value]].concat())).collect();
    }
    let found: Option<BTreeSet<BucketId>> = keys
        .into_iter()
        .map(|key| sharding::hash_values(key).ok().map(|hash| sharding::bucket_of(hash, count)))
        .collect();
    Some(merge(found?))
}

/// Neighbouring buckets as one range.
pub fn merge(buckets: BTreeSet<BucketId>) -> Vec<BucketRange> {
    let mut ranges: Vec<BucketRange> = Vec::new();
    for bucket in buckets {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == bucket => range.last = bucket,
            _ => ranges.push(BucketRange::new(bucket, bucket)),
        }
    }
    ranges
}

/// The bucket of a range whose equal bounds contain the sharding key.
pub fn bucket_of_range(table: &Table, index: u32, key: &[usize], range: &KeyRange, count: u32) -> Option<BucketId> {
    let (lower, upper) = (range.lower.as_ref()?, range.upper.as_ref()?);
    let columns = index_columns(table, index);
    let value = |column: &usize| {
        let at = columns.iter().position(|c| c == column)?;
        let (low, high) = (lower.values.get(at)?, upper.values.get(at)?);
        compare(low, high).is_eq().then_some(low)
    };
    let values: Option<Vec<&Value>> = key.iter().map(value).collect();
    Some(sharding::bucket_of(sharding::hash_values(values?).ok()?, count))
}

/// The key columns of an index; 0 is the primary one.
pub fn index_columns(table: &Table, index: u32) -> &[usize] {
    match table.indexes.iter().find(|i| i.id == index) {
        Some(index) => &index.columns,
        None => &table.primary_key,
    }
}
