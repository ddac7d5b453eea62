//! Box spaces by id: raw MessagePack in, tuples out. Checks of meaning are the callers'; what the host refuses comes
//! back as an error.
//!
//! Nothing here works before `box.cfg`. Writes outside a transaction commit by themselves and so yield; reads of memtx
//! do not yield, reads of vinyl may.

use super::error;
use super::ffi as own;
use super::readahead;
use super::tuple::Tuple;
use model::Result;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use tarantool::ffi::tarantool::{self as ffi, BoxTuple};

/// The order and bounds of an iteration, by the host's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum IteratorKind {
    Eq = 0,
    All = 2,
    Lt = 3,
    Le = 4,
    Ge = 5,
    Gt = 6,
}

/// A space; whether it exists is found out by using it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space(pub u32);

/// The two ends of a byte string, as the C API takes it.
fn ends(bytes: &[u8]) -> (*const c_char, *const c_char) {
    let range = bytes.as_ptr_range();
    (range.start.cast(), range.end.cast())
}

/// Turns a status and a result pointer into the tuple, if there is one.
fn outcome(status: c_int, tuple: *mut BoxTuple) -> Result<Option<Tuple>> {
    match status {
        // SAFETY: the host answered this tuple just now and keeps it until its next call.
        0 => Ok(unsafe { Tuple::from_host(tuple) }),
        _ => Err(error::last()),
    }
}

impl Space {
    /// Errors: `DuplicateKey`, and what the format refuses.
    pub fn insert(self, tuple: &[u8]) -> Result<Option<Tuple>> {
        let ((start, end), mut result) = (ends(tuple), null_mut());
        // SAFETY: the host checks and copies the bytes between the two ends.
        outcome(unsafe { ffi::box_insert(self.0, start, end, &mut result) }, result)
    }

    pub fn replace(self, tuple: &[u8]) -> Result<Option<Tuple>> {
        let ((start, end), mut result) = (ends(tuple), null_mut());
        // SAFETY: as above.
        outcome(unsafe { ffi::box_replace(self.0, start, end, &mut result) }, result)
    }

    /// The tuple that was deleted; None when there was none.
    pub fn delete(self, index: u32, key: &[u8]) -> Result<Option<Tuple>> {
        let ((start, end), mut result) = (ends(key), null_mut());
        // SAFETY: as above.
        outcome(unsafe { ffi::box_delete(self.0, index, start, end, &mut result) }, result)
    }

    /// The tuple after `operations` (a MessagePack array of `[op, field, argument..]`, fields counted from
    /// `field_base`); None when the key is not there.
    pub fn update(self, index: u32, key: &[u8], operations: &[u8], field_base: i32) -> Result<Option<Tuple>> {
        let ((start, end), (ops, ops_end), mut result) = (ends(key), ends(operations), null_mut());
        // SAFETY: as above.
        let status = unsafe { ffi::box_update(self.0, index, start, end, ops, ops_end, field_base, &mut result) };
        outcome(status, result)
    }

    /// All rows go. In a transaction, those that it wrote before too.
    pub fn truncate(self) -> Result<()> {
        // SAFETY: takes an id only.
        outcome(unsafe { ffi::box_truncate(self.0) }, null_mut()).map(drop)
    }

    /// The tuple with this full key of a unique index.
    pub fn get(self, index: u32, key: &[u8]) -> Result<Option<Tuple>> {
        let ((start, end), mut result) = (ends(key), null_mut());
        // SAFETY: as above.
        outcome(unsafe { ffi::box_index_get(self.0, index, start, end, &mut result) }, result)
    }

    /// How many tuples the space has. For vinyl an upper bound.
    pub fn len(self, index: u32) -> Result<usize> {
        // SAFETY: takes ids only.
        count(unsafe { ffi::box_index_len(self.0, index) })
    }

    /// Starts an iteration. `key` is a MessagePack array, a prefix of the index's parts or empty.
    pub fn iterate(self, index: u32, kind: IteratorKind, key: &[u8]) -> Result<TupleIterator> {
        let key: Box<[u8]> = key.into();
        let (start, end) = ends(&key);
        // SAFETY: the key stays where it is until the iterator, which points into it, is freed.
        let iterator = unsafe { own::box_index_iterator(self.0, index, kind as c_int, start, end) };
        if iterator.is_null() {
            return Err(error::last());
        }
        Ok(TupleIterator { iterator, _key: key })
    }
}

fn count(answer: isize) -> Result<usize> {
    usize::try_from(answer).map_err(|_| error::last())
}

/// A running iteration. It survives changes of the space and yields of the fiber; a space that was dropped ends it.
pub struct TupleIterator {
    iterator: *mut c_void,
    _key: Box<[u8]>,
}

impl TupleIterator {
    /// Where the host keeps the iterator.
    pub(super) fn address(&self) -> usize {
        self.iterator as usize
    }

    /// The next tuple; None at the end.
    pub fn next_tuple(&mut self) -> Result<Option<Tuple>> {
        let mut result = null_mut();
        // SAFETY: the iterator is alive until `self` is dropped.
        outcome(unsafe { own::box_iterator_next(self.iterator, &mut result) }, result)
    }

    /// Appends the bytes of the next tuple to `out`, without counting a reference to it. False at the end.
    pub fn copy_next(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let mut result = null_mut();
        // SAFETY: as above; the tuple is copied before the host's next call.
        unsafe {
            if own::box_iterator_next(self.iterator, &mut result) != 0 {
                return Err(error::last());
            }
            if result.is_null() {
                return Ok(false);
            }
            readahead::look_ahead(self.iterator as usize);
            super::tuple::append_bytes(result, out);
        }
        Ok(true)
    }
}

impl Drop for TupleIterator {
    fn drop(&mut self) {
        // SAFETY: made by `iterate`, freed once.
        unsafe { own::box_iterator_free(self.iterator) };
    }
}

/// Whether the instance refuses writes.
pub fn is_read_only() -> bool {
    // SAFETY: reads a flag.
    unsafe { own::box_is_ro() }
}
