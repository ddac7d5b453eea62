//! Global tables: read from this instance's own copy, written through the Raft log.

use crate::host::Deadline;
use crate::storage::global;
use crud::Layout;
use crud::wire::Verb;
use model::{Code, Error, Result, Table, msgpack};
use std::cell::Cell;

/// Proposes changes to a global table and waits until this instance has applied them. `changes` is what
/// `storage::global::write` takes; answers how many rows changed.
///
/// Errors: what `storage::global::write` refused, `NoLeader`, `Unknown`.
pub type GlobalWriter = fn(table: &Table, changes: Vec<u8>, deadline: Deadline) -> Result<u64>;

/// How often a change that was computed from a row is computed again when the row has changed meanwhile.
const ATTEMPTS_MAX: usize = 20;

thread_local! {
    static WRITER: Cell<Option<GlobalWriter>> = const { Cell::new(None) };
}

/// Says how global tables are written.
pub fn set_writer(writer: GlobalWriter) {
    WRITER.set(Some(writer));
}

/// Writes changes to a global table.
///
/// Errors: those of the writer; `NotReady` before there is one.
pub fn write(table: &Table, changes: Vec<u8>, deadline: Deadline) -> Result<u64> {
    let writer =
        WRITER.get().ok_or_else(|| Error::new(Code::NotReady, "this instance has not joined its cluster yet"))?;
    writer(table, changes, deadline)
}

/// Inserts or replaces rows, all or none; `rows` are stored tuples.
///
/// Errors: as `write`.
pub fn write_rows<'a>(
    layout: &Layout,
    verb: Verb,
    rows: impl ExactSizeIterator<Item = &'a [u8]>,
    deadline: Deadline,
) -> Result<u64> {
    let mut changes = Vec::new();
    msgpack::write_array_len(&mut changes, rows.len());
    for row in rows {
        msgpack::write_array_len(&mut changes, 2);
        changes.push(verb as u8);
        changes.extend_from_slice(row);
    }
    write(&layout.table, changes, deadline)
}

/// Updates the row with this key; answers the new row, None when there is none with the key.
///
/// Errors: as `write`; `Conflict` when the row kept changing.
pub fn update(
    layout: &Layout,
    key: &[u8],
    operations: &[u8],
    check: bool,
    deadline: Deadline,
) -> Result<Option<Vec<u8>>> {
    again_on_conflict(|| {
        let mut old = Vec::new();
        if !global::get(layout, key, &mut old)? {
            return Ok(None);
        }
        let new = global::preview_update(layout, key, operations, check)?;
        write(&layout.table, change(layout, Verb::Update, key, &old, operations)?, deadline)?;
        Ok(new)
    })
}

/// Deletes the row with this key; answers it, None when there was none.
///
/// Errors: as `update`.
pub fn delete(layout: &Layout, key: &[u8], deadline: Deadline) -> Result<Option<Vec<u8>>> {
    again_on_conflict(|| {
        let mut old = Vec::new();
        if !global::get(layout, key, &mut old)? {
            return Ok(None);
        }
        write(&layout.table, change(layout, Verb::Delete, key, &old, &[0xc0])?, deadline)?;
        Ok(Some(old))
    })
}

/// Updates the row with this key, or inserts `row`.
///
/// Errors: as `update`.
pub fn upsert(
    layout: &Layout,
    row: &[u8],
    key: &[u8],
    operations: &[u8],
    check: bool,
    deadline: Deadline,
) -> Result<()> {
    again_on_conflict(|| {
        if update(layout, key, operations, check, deadline)?.is_some() {
            return Ok(());
        }
        let inserted = write_rows(layout, Verb::Insert, std::iter::once(row), deadline);
        inserted.map(drop).map_err(|error| match error.code {
            // Somebody inserted it between the two steps.
            Code::DuplicateKey => Error { code: Code::Conflict, ..error },
            _ => error,
        })
    })
}

/// One change of a row that must still be `old`.
fn change(layout: &Layout, verb: Verb, key: &[u8], old: &[u8], operations: &[u8]) -> Result<Vec<u8>> {
    let mut changes = Vec::new();
    msgpack::write_array_len(&mut changes, 1);
    msgpack::write_array_len(&mut changes, 4);
    changes.push(verb as u8);
    changes.extend_from_slice(key);
    msgpack::write_array_len(&mut changes, layout.width() * 2);
    for column in 0..layout.width() {
        let field =
            layout.column(old, column).ok_or_else(|| Error::new(Code::Corrupted, "a row is shorter than its table"))?;
        msgpack::write_uint(&mut changes, column as u64);
        changes.extend_from_slice(field);
    }
    changes.extend_from_slice(operations);
    Ok(changes)
}

fn again_on_conflict<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempts = 1;
    loop {
        match attempt() {
            Err(error) if error.code == Code::Conflict && attempts < ATTEMPTS_MAX => attempts += 1,
            result => return result,
        }
    }
}
