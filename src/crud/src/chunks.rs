//! What was read of a whole table, in chunks, and what is kept of those whose rows have not changed since.
//!
//! A full scan gives the rows in the order of the primary index, slice by slice. Its slices become chunks: each ends at a
//! tuple, and begins behind the end of the one before it. Whoever reads the table again goes from chunk to chunk, and takes
//! what is kept of one instead of its rows. A change of a row lets go what is kept of its chunk; the chunk's ends stay, so
//! that the next scan reads this part anew and finds the others as they were.
//!
//! A scan sees its moment, which lies before now. It may take what is kept of a chunk in which nothing has changed since
//! that moment; in any other it reads the rows, and passes over those that the moment knows of.

use crate::compare::TupleOrder;
use crate::layout::Layout;
use model::ColumnType;
use sharding::BucketRange;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is kept of a chunk beside its rows.
pub trait Content: Clone {
    /// Of a chunk of so many rows, with nothing in it yet.
    fn of_rows(rows: usize) -> Self;
    /// Whether it has these columns, so that the rows need not be read.
    fn has(&self, columns: &[usize]) -> bool;
}

/// What comes with a slice that a scan gives.
#[derive(Clone, Debug)]
pub struct Kept<C> {
    pub content: C,
    /// The content stands for the rows, which were not read. Otherwise it is theirs, and may be filled from them.
    pub is_complete: bool,
}

/// The chunks of one table, in buckets that it was read in.
#[derive(Debug)]
pub struct Chunks<C> {
    layout: Arc<Layout>,
    buckets: Vec<BucketRange>,
    order: TupleOrder,
    chunks: Vec<Chunk<C>>,
    /// The last chunk goes on to the end of the table.
    is_whole: bool,
    /// Another number whenever ends of chunks were given up; no two tables' chunks share one.
    generation: u64,
}

#[derive(Debug)]
struct Chunk<C> {
    /// Its last tuple, as it was; empty when it goes on to the end of the table.
    end: Vec<u8>,
    /// None when a row of it has changed.
    content: Option<C>,
    /// The time of the last change.
    changed: u64,
}

/// Where a scan is: at the beginning of which chunk.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    at: usize,
    generation: u64,
}

fn fresh() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// What a scan finds at its place.
#[derive(Debug)]
pub enum Found<'a, C> {
    /// A chunk that goes to this tuple; empty at the end of the table.
    Chunk { end: &'a [u8], content: Option<&'a C> },
    /// Nothing is known from here on.
    Unread,
    /// The scan has come to its end.
    AtEnd,
    /// The ends of chunks that the scan went by are gone.
    Lost,
}

impl<C: Content> Chunks<C> {
    pub fn new(layout: Arc<Layout>, buckets: Vec<BucketRange>) -> Self {
        let offset = layout.table.stored_offset();
        let mut fields = Vec::with_capacity(offset + layout.table.primary_key.len());
        fields.extend(layout.is_sharded().then_some((0, ColumnType::BigInt)));
        fields.extend(layout.table.primary_key.iter().map(|column| (column + offset, layout.cells[*column].ty)));
        let order = TupleOrder { fields, descending: false };
        Self { layout, buckets, order, chunks: Vec::new(), is_whole: false, generation: fresh() }
    }

    /// The definition of the table that they were read by.
    pub fn version(&self) -> u64 {
        self.layout.table.version
    }

    /// Whether these are the chunks of a scan of this definition of the table, in these buckets.
    pub fn are_of(&self, layout: &Layout, buckets: &[BucketRange]) -> bool {
        self.version() == layout.table.version && self.buckets == buckets
    }

    /// How many chunks there are, with and without anything that is kept.
    pub fn count(&self) -> usize {
        self.chunks.len()
    }

    /// Where a scan begins.
    pub fn start(&self) -> Place {
        Place { at: 0, generation: self.generation }
    }

    /// A row became another, was made or went, at this time.
    pub fn change(&mut self, tuple: &[u8], now: u64) {
        let is_before = |chunk: &Chunk<C>| !chunk.end.is_empty() && self.order.compare(&chunk.end, tuple).is_lt();
        let at = self.chunks.partition_point(is_before);
        if let Some(chunk) = self.chunks.get_mut(at) {
            (chunk.content, chunk.changed) = (None, now);
        }
    }

    /// What is at a place, for a scan whose moment began at this time.
    pub(crate) fn find(&self, place: Place, began: u64) -> Found<'_, C> {
        if place.generation != self.generation {
            return Found::Lost;
        }
        match self.chunks.get(place.at) {
            Some(chunk) => {
                Found::Chunk { end: &chunk.end, content: chunk.content.as_ref().filter(|_| chunk.changed <= began) }
            }
            None if self.is_whole => Found::AtEnd,
            None => Found::Unread,
        }
    }

    /// The rows from the last chunk to `end`, which is empty at the end of the table, were just read. What is kept of them
    /// is good for moments that begin now or later.
    pub(crate) fn push(&mut self, end: &[u8], content: Option<C>, now: u64) {
        self.is_whole = end.is_empty();
        self.chunks.push(Chunk { end: end.to_vec(), content, changed: now });
    }

    /// The rows of the chunk at a place were just read, all of them as they are now: what is kept of it, from now on.
    pub(crate) fn fill(&mut self, place: Place, rows: usize) -> Option<C> {
        let chunk = self.chunks.get_mut(place.at)?;
        Some(chunk.content.get_or_insert_with(|| C::of_rows(rows)).clone())
    }

    /// Gives up all chunks from a place on: they have grown too large.
    pub(crate) fn cut(&mut self, place: &mut Place) {
        self.chunks.truncate(place.at);
        self.is_whole = false;
        self.generation = fresh();
        place.generation = self.generation;
    }

    /// Begins anew, and answers what there was.
    pub fn renew(&mut self) -> Self {
        let fresh = Self::new(Arc::clone(&self.layout), self.buckets.clone());
        std::mem::replace(self, fresh)
    }

    /// No row lies behind the chunk at a place.
    pub(crate) fn end_at(&mut self, place: &mut Place) {
        if let Some(chunk) = self.chunks.get_mut(place.at).filter(|chunk| !chunk.end.is_empty()) {
            chunk.end.clear();
            self.chunks.truncate(place.at + 1);
            self.is_whole = true;
            self.generation = fresh();
            place.generation = self.generation;
        }
    }

    /// Whether a tuple lies behind the end of a chunk.
    pub(crate) fn is_behind(&self, tuple: &[u8], end: &[u8]) -> bool {
        !end.is_empty() && self.order.compare(tuple, end).is_gt()
    }
}

impl Place {
    /// At the next chunk.
    pub(crate) fn advance(&mut self) {
        self.at += 1;
    }
}
