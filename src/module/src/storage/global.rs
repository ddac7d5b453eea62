//! Rows of global tables on this instance. They change only as entries of the Raft log are applied, in its order, so
//! that every instance has the same; what is here does not yield.

use super::{BoxStore, Storage, TableSet};
use crate::host::{IteratorKind, Space, Transaction};
use crud::batch::{Batch, Store};
use crud::update::check_tuple;
use crud::{Layout, RowWriter};
use model::msgpack::{self, Reader};
use model::{Code, Error, Result};
use std::sync::Arc;

/// Applies one entry's changes inside the caller's transaction, all or none. `changes` is what `crud::wire` writes for
/// `Verb::Changes`. Answers how many rows changed; the same on every instance.
///
/// Errors: `Conflict`, `DuplicateKey` and other refusals, the same on every instance.
pub fn write(storage: &'static Storage, layout: &Layout, changes: &[u8]) -> Result<u64> {
    let tables = TableSet::default();
    Batch::new(BoxStore::default(), &tables, &storage.guard).apply_changes(layout, changes)
}

/// Appends the stored row with this key, if there is one; answers whether.
pub fn get(layout: &Layout, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
    match Space(layout.table.id).get(0, key)? {
        Some(tuple) => {
            tuple.copy_to(out);
            Ok(true)
        }
        None => Ok(false),
    }
}

/// The row as the operations would leave it; None when there is no row with the key. Changes nothing.
///
/// Errors: `ValueOutOfRange` and what the host says of the operations.
pub fn preview_update(layout: &Layout, key: &[u8], operations: &[u8], check: bool) -> Result<Option<Vec<u8>>> {
    let transaction = Transaction::begin()?;
    let mut row = Vec::new();
    let is_found = BoxStore::default().update(layout.table.id, key, operations, &mut row)?;
    transaction.rollback();
    if is_found && check {
        check_tuple(layout, &row)?;
    }
    Ok(is_found.then_some(row))
}

/// All rows of these tables: an array of `[table id, [row, ...]]`.
///
/// Errors: what the host says.
pub fn dump(layouts: &[Arc<Layout>]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    msgpack::write_array_len(&mut out, layouts.len());
    for layout in layouts {
        let (mut rows, mut count) = (Vec::new(), 0);
        let mut iterator = Space(layout.table.id).iterate(0, IteratorKind::All, &[0x90])?;
        while iterator.copy_next(&mut rows)? {
            count += 1;
        }
        msgpack::write_array_len(&mut out, 2);
        msgpack::write_uint(&mut out, layout.table.id.into());
        msgpack::write_array_len(&mut out, count);
        out.append(&mut rows);
    }
    Ok(out)
}

/// Replaces all rows of these tables by those of a dump, inside the caller's transaction. Tables that the dump does
/// not have become empty.
///
/// Errors: `Corrupted` for bytes that are no dump of these tables, and what the host says.
pub fn load(layouts: &[Arc<Layout>], dump: &[u8]) -> Result<()> {
    let broken = |_| Error::new(Code::Corrupted, "a snapshot of global tables can not be read");
    for layout in layouts {
        clear(layout)?;
    }
    let mut reader = Reader::new(dump);
    for _ in 0..reader.array_len().map_err(broken)? {
        reader.array_len().map_err(broken)?;
        let id = reader.uint().map_err(broken)?;
        let layout = layouts.iter().find(|layout| u64::from(layout.table.id) == id);
        let rows = reader.array_len().map_err(broken)?;
        for _ in 0..rows {
            let row = reader.raw().map_err(broken)?;
            if let Some(layout) = layout {
                Space(layout.table.id).replace(row)?;
            }
        }
    }
    Ok(())
}

/// Deletes all rows of a global table, inside the caller's transaction.
///
/// Errors: what the host says.
pub fn clear(layout: &Layout) -> Result<()> {
    let space = Space(layout.table.id);
    let mut iterator = space.iterate(0, IteratorKind::All, &[0x90])?;
    let mut row = Vec::new();
    while iterator.copy_next(&mut row)? {
        let mut key = Vec::new();
        RowWriter::new(layout, 0).key_of_stored(&row, &mut key)?;
        space.delete(0, &key)?;
        row.clear();
    }
    Ok(())
}
