//! Finds the rows of a selection in one instance's storage.
//!
//! The primary index of a sharded table is ordered by bucket first, so rows in the order of the primary key are drawn
//! from many sorted runs, one a bucket: each run is entered at its first row of interest and left as soon as its rows
//! can no longer be among those wanted. Every other index is one run.

use crate::compare::{TupleOrder, compare, field_of};
use crate::layout::Layout;
use crate::row::bucket_of_stored;
use crate::selection::{Condition, Operator, Selection};
use model::msgpack;
use model::{BucketId, Code, Error, Result};
use sharding::BucketRange;
use std::cmp::Ordering;

/// Bytes of rows in one instance's answer.
pub const BYTES_MAX: usize = 64 << 20;
/// Rows looked at before others get their turn.
pub const ROWS_A_TURN: usize = 4096;

/// Where an iterator begins and which way it goes; the numbers are the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Direction {
    Less = 3,
    LessOrEqual = 4,
    GreaterOrEqual = 5,
    Greater = 6,
}

impl Direction {
    /// From a key upwards or downwards, with or without the tuples that have it.
    pub fn towards(descending: bool, is_exclusive: bool) -> Direction {
        match (descending, is_exclusive) {
            (false, false) => Direction::GreaterOrEqual,
            (false, true) => Direction::Greater,
            (true, false) => Direction::LessOrEqual,
            (true, true) => Direction::Less,
        }
    }
}

/// An index to walk, in box or in memory.
pub trait Walk {
    /// Begins anew at a key: `parts` values one behind the other. A key without parts and `LessOrEqual` begins at the
    /// highest end.
    fn seek(&mut self, direction: Direction, parts: usize, key: &[u8]) -> Result<()>;
    /// Appends the next tuple; false at the end.
    fn next_into(&mut self, out: &mut Vec<u8>) -> Result<bool>;
    /// Lets others run; an iterator survives it.
    fn pause(&mut self) -> Result<()>;
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Stored tuples in the selection's order; empty when only the count was wanted.
    pub tuples: Vec<Vec<u8>>,
    pub count: u64,
}

/// Finds the rows of `selection` in these buckets (sorted; ignored for a global table).
///
/// Errors: `LimitExceeded` when they are too many bytes, and what the host says.
pub fn find(
    walk: &mut impl Walk,
    layout: &Layout,
    selection: &Selection,
    buckets: &[BucketRange],
    count_only: bool,
) -> Result<Found> {
    let order = selection.order(layout)?;
    let mut search = Search {
        walk,
        layout,
        selection,
        buckets,
        order,
        count_only,
        found: Found::default(),
        worst: None,
        tuple: Vec::new(),
        bytes: 0,
        seen: 0,
    };
    if selection.rows_max == Some(0) {
        return Ok(search.found);
    }
    if layout.is_sharded() && selection.index == 0 {
        search.runs()?;
        search.keep_best();
    } else {
        search.single_run()?;
    }
    Ok(search.found)
}

struct Search<'a, W> {
    walk: &'a mut W,
    layout: &'a Layout,
    selection: &'a Selection,
    buckets: &'a [BucketRange],
    order: TupleOrder,
    count_only: bool,
    found: Found,
    /// When as many rows as wanted were found in some runs: no row from here on is wanted.
    worst: Option<Vec<u8>>,
    /// The tuple looked at.
    tuple: Vec<u8>,
    bytes: usize,
    seen: usize,
}

/// Where a tuple stands to the range of a selection.
#[derive(PartialEq, Eq)]
enum Place {
    Wanted,
    /// Not wanted, but a later one of the run may be.
    Skipped,
    /// This one and all later ones of the run are beyond.
    Beyond,
}

impl<W: Walk> Search<'_, W> {
    /// One ordered run: a secondary index, or the primary index of a global table.
    fn single_run(&mut self) -> Result<()> {
        let (direction, parts, key) = self.start(None);
        self.walk.seek(direction, parts, &key)?;
        loop {
            if !self.step()? {
                return Ok(());
            }
            let tuple = self.tuple.as_slice();
            match place(self.layout, self.selection, &self.order, tuple) {
                Place::Beyond => return Ok(()),
                Place::Skipped => continue,
                Place::Wanted => {}
            }
            if self.layout.is_sharded() && !contains(self.buckets, bucket_of_stored(tuple)?) {
                continue;
            }
            keep(&mut self.found, &mut self.bytes, tuple, self.count_only)?;
            if self.selection.rows_max.is_some_and(|rows_max| self.found.count >= rows_max as u64) {
                return Ok(());
            }
        }
    }

    /// One run a bucket, of those buckets that hold rows.
    fn runs(&mut self) -> Result<()> {
        let descending = self.selection.descending;
        let ranges: Vec<BucketRange> =
            if descending { self.buckets.iter().rev().copied().collect() } else { self.buckets.to_vec() };
        for range in ranges {
            let mut bucket = if descending { range.last } else { range.first };
            while range.contains(bucket) {
                bucket = match (self.run(bucket)?, descending) {
                    // The iterator ran into another bucket: those between are empty.
                    (Some(next), _) if next != bucket => next,
                    (Some(_), false) => bucket + 1,
                    (Some(_), true) => bucket - 1,
                    (None, _) => break,
                };
            }
        }
        Ok(())
    }

    /// One bucket's run. Answers the bucket that the iterator ran into, this bucket when it was left early, and None at
    /// the end of the index.
    fn run(&mut self, bucket: BucketId) -> Result<Option<BucketId>> {
        let (direction, parts, key) = self.start(Some(bucket));
        self.walk.seek(direction, parts, &key)?;
        let mut run_count: u64 = 0;
        let rows_max = self.selection.rows_max.map_or(u64::MAX, |rows_max| rows_max as u64);
        loop {
            if !self.step()? {
                return Ok(None);
            }
            let tuple = self.tuple.as_slice();
            let found_in = bucket_of_stored(tuple)?;
            if found_in != bucket {
                return Ok(Some(found_in));
            }
            match place(self.layout, self.selection, &self.order, tuple) {
                Place::Beyond => return Ok(Some(bucket)),
                Place::Skipped => continue,
                Place::Wanted => {}
            }
            if let Some(worst) = &self.worst
                && self.order.compare(tuple, worst).is_ge()
            {
                return Ok(Some(bucket));
            }
            keep(&mut self.found, &mut self.bytes, tuple, self.count_only)?;
            self.prune();
            run_count += 1;
            if run_count >= rows_max {
                return Ok(Some(bucket));
            }
        }
    }

    /// Where the iterator begins: at the row to continue behind, else at the near end of the range.
    fn start(&self, bucket: Option<BucketId>) -> (Direction, usize, Vec<u8>) {
        let mut key = Vec::new();
        let mut parts = 0;
        if let Some(bucket) = bucket {
            msgpack::write_uint(&mut key, bucket.into());
            parts += 1;
        }
        let descending = self.selection.descending;
        let near = if descending { &self.selection.upper } else { &self.selection.lower };
        let is_exclusive = match (&self.selection.after, near) {
            (Some(after), _) => {
                let width = self.after_width(after);
                key.extend(after[..width].iter().flatten());
                parts += width;
                // A prefix of the order leaves rows to be told apart one by one.
                width == after.len()
            }
            (None, Some(near)) => {
                key.extend(near.key());
                parts += near.values.len();
                matches!(near.operator, Operator::Less | Operator::Greater)
            }
            (None, None) => false,
        };
        (Direction::towards(descending, is_exclusive), parts, key)
    }

    /// How many of the order's values are parts of the index's own key.
    fn after_width(&self, after: &[Vec<u8>]) -> usize {
        crate::selection::index_columns(self.layout, self.selection.index)
            .map_or(0, |columns| columns.len().min(after.len()))
    }

    /// Drops what cannot be among the rows wanted, now and then.
    fn prune(&mut self) {
        if self.selection.rows_max.is_some_and(|rows_max| self.found.tuples.len() >= rows_max.saturating_mul(2).max(64))
        {
            self.keep_best();
        }
    }

    fn keep_best(&mut self) {
        if self.count_only {
            let rows_max = self.selection.rows_max.map_or(u64::MAX, |rows_max| rows_max as u64);
            self.found.count = self.found.count.min(rows_max);
            return;
        }
        let order = &self.order;
        self.found.tuples.sort_unstable_by(|a, b| order.compare(a, b));
        if let Some(rows_max) = self.selection.rows_max.filter(|rows_max| self.found.tuples.len() >= *rows_max) {
            self.found.tuples.truncate(rows_max);
            self.worst = self.found.tuples.last().cloned();
        }
        self.found.count = self.found.tuples.len() as u64;
        self.bytes = self.found.tuples.iter().map(Vec::len).sum();
    }

    /// Goes to the next tuple; false at the end.
    fn step(&mut self) -> Result<bool> {
        self.seen += 1;
        if self.seen.is_multiple_of(ROWS_A_TURN) {
            self.walk.pause()?;
        }
        self.tuple.clear();
        self.walk.next_into(&mut self.tuple)
    }
}

fn keep(found: &mut Found, bytes: &mut usize, tuple: &[u8], count_only: bool) -> Result<()> {
    found.count += 1;
    if count_only {
        return Ok(());
    }
    *bytes += tuple.len();
    if *bytes > BYTES_MAX {
        let message = format!("the rows selected are more than {} MiB on one replicaset", BYTES_MAX >> 20);
        return Err(Error::new(Code::LimitExceeded, message).with_hint("ask for pages with `first` and `after`"));
    }
    found.tuples.push(tuple.to_vec());
    Ok(())
}

fn place(layout: &Layout, selection: &Selection, order: &TupleOrder, tuple: &[u8]) -> Place {
    let accepts = |condition: &Option<Condition>| condition.as_ref().is_none_or(|c| c.accepts(layout, tuple));
    let (near, far) = match selection.descending {
        false => (&selection.lower, &selection.upper),
        true => (&selection.upper, &selection.lower),
    };
    if !accepts(far) {
        return Place::Beyond;
    }
    let is_behind = selection.after.as_ref().is_none_or(|after| is_behind(order, after, tuple));
    if !is_behind || !accepts(near) || !selection.filters.iter().all(|filter| filter.accepts(layout, tuple)) {
        return Place::Skipped;
    }
    Place::Wanted
}

/// Whether the tuple comes after the row with these values of the order's fields.
fn is_behind(order: &TupleOrder, after: &[Vec<u8>], tuple: &[u8]) -> bool {
    for ((field, ty), value) in order.fields.iter().zip(after) {
        let ordering = field_of(tuple, *field).map_or(Ordering::Less, |field| compare(*ty, field, value));
        if ordering.is_ne() {
            return if order.descending { ordering.is_lt() } else { ordering.is_gt() };
        }
    }
    false
}

/// Whether a bucket is in one of the sorted ranges.
pub fn contains(ranges: &[BucketRange], bucket: BucketId) -> bool {
    let at = ranges.partition_point(|range| range.last < bucket);
    ranges.get(at).is_some_and(|range| range.contains(bucket))
}

/// Merges sorted answers of several replicasets into one, at most `rows_max` long.
pub fn merge(order: &TupleOrder, answers: Vec<Vec<Vec<u8>>>, rows_max: Option<usize>) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::with_capacity(answers.iter().map(Vec::len).sum());
    all.extend(answers.into_iter().flatten());
    // A stable sort finds the sorted runs and merges them.
    all.sort_by(|a, b| order.compare(a, b));
    all.truncate(rows_max.unwrap_or(usize::MAX));
    all
}
