//! The rows of whole buckets: read into a payload, deleted, and replaced by those of a payload.
//!
//! A payload is a MessagePack array of `[bucket, [[table id, truncation, [tuple, ...]], ...]]`, where the truncation is the
//! last one of the table that the rows have seen. The two sides apply the catalog at different moments: rows from before a
//! truncation must not come back behind it, and rows from after it must not go with it.

use crate::acks;
use crate::host::{IteratorKind, Space, Transaction, fiber};
use crate::storage::{self, TableSet, truncation};
use crud::{Layout, RowWriter};
use model::msgpack::{Reader, write_array_len, write_uint};
use model::{BucketId, Code, Engine, Error, Result};
use sharding::BucketRange;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// A slice ends after the bucket that brings it to this size.
pub const SLICE_BYTES: usize = 1 << 20;
/// Rows deleted in one transaction.
const DELETES_MAX: usize = 1_000;

/// The tables whose rows lie in buckets.
fn sharded(tables: &TableSet) -> Vec<Arc<Layout>> {
    let mut layouts: Vec<Arc<Layout>> = tables.iter().filter(|layout| layout.is_sharded()).map(Arc::clone).collect();
    layouts.sort_by_key(|layout| layout.table.id);
    layouts
}

fn bucket_key(bucket: BucketId) -> Vec<u8> {
    let mut key = Vec::with_capacity(6);
    write_array_len(&mut key, 1);
    write_uint(&mut key, bucket.into());
    key
}

/// Appends the rows of one bucket to a payload. Does not yield, but for vinyl tables.
fn read_bucket(layouts: &[Arc<Layout>], bucket: BucketId, out: &mut Vec<u8>) -> Result<()> {
    write_array_len(out, 2);
    write_uint(out, bucket.into());
    write_array_len(out, layouts.len());
    for layout in layouts {
        let (mut rows, mut count) = (Vec::new(), 0);
        let mut tuples = Space(layout.table.id).iterate(0, IteratorKind::Eq, &bucket_key(bucket))?;
        while tuples.copy_next(&mut rows)? {
            count += 1;
        }
        write_array_len(out, 3);
        write_uint(out, layout.table.id.into());
        write_uint(out, truncation::seen(layout.table.id));
        write_array_len(out, count);
        out.append(&mut rows);
    }
    Ok(())
}

/// Reads buckets of a range from `from` on until the slice is full; answers how many buckets, and where to go on.
pub fn read_slice(range: BucketRange, from: BucketId, out: &mut Vec<u8>) -> Result<(usize, Option<BucketId>)> {
    let tables = storage::get()?.tables();
    let layouts = sharded(&tables);
    let mut count = 0;
    for bucket in from..=range.last {
        read_bucket(&layouts, bucket, out)?;
        count += 1;
        if out.len() >= SLICE_BYTES && bucket < range.last {
            return Ok((count, Some(bucket + 1)));
        }
    }
    Ok((count, None))
}

/// Appends these buckets to a payload.
pub fn read_buckets(buckets: &BTreeSet<BucketId>, out: &mut Vec<u8>) -> Result<()> {
    let tables = storage::get()?.tables();
    let layouts = sharded(&tables);
    buckets.iter().try_for_each(|bucket| read_bucket(&layouts, *bucket, out))
}

/// Deletes all rows of a range of buckets, a few at a time.
pub fn delete(range: BucketRange) -> Result<()> {
    let tables: Rc<TableSet> = storage::get()?.tables();
    for layout in sharded(&tables) {
        for bucket in range.first..=range.last {
            while delete_some(&layout, bucket)? {
                fiber::yield_turn();
            }
        }
    }
    Ok(())
}

/// Deletes rows of one bucket in one transaction; answers whether there may be more.
fn delete_some(layout: &Layout, bucket: BucketId) -> Result<bool> {
    let keys = keys_of(layout, bucket, DELETES_MAX)?;
    if keys.is_empty() {
        return Ok(false);
    }
    let transaction = Transaction::begin()?;
    for key in &keys {
        Space(layout.table.id).delete(0, key)?;
    }
    transaction.commit()?;
    Ok(keys.len() == DELETES_MAX)
}

fn keys_of(layout: &Layout, bucket: BucketId, max: usize) -> Result<Vec<Vec<u8>>> {
    let writer = RowWriter::new(layout, 0);
    let mut tuples = Space(layout.table.id).iterate(0, IteratorKind::Eq, &bucket_key(bucket))?;
    let (mut keys, mut tuple) = (Vec::new(), Vec::new());
    while keys.len() < max && tuples.copy_next(&mut tuple)? {
        let mut key = Vec::with_capacity(32);
        writer.key_of_stored(&tuple, &mut key)?;
        keys.push(key);
        tuple.clear();
    }
    Ok(keys)
}

/// Makes the buckets of a payload what it says: each bucket of a memtx table in one transaction. All members in sync have
/// them when this answers. May be done again.
///
/// Errors: `NotReady` while the rows have seen a truncation that is yet to be done here; what the host says; `Unknown`.
pub fn store(payload: &[u8]) -> Result<()> {
    let mut reader = Reader::new(payload);
    for _ in 0..reader.array_len()? {
        reader.array_len()?;
        let bucket = reader.uint()? as BucketId;
        for _ in 0..reader.array_len()? {
            reader.array_len()?;
            let table = reader.uint()?;
            let truncation = reader.uint()?;
            let mut tuples = Vec::new();
            for _ in 0..reader.array_len()? {
                tuples.push(reader.raw()?);
            }
            store_bucket(table, truncation, bucket, &tuples)?;
        }
    }
    acks::await_in_sync()
}

fn store_bucket(table: u64, truncation: u64, bucket: BucketId, tuples: &[&[u8]]) -> Result<()> {
    let storage = storage::get()?;
    let tables = storage.tables();
    // The catalog here is at least as new as that of the rows: a table that is not known was dropped since.
    let Some(layout) = model::TableId::try_from(table).ok().and_then(|id| tables.get(id)) else { return Ok(()) };
    if !storage.truncations.has_seen(layout.table.id, truncation) {
        let message = format!("table \"{}\" is not emptied here yet", layout.table.name);
        return Err(Error::new(Code::NotReady, message));
    }
    let is_past = truncation < truncation::seen(layout.table.id);
    let tuples = if is_past { &[] } else { tuples };
    let stale = keys_of(layout, bucket, usize::MAX)?;
    if stale.is_empty() && tuples.is_empty() {
        return Ok(());
    }
    // vinyl waits for the disk between statements, which ends a transaction of memtx only.
    debug_assert!(matches!(layout.table.engine, Engine::Memtx | Engine::Vinyl));
    let transaction = Transaction::begin()?;
    for key in &stale {
        Space(layout.table.id).delete(0, key)?;
    }
    for tuple in tuples {
        Space(layout.table.id).replace(tuple)?;
    }
    transaction.commit()
}
