//! A scan of stored tuples, slice by slice: what the SQL room reads.
//!
//! The order is the index's own, so a sharded table's primary index gives its rows by bucket and key. Bounds on the
//! primary key are looked up in each bucket that holds rows. A scan of several ranges, such as the keys of a join, looks each of
//! them up.

use crate::compare::TupleOrder;
use crate::layout::Layout;
use crate::row::bucket_of_stored;
use crate::scan::{Direction, Walk, contains};
use crate::selection::{Condition, Operator, Selection};
use model::msgpack;
use model::{BucketId, ColumnType, Result};
use sharding::BucketRange;
use std::sync::Arc;

/// Tuples that are looked at for one slice.
pub const SLICE_ROWS_MAX: usize = 4096;
/// Finding a place in the index counts like so many tuples.
const SEEK_ROWS: usize = 4;
/// Bytes after which a slice ends.
pub const SLICE_BYTES_MAX: usize = 4 << 20;
/// A slice that has to come to a certain tuple, of a table that grows, may be so many times as large.
const STRETCH: usize = 2;

/// Which tuples to read.
#[derive(Clone, Debug)]
pub struct SliceRequest {
    pub layout: Arc<Layout>,
    /// 0 is the primary index.
    pub index: u32,
    pub descending: bool,
    /// Of several, each lies behind those before it, and each of an index that begins with the bucket has one. Several are
    /// read in ascending order.
    pub ranges: Vec<SliceRange>,
    /// Sorted, without overlaps. Ignored for a global table.
    pub buckets: Vec<BucketRange>,
    /// Stop after so many tuples.
    pub rows_max: Option<usize>,
}

/// A part of an index.
#[derive(Clone, Debug, Default)]
pub struct SliceRange {
    /// On a prefix of the index's columns, with `>` or `>=`.
    pub lower: Option<Condition>,
    /// On a prefix of the index's columns, with `<` or `<=`.
    pub upper: Option<Condition>,
    /// The only bucket of its tuples, when that is known.
    pub bucket: Option<BucketId>,
}

/// The order in which an index gives its tuples.
///
/// Errors: `NoSuchIndex`.
pub(crate) fn order_of(layout: &Layout, index: u32, descending: bool) -> Result<TupleOrder> {
    let mut order = Selection { index, descending, ..Selection::default() }.order(layout)?;
    if layout.is_sharded() && index == 0 {
        order.fields.insert(0, (0, ColumnType::BigInt));
    }
    Ok(order)
}

/// A running scan without its iterator.
#[derive(Debug)]
pub struct Slicer {
    request: SliceRequest,
    /// The index begins with the bucket.
    by_bucket: bool,
    /// The part of the index that is read now.
    part: usize,
    /// Where to go on: the range of buckets, counted in the scan's direction, and the bucket in it.
    range: usize,
    bucket: BucketId,
    is_positioned: bool,
    /// Where to go on, as a whole key of the index: behind its tuple.
    behind: Option<(usize, Vec<u8>)>,
    is_done: bool,
    rows: usize,
    pub(crate) slice_rows: usize,
}

/// How a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is full; there may be more.
    Full,
    /// What it was to come to has been passed.
    Reached,
    /// There is nothing more.
    AtEnd,
}

impl Slicer {
    pub fn new(request: SliceRequest) -> Self {
        let by_bucket = request.layout.is_sharded() && request.index == 0;
        let is_done = request.ranges.is_empty();
        let mut slicer = Self {
            by_bucket,
            part: 0,
            range: 0,
            bucket: 0,
            is_positioned: false,
            behind: None,
            is_done,
            rows: 0,
            slice_rows: SLICE_ROWS_MAX,
            request,
        };
        match slicer.has_list() {
            true => slicer.enter_part(0),
            false if by_bucket => slicer.enter_range(0),
            false => {}
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
        let ended = self.read(walk, is_wanted, |_| false, 1, bytes, ends)?;
        Ok(ended != Ended::AtEnd)
    }

    /// As `next`, up to the first tuple that `is_beyond`, which is not given. A slice that does not get there is larger.
    pub(crate) fn next_until(
        &mut self,
        walk: &mut impl Walk,
        is_wanted: impl Fn(&[u8]) -> Result<bool>,
        is_beyond: impl Fn(&[u8]) -> bool,
        bytes: &mut Vec<u8>,
        ends: &mut Vec<u32>,
    ) -> Result<Ended> {
        self.read(walk, is_wanted, is_beyond, STRETCH, bytes, ends)
    }

    fn read(
        &mut self,
        walk: &mut impl Walk,
        is_wanted: impl Fn(&[u8]) -> Result<bool>,
        is_beyond: impl Fn(&[u8]) -> bool,
        stretch: usize,
        bytes: &mut Vec<u8>,
        ends: &mut Vec<u32>,
    ) -> Result<Ended> {
        let bytes_before = bytes.len();
        let mut looked_at = 0;
        while looked_at < self.slice_rows * stretch {
            self.is_done |= !self.takes_more();
            if self.is_done || bytes.len() - bytes_before >= SLICE_BYTES_MAX * stretch {
                break;
            }
            if !self.is_positioned {
                self.seek(walk)?;
                looked_at += SEEK_ROWS;
            }
            looked_at += 1;
            let start = bytes.len();
            if !walk.next_into(bytes)? {
                self.is_done = true;
                break;
            }
            if is_beyond(&bytes[start..]) {
                bytes.truncate(start);
                self.is_positioned = false;
                return Ok(Ended::Reached);
            }
            if self.wants(&bytes[start..])? && is_wanted(&bytes[start..])? {
                ends.push(bytes.len() as u32);
                self.rows += 1;
            } else {
                bytes.truncate(start);
            }
        }
        Ok(if self.is_done { Ended::AtEnd } else { Ended::Full })
    }

    /// Whether it reads the whole of its buckets, or of a table without buckets, in the order of the primary index.
    pub(crate) fn is_full(&self) -> bool {
        let SliceRequest { index, descending, ranges, rows_max, .. } = &self.request;
        let is_open = |range: &SliceRange| range.lower.is_none() && range.upper.is_none() && range.bucket.is_none();
        *index == 0 && !descending && rows_max.is_none() && matches!(&ranges[..], [range] if is_open(range))
    }

    /// Goes on behind a tuple of the primary index, whether it is still there or not. Of a scan that `is_full` only.
    pub(crate) fn go_on_behind(&mut self, tuple: &[u8]) -> Result<()> {
        if self.by_bucket {
            self.range = 0;
            self.go_to(bucket_of_stored(tuple)?);
        }
        let layout = &self.request.layout;
        let parts = layout.table.stored_offset() + layout.table.primary_key.len();
        self.behind = Some((parts, layout.primary_key_of(tuple)?));
        self.is_positioned = false;
        Ok(())
    }

    /// There is nothing more to read.
    pub(crate) fn finish(&mut self) {
        self.is_done = true;
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
        let SliceRequest { layout, ranges, buckets, .. } = &self.request;
        let bucket = if layout.is_sharded() { bucket_of_stored(tuple)? } else { 0 };
        if layout.is_sharded() && !contains(buckets, bucket) {
            return Ok(false);
        }
        let accepts = |bound: &Option<Condition>| bound.as_ref().is_none_or(|b| b.accepts(layout, tuple));
        // The last one that begins at the tuple or before it.
        let begins = |range: &SliceRange| match range.bucket {
            Some(of) if self.by_bucket && of != bucket => of < bucket,
            _ => accepts(&range.lower),
        };
        let range = ranges.partition_point(begins).checked_sub(1).and_then(|at| ranges.get(at));
        Ok(range.is_some_and(|range| accepts(&range.upper) && range.bucket.is_none_or(|of| of == bucket)))
    }

    /// Whether there are several parts of the index to look up.
    fn has_list(&self) -> bool {
        self.request.ranges.len() > 1
    }

    fn part(&self) -> Option<&SliceRange> {
        self.request.ranges.get(self.part)
    }

    fn near(&self) -> Option<&Condition> {
        let part = self.part()?;
        if self.request.descending { part.upper.as_ref() } else { part.lower.as_ref() }
    }

    fn far(&self) -> Option<&Condition> {
        let part = self.part()?;
        if self.request.descending { part.lower.as_ref() } else { part.upper.as_ref() }
    }

    fn has_bounds(&self) -> bool {
        self.part().is_some_and(|part| part.lower.is_some() || part.upper.is_some())
    }

    fn seek(&mut self, walk: &mut impl Walk) -> Result<()> {
        self.is_positioned = true;
        if let Some((parts, key)) = self.behind.take() {
            return walk.seek(Direction::Greater, parts, &key);
        }
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
        walk.seek(Direction::towards(self.request.descending, is_exclusive), parts, &key)
    }

    /// Whether the tuple under the iterator is part of the scan; moves on where it is not.
    fn wants(&mut self, tuple: &[u8]) -> Result<bool> {
        let layout = &self.request.layout;
        let is_beyond = self.has_bounds() && self.far().is_some_and(|far| !far.accepts(layout, tuple));
        if self.has_list() {
            let bucket = if layout.is_sharded() { bucket_of_stored(tuple)? } else { 0 };
            if is_beyond || (self.by_bucket && bucket != self.bucket) {
                self.enter_part(self.part + 1);
                return Ok(false);
            }
            return Ok(!layout.is_sharded() || contains(&self.request.buckets, bucket));
        }
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

    fn enter_part(&mut self, part: usize) {
        self.part = part;
        self.is_positioned = false;
        self.bucket = self.part().and_then(|part| part.bucket).unwrap_or(0);
        self.is_done = self.part().is_none();
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
