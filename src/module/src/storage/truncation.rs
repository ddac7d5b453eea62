//! Truncations of sharded tables, remembered beside the rows.
//!
//! The catalog says which schema change truncated a table last. The space below says which of them the rows of this
//! replicaset have seen: the mark is written in the transaction that empties the table, and is replicated with it, so no
//! crash and no change of masters parts the two. A table whose mark is behind the catalog is not served before it is empty.

use crate::host::{Space, Transaction, failpoint};
use crate::raft::disk::SpaceSpec;
use catalog::{SchemaId, State};
use model::msgpack::{self, Reader};
use model::{Result, TableId};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// A replicated space: for each table that was ever truncated, the last truncation that its rows have seen.
const MARKS: Space = Space(516);
pub const SPACE: SpaceSpec = (MARKS.0, "_pico_truncations", &[("table", "unsigned"), ("change", "unsigned")]);

/// What is known of the marks.
#[derive(Default)]
pub struct Truncations {
    seen: RefCell<HashMap<TableId, SchemaId>>,
    /// Tables whose truncation is being committed: their marks can be read already, and may yet be undone.
    emptying: RefCell<HashSet<TableId>>,
}

impl Truncations {
    /// Whether the rows of a table have seen its truncation by `change`, or a later one.
    pub fn has_seen(&self, table: TableId, change: SchemaId) -> bool {
        let known = self.seen.borrow().get(&table).copied();
        if known.is_some_and(|known| known >= change) {
            return true;
        }
        if self.emptying.borrow().contains(&table) {
            return false;
        }
        let seen = seen(table);
        self.seen.borrow_mut().insert(table, seen);
        seen >= change
    }

    /// The tables whose rows have yet to go, with the truncations that they have not seen.
    pub fn due(&self, state: &State) -> Vec<(TableId, SchemaId)> {
        let due = state.schema.truncated.iter().filter(|(table, change)| !self.has_seen(**table, **change));
        due.map(|(table, change)| (*table, *change)).collect()
    }

    /// Deletes all rows of a table and says that they have seen the truncation. Yields.
    ///
    /// Errors: what the host says.
    pub fn empty(&self, table: TableId, change: SchemaId) -> Result<()> {
        self.emptying.borrow_mut().insert(table);
        super::watching::lose(Some(table));
        let result = empty(table, change);
        self.emptying.borrow_mut().remove(&table);
        if result.is_ok() {
            self.seen.borrow_mut().insert(table, change);
        }
        result
    }
}

/// The last truncation that the rows of a table here have seen; 0 for none.
pub fn seen(table: TableId) -> SchemaId {
    let row = MARKS.get(0, &key(table)).ok().flatten().map(|row| row.to_vec());
    let change = row.and_then(|row| {
        let mut reader = Reader::new(&row);
        reader.array_len().and_then(|_| reader.uint()).and_then(|_| reader.uint()).ok()
    });
    change.unwrap_or(0)
}

/// A row that a master writes first in its term, under the number of no table.
///
/// Errors: what the host says.
pub fn begin_term(term: u64) -> Result<()> {
    let mut row = Vec::with_capacity(16);
    msgpack::write_array_len(&mut row, 2);
    msgpack::write_uint(&mut row, 0);
    msgpack::write_uint(&mut row, term);
    MARKS.replace(&row).map(drop)
}

fn empty(table: TableId, change: SchemaId) -> Result<()> {
    let mut mark = Vec::with_capacity(16);
    msgpack::write_array_len(&mut mark, 2);
    msgpack::write_uint(&mut mark, table.into());
    msgpack::write_uint(&mut mark, change);
    let transaction = Transaction::begin()?;
    Space(table).truncate()?;
    MARKS.replace(&mark)?;
    failpoint::reach("truncate.emptying");
    transaction.commit()?;
    failpoint::reach("truncate.emptied");
    Ok(())
}

/// Forgets a table that is dropped, inside the caller's transaction.
///
/// Errors: what the host says.
pub fn forget(table: TableId) -> Result<()> {
    MARKS.delete(0, &key(table)).map(drop)
}

fn key(table: TableId) -> Vec<u8> {
    let mut key = Vec::with_capacity(6);
    msgpack::write_array_len(&mut key, 1);
    msgpack::write_uint(&mut key, table.into());
    key
}
