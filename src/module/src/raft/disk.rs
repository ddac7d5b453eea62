//! Raft's rows in the local spaces: the log, the values beside it, and the catalog's snapshot in chunks.
//!
//! Everything here runs inside a transaction of the caller or reads at start; the formats of the rows are the consensus
//! room's.

use crate::host::{IteratorKind, Space, Transaction};
use consensus::{LogRow, Persist, StateKey};
use model::msgpack::{Reader, write_array_len, write_bin, write_str, write_uint};
use model::{Code, Error, Result};

/// Ids of the local spaces. Tables of users start at `catalog`'s first table id, above all of these.
pub const LOG: u32 = 512;
pub const STATE: u32 = 513;
pub const CATALOG: u32 = 514;
/// Notes of other rooms, by key.
pub const MARKS: u32 = 515;
/// The last term that this instance was fenced for.
pub const FENCE_KEY: &str = "fence";
/// Written to pass through the log behind everything that is on its way there.
pub const BARRIER_KEY: &str = "barrier";
/// The start of the machine under which this instance was online last.
pub const MACHINE_KEY: &str = "machine";
/// Whether everything that this instance has written is forced to the disk: 1 or 0.
pub const FORCED_KEY: &str = "forced";
/// The last term whose master this instance followed or was.
pub const SEEN_KEY: &str = "seen";

/// A tuple holds at most 1 MiB by the host's default; a chunk stays well below.
const CHUNK_BYTES_MAX: usize = 512 << 10;

/// What an entry of the log may have, which is one tuple.
pub const ENTRY_BYTES_MAX: usize = (1 << 20) - (4 << 10);

/// A space of ours: id, name, and the format's (name, type) pairs; the first field is the primary key.
pub type SpaceSpec = (u32, &'static str, &'static [(&'static str, &'static str)]);

/// What to create for this.
pub const SPACES: &[SpaceSpec] = &[
    (LOG, "_pico_raft_log", &[("index", "unsigned"), ("term", "unsigned"), ("entry", "varbinary")]),
    (STATE, "_pico_raft_state", &[("key", "string"), ("value", "varbinary")]),
    (CATALOG, "_pico_catalog", &[("chunk", "unsigned"), ("bytes", "varbinary")]),
    (MARKS, "_pico_marks", &[("key", "string"), ("value", "varbinary")]),
];

/// Writes what a `Ready` says, in its order.
pub fn write(persist: &Persist) -> Result<()> {
    if let Some(from) = persist.truncate_from {
        delete_log(IteratorKind::Ge, from)?;
    }
    if let Some(to) = persist.compact_to {
        delete_log(IteratorKind::Le, to)?;
    }
    let mut row = Vec::new();
    for entry in &persist.entries {
        row.clear();
        write_array_len(&mut row, 3);
        write_uint(&mut row, entry.index);
        write_uint(&mut row, entry.term);
        write_bin(&mut row, &entry.bytes);
        Space(LOG).replace(&row)?;
    }
    for (key, value) in &persist.state {
        row.clear();
        write_array_len(&mut row, 2);
        write_str(&mut row, key.name());
        write_bin(&mut row, value);
        Space(STATE).replace(&row)?;
    }
    Ok(())
}

/// Deletes the log, the values beside it and the catalog; the notes of other rooms stay.
pub fn clear() -> Result<()> {
    clear_spaces(&[LOG, STATE, CATALOG])
}

/// Deletes all that is of one instance only: another's, whose storage was copied. Rows of global tables are local too, and are
/// replaced when the cluster's state comes.
pub fn clear_all() -> Result<()> {
    clear_spaces(&[LOG, STATE, CATALOG, MARKS])
}

fn clear_spaces(spaces: &[u32]) -> Result<()> {
    let transaction = Transaction::begin()?;
    for &space in spaces {
        let mut keys = Vec::new();
        for_each(space, |tuple| {
            let mut reader = Reader::new(tuple);
            reader.array_len()?;
            keys.push([&[0x91], reader.raw()?].concat());
            Ok(())
        })?;
        keys.iter().try_for_each(|key| Space(space).delete(0, key).map(drop))?;
    }
    transaction.commit()
}

/// Deletes the rows on one side of an index, which included.
fn delete_log(side: IteratorKind, index: u64) -> Result<()> {
    let key = |index: u64| {
        let mut key = Vec::with_capacity(10);
        write_array_len(&mut key, 1);
        write_uint(&mut key, index);
        key
    };
    let mut doomed = Vec::new();
    let mut tuples = Space(LOG).iterate(0, side, &key(index))?;
    let mut tuple = Vec::new();
    while tuples.copy_next(&mut tuple)? {
        doomed.push(read_log_row(&tuple)?.index);
        tuple.clear();
    }
    for index in doomed {
        Space(LOG).delete(0, &key(index))?;
    }
    Ok(())
}

/// The log's rows in order.
pub fn read_log() -> Result<Vec<LogRow>> {
    let mut rows = Vec::new();
    for_each(LOG, |tuple| {
        rows.push(read_log_row(tuple)?);
        Ok(())
    })?;
    Ok(rows)
}

fn read_log_row(tuple: &[u8]) -> Result<LogRow> {
    let mut reader = Reader::new(tuple);
    reader.array_len().map_err(corrupted)?;
    let index = reader.uint().map_err(corrupted)?;
    let term = reader.uint().map_err(corrupted)?;
    Ok(LogRow { index, term, bytes: reader.bin().map_err(corrupted)?.to_vec() })
}

/// The values beside the log. Empty on an instance that never was a member.
pub fn read_state() -> Result<Vec<(StateKey, Vec<u8>)>> {
    let mut values = Vec::new();
    for_each(STATE, |tuple| {
        let mut reader = Reader::new(tuple);
        reader.array_len().map_err(corrupted)?;
        let name = reader.str().map_err(corrupted)?;
        let key = StateKey::from_name(name).ok_or_else(|| {
            Error::new(Code::Corrupted, format!("_pico_raft_state has a key \"{name}\" that is not known"))
        })?;
        values.push((key, reader.bin().map_err(corrupted)?.to_vec()));
        Ok(())
    })?;
    Ok(values)
}

/// Replaces the catalog's snapshot, which is the state as of the log's entry `index`.
pub fn write_catalog(index: u64, bytes: &[u8]) -> Result<()> {
    let mut old = 0u64;
    for_each(CATALOG, |_| {
        old += 1;
        Ok(())
    })?;
    let mut head = Vec::with_capacity(16);
    write_uint(&mut head, index);
    let chunks = std::iter::once(&head[..]).chain(bytes.chunks(CHUNK_BYTES_MAX));
    let mut written = 0u64;
    let mut row = Vec::new();
    for chunk in chunks {
        row.clear();
        write_array_len(&mut row, 2);
        write_uint(&mut row, written);
        write_bin(&mut row, chunk);
        Space(CATALOG).replace(&row)?;
        written += 1;
    }
    for stale in written..old {
        row.clear();
        write_array_len(&mut row, 1);
        write_uint(&mut row, stale);
        Space(CATALOG).delete(0, &row)?;
    }
    Ok(())
}

/// The catalog's snapshot and the entry it stands at; None where none was written yet.
pub fn read_catalog() -> Result<Option<(u64, Vec<u8>)>> {
    let mut head = None;
    let mut bytes = Vec::new();
    for_each(CATALOG, |tuple| {
        let mut reader = Reader::new(tuple);
        reader.array_len().map_err(corrupted)?;
        reader.uint().map_err(corrupted)?;
        let chunk = reader.bin().map_err(corrupted)?;
        match head {
            None => head = Some(Reader::new(chunk).uint().map_err(corrupted)?),
            Some(_) => bytes.extend_from_slice(chunk),
        }
        Ok(())
    })?;
    Ok(head.map(|index| (index, bytes)))
}

/// Whether two rows of so many bytes can be written: to the host, large tuples are no part of the pieces that memory for others
/// is in, and these it never gives back. Leaves nothing behind.
///
/// Errors: `Storage`, `LimitExceeded`.
pub fn probe(bytes: usize) -> Result<()> {
    let transaction = Transaction::begin()?;
    let content = vec![0; bytes];
    for key in ["probe", "probe 2"] {
        let mut row = Vec::with_capacity(bytes + 32);
        write_array_len(&mut row, 2);
        write_str(&mut row, key);
        write_bin(&mut row, &content);
        Space(MARKS).replace(&row)?;
    }
    drop(transaction);
    Ok(())
}

/// Writes a note of a number. Yields; whatever was received before is in the log when it returns.
pub fn write_mark(key: &str, number: u64) -> Result<()> {
    let mut row = Vec::new();
    write_array_len(&mut row, 2);
    write_str(&mut row, key);
    write_bin(&mut row, &number.to_be_bytes());
    Space(MARKS).replace(&row).map(drop)
}

/// Reads a note; 0 where none was written.
pub fn read_mark(key: &str) -> Result<u64> {
    let mut index_key = Vec::new();
    write_array_len(&mut index_key, 1);
    write_str(&mut index_key, key);
    let Some(tuple) = Space(MARKS).get(0, &index_key)? else { return Ok(0) };
    let mut bytes = Vec::new();
    tuple.copy_to(&mut bytes);
    let mut reader = Reader::new(&bytes);
    reader.array_len().map_err(corrupted)?;
    reader.str().map_err(corrupted)?;
    let number = reader.bin().map_err(corrupted)?.try_into().ok().map(u64::from_be_bytes);
    number.ok_or_else(|| Error::new(Code::Corrupted, format!("the note \"{key}\" is no number")))
}

/// Hands every tuple of a space to `f`, in the order of its primary key.
fn for_each(space: u32, mut f: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    const EMPTY_KEY: &[u8] = &[0x90];
    let mut tuples = Space(space).iterate(0, IteratorKind::All, EMPTY_KEY)?;
    let mut tuple = Vec::new();
    while tuples.copy_next(&mut tuple)? {
        f(&tuple)?;
        tuple.clear();
    }
    Ok(())
}

fn corrupted(error: Error) -> Error {
    Error::new(Code::Corrupted, format!("a row of Raft's local spaces: {}", error.message))
}
