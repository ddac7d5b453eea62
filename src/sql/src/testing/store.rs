//! The rows of one replicaset: real stored tuples, ordered by their keys.

use crate::cluster::{Bound, ScanRequest, TupleBatch};
use model::msgpack::{Reader, write_array_len, write_uint};
use model::program::Surroundings;
use model::{BucketId, Code, Error, Result, Table, TableId, Value};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// As many tuples as the host hands over at once.
const SLICE_ROWS: usize = 4096;

/// Compares two values of one column; NULL comes first, as in the host's indexes.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    use Value::*;
    match (a, b) {
        (Null, Null) => Ordering::Equal,
        (Null, _) => Ordering::Less,
        (_, Null) => Ordering::Greater,
        (Boolean(a), Boolean(b)) => a.cmp(b),
        (Integer(a), Integer(b)) => a.cmp(b),
        (Double(a), Double(b)) => a.total_cmp(b),
        (Decimal(a), Decimal(b)) => a.cmp(b),
        (Integer(a), Decimal(b)) => model::Decimal::from(*a).cmp(b),
        (Decimal(a), Integer(b)) => a.cmp(&model::Decimal::from(*b)),
        (Integer(a), Double(b)) => (*a as f64).total_cmp(b),
        (Double(a), Integer(b)) => a.total_cmp(&(*b as f64)),
        (Text(a), Text(b)) => a.cmp(b),
        (Bytes(a), Bytes(b)) => a.cmp(b),
        (Uuid(a), Uuid(b)) => a.cmp(b),
        (Date(a), Date(b)) | (Time(a), Time(b)) | (Timestamp(a), Timestamp(b)) | (TimestampTz(a), TimestampTz(b)) => {
            a.cmp(b)
        }
        _ => panic!("values of different types in one column: {a} and {b}"),
    }
}

fn compare_keys(a: &[Value], b: &[Value]) -> Ordering {
    a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

/// A row's values, as conditions read them.
struct Row<'a>(&'a [Value]);

impl Surroundings for Row<'_> {
    fn column(&self, position: usize) -> Result<Value> {
        self.0.get(position).cloned().ok_or_else(|| Error::internal("a row is shorter than its table"))
    }
}

/// A stored row: its bucket (0 in global tables), its values, and the tuple as the host would keep it.
#[derive(Clone, Debug)]
struct Stored {
    bucket: BucketId,
    row: Vec<Value>,
    tuple: Vec<u8>,
}

/// The rows of one replicaset.
#[derive(Clone, Debug, Default)]
pub struct Store {
    tables: BTreeMap<TableId, Vec<Stored>>,
}

impl Store {
    /// Adds a row whose values are already coerced.
    ///
    /// Errors: `DuplicateKey` when the primary key, or that of a unique index, is there.
    pub fn insert(&mut self, table: &Table, bucket: BucketId, row: Vec<Value>) -> Result<()> {
        table.check_row(&Row(&row))?;
        let stored = Stored { bucket, tuple: encode(table, bucket, &row), row };
        match self.find(table, bucket, &key_of(table, &stored.row)) {
            Ok(_) => {
                let message = format!("table \"{}\" already has a row with this primary key", table.name);
                Err(Error::new(Code::DuplicateKey, message))
            }
            Err(at) => {
                self.check_unique(table, &stored.row)?;
                self.tables.entry(table.id).or_default().insert(at, stored);
                Ok(())
            }
        }
    }

    fn check_unique(&self, table: &Table, row: &[Value]) -> Result<()> {
        let rows = self.tables.get(&table.id).map_or(&[][..], Vec::as_slice);
        for index in table.indexes.iter().filter(|index| index.unique) {
            let is_apart = index.columns.iter().any(|at| row[*at].is_null());
            let is_same = |other: &Stored| index.columns.iter().all(|at| other.row[*at] == row[*at]);
            if !is_apart && rows.iter().any(is_same) {
                let message = format!("table \"{}\" already has a row with this key of \"{}\"", table.name, index.name);
                return Err(Error::new(Code::DuplicateKey, message));
            }
        }
        Ok(())
    }

    /// Checks all rows of a table against its definition.
    ///
    /// Errors: those of `Table::check_row`.
    pub fn check(&self, table: &Table) -> Result<()> {
        let rows = self.tables.get(&table.id).into_iter().flatten();
        rows.map(|stored| &stored.row).try_for_each(|row| table.check_row(&Row(row)))
    }

    /// A column came behind the others. The tuples stay as they are, as the host's do.
    pub fn add_column(&mut self, table: TableId, value: &Value) {
        self.tables.get_mut(&table).into_iter().flatten().for_each(|stored| stored.row.push(value.clone()));
    }

    /// Takes a row out by its primary key.
    pub fn remove(&mut self, table: &Table, bucket: BucketId, key: &[Value]) -> Option<Vec<Value>> {
        let at = self.find(table, bucket, key).ok()?;
        Some(self.tables.get_mut(&table.id)?.remove(at).row)
    }

    /// The row with this primary key.
    pub fn get(&self, table: &Table, bucket: BucketId, key: &[Value]) -> Option<&[Value]> {
        let at = self.find(table, bucket, key).ok()?;
        Some(&self.tables.get(&table.id)?[at].row)
    }

    pub fn truncate(&mut self, table: TableId) {
        self.tables.remove(&table);
    }

    /// Where the row with the key is, or would be.
    fn find(&self, table: &Table, bucket: BucketId, key: &[Value]) -> std::result::Result<usize, usize> {
        let rows = self.tables.get(&table.id).map_or(&[][..], Vec::as_slice);
        rows.binary_search_by(|s| s.bucket.cmp(&bucket).then_with(|| compare_keys(&key_of(table, &s.row), key)))
    }

    /// The slices that a scan reads. Bounds hold on a prefix of the index's columns, whatever the buckets.
    pub fn scan(&self, request: &ScanRequest) -> Vec<TupleBatch> {
        let table = &request.table;
        let rows = self.tables.get(&table.id).map_or(&[][..], Vec::as_slice);
        let columns = index_columns(table, request.index);
        let mut hits: Vec<(Vec<Value>, &Stored)> = rows
            .iter()
            .filter(|s| table.is_global() || request.buckets.iter().any(|range| range.contains(s.bucket)))
            .map(|s| (columns.iter().map(|at| s.row[*at].clone()).collect::<Vec<_>>(), s))
            .filter(|(key, _)| request.ranges.iter().any(|r| within(key, r.lower.as_ref(), r.upper.as_ref())))
            .collect();
        if request.index != 0 {
            hits.sort_by(|(a, _), (b, _)| compare_keys(a, b));
        }
        if request.descending {
            hits.reverse();
        }
        hits.truncate(request.rows_max.unwrap_or(usize::MAX));
        hits.chunks(SLICE_ROWS).map(slice).collect()
    }
}

fn slice(hits: &[(Vec<Value>, &Stored)]) -> TupleBatch {
    let mut batch = TupleBatch::default();
    for (_, stored) in hits {
        batch.bytes.extend_from_slice(&stored.tuple);
        batch.ends.push(batch.bytes.len() as u32);
    }
    batch
}

fn within(key: &[Value], lower: Option<&Bound>, upper: Option<&Bound>) -> bool {
    let holds = |bound: &Bound, wanted: Ordering| {
        let order = compare_keys(key, &bound.values);
        order == wanted || (bound.inclusive && order.is_eq())
    };
    lower.is_none_or(|bound| holds(bound, Ordering::Greater)) && upper.is_none_or(|bound| holds(bound, Ordering::Less))
}

fn index_columns(table: &Table, index: u32) -> &[usize] {
    match table.indexes.iter().find(|i| i.id == index) {
        Some(index) => &index.columns,
        None => &table.primary_key,
    }
}

fn key_of(table: &Table, row: &[Value]) -> Vec<Value> {
    table.primary_key.iter().map(|at| row[*at].clone()).collect()
}

/// A tuple as the host keeps it: the bucket id first, in sharded tables.
pub fn encode(table: &Table, bucket: BucketId, row: &[Value]) -> Vec<u8> {
    let mut tuple = Vec::new();
    write_array_len(&mut tuple, row.len() + table.stored_offset());
    if !table.is_global() {
        write_uint(&mut tuple, bucket.into());
    }
    row.iter().for_each(|value| value.write_stored(&mut tuple));
    debug_assert!(Reader::new(&tuple).array_len().is_ok());
    tuple
}
