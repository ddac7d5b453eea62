//! A scan of stored tuples, slice by slice: what the SQL room reads.
//!
//! The order is the index's own, so a sharded table's primary index gives its rows by bucket and key. Bounds on the
//! primary key are looked up in each bucket that holds rows.

use crate::layout::Layout;
use crate::row::bucket_of_stored;
use crate::scan::{Direction, Walk, contains};
use crate::selection::{Condition, Operator};
use model::msgpack;
use model::{BucketId, Result};
use sharding::BucketRange;
use std::sync::Arc;

/// Tuples that are looked at for one slice.
pub const SLICE_ROWS_MAX: usize = 4096;
/// Bytes after which a slice ends.
pub const SLICE_BYTES_MAX: usize = 4 << 20;

/// Which tuples to read.
#[derive(Clone, Debug)]
pub struct SliceRequest {
    pub layout: Arc<Layout>,
    /// 0 is the primary index.
    pub index: u32,
    pub descending: bool,
    /// On a prefix of the index's columns, with `>` or `>=`.
    pub lower: Option<Condition>,
    /// On a prefix of the index's columns, with `<` or `<=`.
    pub upper: Option<Condition>,
    /// Sorted, without overlaps. Ignored for a global table.
    pub buckets: Vec<BucketRange>,
    /// Stop after so many tuples.
    pub rows_max: Option<usize>,
}

/// A running scan without its iterator.
#[derive(Debug)]
pub struct Slicer {
    request: SliceRequest,
    /// The index begins with the bucket.
    by_bucket: bool,
    /// Where to go on: the range, counted in the scan's direction, and the bucket in it.
    range: usize,
    bucket: BucketId,
    is_positioned: bool,
    is_done: bool,
    rows: usize,
}

impl Slicer {
    pub fn new(request: SliceRequest) -> Self {
        let by_bucket = request.layout.is_sharded() && request.index == 0;
        let mut slicer =
            Self { by_bucket, range: 0, bucket: 0, is_positioned: false, is_done: false, rows: 0, request };
        if by_bucket {
            slicer.enter_range(0);
        }
        slicer
    }

    /// Appends the next slice of those tuples that `is_wanted` to `bytes`, and where each of them ends to `ends`. A slice
    /// ends after so many tuples seen, wanted or not, so it may be empty. Answers false when there are no more.
    ///
    /// Errors: what the host says.
    pub fn next(
        &mut self,
        walk: &mut impl Walk,
        is_wanted: impl Fn(&[u8]) -> Result<bool>,
        bytes: &mut Vec<u8>,
        ends: &mut Vec<u32>,
    ) -> Result<bool> {
        let bytes_before = bytes.len();
        for _ in 0..SLICE_ROWS_MAX {
            self.is_done |= !self.takes_more();
            if self.is_done || bytes.len() - bytes_before >= SLICE_BYTES_MAX {
                break;
            }
            if !self.is_positioned {
                self.seek(walk)?;
            }
            let start = bytes.len();
            if !walk.next_into(bytes)? {
                self.is_done = true;
                break;
            }
            if self.wants(&bytes[start..])? && is_wanted(&bytes[start..])? {
                ends.push(bytes.len() as u32);
                self.rows += 1;
            } else {
                bytes.truncate(start);
            }
        }
        Ok(!self.is_done)
    }

    /// Whether fewer tuples were given than wanted.
    pub(crate) fn takes_more(&self) -> bool {
        self.request.rows_max.is_none_or(|rows_max| self.rows < rows_max)
    }

    /// A tuple was given that did not come from the index.
    pub(crate) fn count_row(&mut self) {
        self.rows += 1;
    }

    /// Whether a tuple is among those that the scan is for, wherever its walk is.
    pub(crate) fn covers(&self, tuple: &[u8]) -> Result<bool> {
        let request = &self.request;
        let accepts = |bound: &Option<Condition>| bound.as_ref().is_none_or(|b| b.accepts(&request.layout, tuple));
        let is_in = !request.layout.is_sharded() || contains(&request.buckets, bucket_of_stored(tuple)?);
        Ok(is_in && accepts(&request.lower) && accepts(&request.upper))
    }

    fn near(&self) -> &Option<Condition> {
        if self.request.descending { &self.request.upper } else { &self.request.lower }
    }

    fn far(&self) -> &Option<Condition> {
        if self.request.descending { &self.request.lower } else { &self.request.upper }
    }

    fn has_bounds(&self) -> bool {
        self.request.lower.is_some() || self.request.upper.is_some()
    }

    fn seek(&mut self, walk: &mut impl Walk) -> Result<()> {
        let (mut parts, mut key) = (0, Vec::new());
        if self.by_bucket {
            msgpack::write_uint(&mut key, self.bucket.into());
            parts += 1;
        }
        let mut is_exclusive = false;
        if let Some(near) = self.near() {
            key.extend(near.key());
            parts += near.values.len();
            is_exclusive = matches!(near.operator, Operator::Less | Operator::Greater);
        }
        walk.seek(Direction::towards(self.request.descending, is_exclusive), parts, &key)?;
        self.is_positioned = true;
        Ok(())
    }

    /// Whether the tuple under the iterator is part of the scan; moves on where it is not.
    fn wants(&mut self, tuple: &[u8]) -> Result<bool> {
        let layout = &self.request.layout;
        let is_beyond = self.has_bounds() && self.far().as_ref().is_some_and(|far| !far.accepts(layout, tuple));
        if !self.by_bucket {
            self.is_done = is_beyond;
            return Ok(
                !is_beyond && (!layout.is_sharded() || contains(&self.request.buckets, bucket_of_stored(tuple)?))
            );
        }
        let bucket = bucket_of_stored(tuple)?;
        let is_outside = !self.current_range().is_some_and(|range| range.contains(bucket));
        if is_outside || (self.has_bounds() && bucket != self.bucket) {
            self.go_to(bucket);
            return Ok(false);
        }
        if is_beyond {
            self.go_behind(bucket);
            return Ok(false);
        }
        Ok(true)
    }

    fn current_range(&self) -> Option<BucketRange> {
        let ranges = &self.request.buckets;
        let at = if self.request.descending { ranges.len().checked_sub(self.range + 1)? } else { self.range };
        ranges.get(at).copied()
    }

    fn enter_range(&mut self, range: usize) {
        self.range = range;
        self.is_positioned = false;
        match self.current_range() {
            Some(BucketRange { first, last }) => self.bucket = if self.request.descending { last } else { first },
            None => self.is_done = true,
        }
    }

    /// Goes on at this bucket, or at the next one of the scan behind it.
    fn go_to(&mut self, bucket: BucketId) {
        let descending = self.request.descending;
        let is_past = |range: BucketRange| if descending { bucket < range.first } else { bucket > range.last };
        while self.current_range().is_some_and(is_past) {
            self.range += 1;
        }
        self.enter_range(self.range);
        if self.current_range().is_some_and(|range| range.contains(bucket)) {
            self.bucket = bucket;
        }
    }

    fn go_behind(&mut self, bucket: BucketId) {
        let next = if self.request.descending { bucket.checked_sub(1) } else { bucket.checked_add(1) };
        match next {
            Some(next) => self.go_to(next),
            None => self.is_done = true,
        }
    }
}
