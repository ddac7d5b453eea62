//! Memory that rows of users leave to the cluster's own log. Without it an instance that is full could not take part in Raft
//! any more once an entry needs more than a few bytes, and then nobody could delete a row.
//!
//! The host says how much there is only through Lua, so that is asked again whenever half as much was written as there was room
//! for, and after 2 MiB.

use crate::raft::disk;
use crate::start::lua;
use model::{Code, Engine, Error, Result, TableId};
use serde::Deserialize;
use std::cell::Cell;

/// The share of `memtx_memory` that is left, and its bound in bytes. An entry has 1 MiB at most, and so have its rows.
const RESERVED_SHARE: i64 = 16;
const RESERVED_BYTES_MAX: i64 = 8 << 20;
/// Tuples and indexes get memory from the host in pieces of this size, and never from one piece both.
const PIECE_BYTES: i64 = 16 << 20;
/// What a tuple takes beside its bytes: its head, and places in indexes.
const TUPLE_BYTES: i64 = 64;

/// After so many bytes memory is looked at again in any case.
const ASKED_AFTER_BYTES: i64 = 2 << 20;

thread_local! {
    /// How much may be written until memory is looked at again.
    static LEFT: Cell<i64> = const { Cell::new(0) };
}

/// The host's count of `memtx_memory`, in bytes.
#[derive(Deserialize)]
struct Memory {
    /// All there is.
    quota: i64,
    /// What tuples have, with places of tuples that are gone, and without.
    items: i64,
    items_used: i64,
    /// What tuples and indexes use.
    used: i64,
}

impl Memory {
    fn reserved(&self) -> i64 {
        (self.quota / RESERVED_SHARE).min(RESERVED_BYTES_MAX)
    }

    /// Room of no use yet, which fits any tuple.
    fn free(&self) -> i64 {
        let indexes = self.used - self.items_used;
        let of_indexes = pieces(indexes);
        let free_for_indexes = (self.quota - pieces(self.items) - of_indexes).max(0) + of_indexes - indexes;
        (self.quota - of_indexes - self.items).min(free_for_indexes)
    }

    /// What rows of users may take still. Places of rows that are gone go to rows alike.
    fn left(&self) -> i64 {
        self.free().max(self.items - self.items_used) - self.reserved()
    }
}

/// The pieces that so many bytes are in, one at least.
fn pieces(bytes: i64) -> i64 {
    (bytes + PIECE_BYTES - 1).div_euclid(PIECE_BYTES).max(1) * PIECE_BYTES
}

fn memory() -> Result<Memory> {
    let answer = lua::call("memory", &[0x90])?;
    rmp_serde::from_slice(&answer).map_err(|e| Error::internal(format!("the host's memory: {e}")))
}

fn full() -> Error {
    let error = Error::new(Code::Storage, "memtx_memory is full but for what the cluster's own log needs");
    error.with_hint("delete rows, add instances, or start this instance with more memtx_memory")
}

/// Before a row of so many bytes is written.
///
/// Errors: `Storage` when memory is short.
pub fn admit(space: TableId, bytes: usize) -> Result<()> {
    let wanted = bytes as i64 + TUPLE_BYTES;
    let left = LEFT.get() - wanted;
    if left > 0 {
        LEFT.set(left);
        return Ok(());
    }
    let left = memory()?.left() - wanted;
    // Asked again in good time: room may be less than it seems, as pieces of it are too small, and what replication and moves
    // write is not counted here.
    LEFT.set((left / 2).min(ASKED_AFTER_BYTES));
    let is_on_disk = || {
        super::get()
            .is_ok_and(|storage| storage.tables().get(space).is_some_and(|layout| layout.table.engine == Engine::Vinyl))
    };
    if left > 0 || is_on_disk() { Ok(()) } else { Err(full()) }
}

/// Before an entry of so many bytes is proposed that is not small: whether the log and a table would take them just now, and
/// leave what is reserved.
///
/// Errors: `Storage` when memory is short.
pub fn check(bytes: usize) -> Result<()> {
    let memory = memory()?;
    if memory.free() < memory.reserved() {
        return Err(full());
    }
    disk::probe(bytes).map_err(|error| if error.code == Code::Storage { full() } else { error })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    #[test]
    fn rows_leave_a_share() {
        let memory = |items, items_used, used| Memory { quota: 48 * MIB, items, items_used, used };
        assert_eq!(memory(0, 0, 0).left(), 29 * MIB);
        assert_eq!(memory(20 * MIB, 20 * MIB, 26 * MIB).left(), 7 * MIB);
        assert!(memory(30 * MIB, 30 * MIB, 35 * MIB).left() < 0);
        // No piece is left for indexes.
        assert!(memory(20 * MIB, 20 * MIB, 36 * MIB - 1000).left() < 0);
        // A quarter of the rows is gone: others may come in their places.
        assert_eq!(memory(30 * MIB, 22 * MIB, 27 * MIB).left(), 5 * MIB);
        assert_eq!(Memory { quota: 1 << 30, items: 0, items_used: 0, used: 0 }.reserved(), RESERVED_BYTES_MAX);
    }
}
