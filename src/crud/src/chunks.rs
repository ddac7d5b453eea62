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
use crate::slice::order_of;
use model::Result;
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
    /// Chunks that were, for `take_given_up`.
    given_up: Vec<Chunk<C>>,
    /// Another number whenever ends of chunks were given up; no two tables' chunks share one.
    generation: u64,
}

/// A part of the table, and what is kept of it.
#[derive(Debug)]
pub struct Chunk<C> {
    /// The key of its last tuple, in its places in a tuple; empty when it goes on to the end of the table.
    end: Vec<u8>,
    /// None when a row of it has changed.
    content: Option<C>,
    /// It has no rows.
    is_empty: bool,
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
    /// Errors: none for a table that has a primary index.
    pub fn new(layout: Arc<Layout>, buckets: Vec<BucketRange>) -> Result<Self> {
        let order = order_of(&layout, 0, false)?;
        Ok(Self::without_any(layout, buckets, order))
    }

    fn without_any(layout: Arc<Layout>, buckets: Vec<BucketRange>, order: TupleOrder) -> Self {
        let (chunks, given_up) = (Vec::new(), Vec::new());
        Self { layout, buckets, order, chunks, is_whole: false, given_up, generation: fresh() }
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

    /// Where a scan begins. Chunks without rows become parts of those behind them before, so that tables whose rows go at one
    /// end and come at the other do not have ever more of them.
    pub fn start(&mut self) -> Place {
        let last = self.chunks.len().saturating_sub(1);
        if self.chunks[..last].iter().any(|chunk| chunk.is_empty) {
            let mut changed = 0;
            let mut at = 0;
            self.chunks.retain_mut(|chunk| {
                chunk.changed = chunk.changed.max(changed);
                let stays = !chunk.is_empty || at == last;
                changed = if stays { 0 } else { chunk.changed };
                at += 1;
                stays
            });
            self.generation = fresh();
        }
        Place { at: 0, generation: self.generation }
    }

    /// A row became another, was made or went, at this time.
    pub fn change(&mut self, tuple: &[u8], now: u64) {
        let is_before = |chunk: &Chunk<C>| !chunk.end.is_empty() && self.order.compare(&chunk.end, tuple).is_lt();
        let at = self.chunks.partition_point(is_before);
        if let Some(chunk) = self.chunks.get_mut(at) {
            (chunk.content, chunk.is_empty, chunk.changed) = (None, false, now);
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
    pub(crate) fn push(&mut self, end: &[u8], content: Option<C>, now: u64) -> Result<()> {
        self.is_whole = end.is_empty();
        let end = if end.is_empty() { Vec::new() } else { self.layout.key_tuple_of(end)? };
        self.chunks.push(Chunk { end, content, is_empty: false, changed: now });
        Ok(())
    }

    /// The rows of the chunk at a place were just read, all of them as they are now: what is kept of it. `keeps`: it may be
    /// something that was not kept before.
    pub(crate) fn fill(&mut self, place: Place, rows: usize, keeps: bool) -> Option<C> {
        let chunk = self.chunks.get_mut(place.at)?;
        chunk.is_empty = rows == 0;
        if keeps && chunk.content.is_none() {
            chunk.content = Some(C::of_rows(rows));
        }
        chunk.content.clone()
    }

    /// Gives up all chunks from a place on: they have grown too large.
    pub(crate) fn cut(&mut self, place: &mut Place) {
        self.given_up.extend(self.chunks.drain(place.at..));
        self.is_whole = false;
        self.begin_generation(place);
    }

    /// What was given up since this was asked last, to be dropped where there is time for it.
    pub fn take_given_up(&mut self) -> Vec<Chunk<C>> {
        std::mem::take(&mut self.given_up)
    }

    fn begin_generation(&mut self, place: &mut Place) {
        self.generation = fresh();
        place.generation = self.generation;
    }

    /// Begins anew, and answers what there was.
    pub fn renew(&mut self) -> Self {
        let fresh = Self::without_any(Arc::clone(&self.layout), self.buckets.clone(), self.order.clone());
        std::mem::replace(self, fresh)
    }

    /// No row lies behind the chunk at a place.
    pub(crate) fn end_at(&mut self, place: &mut Place) {
        if let Some(chunk) = self.chunks.get_mut(place.at).filter(|chunk| !chunk.end.is_empty()) {
            chunk.end.clear();
            self.given_up.extend(self.chunks.drain(place.at + 1..));
            self.is_whole = true;
            self.begin_generation(place);
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
