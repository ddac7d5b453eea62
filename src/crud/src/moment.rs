//! One moment of an instance's tables, for scans that take longer than that.
//!
//! The host shows each slice of a scan the rows as they are by then. A `Moment` remembers, of each row that is changed after
//! it began, the tuple that was there before. A `MomentScan` passes over the rows that its moment knows, whatever has
//! become of them, and gives at its end those remembered tuples that it had not given before they changed. So all scans
//! of a moment see the tables as they were when it began, without holding up writers.
//!
//! A row is known by the bytes of its primary key. Where two keys are equal but written differently, such as decimals
//! 1.0 and 1.00, both are remembered.

use crate::chunks::{Chunks, Content, Found, Kept, Place};
use crate::compare::TupleOrder;
use crate::layout::Layout;
use crate::scan::Walk;
use crate::slice::{Ended, SLICE_BYTES_MAX, SLICE_ROWS_MAX, SliceRequest, Slicer, order_of};
use foldhash::{HashMap, HashSet};
use model::{Code, Error, Result, TableId};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// Bytes of tuples and keys that a moment remembers.
pub const BYTES_MAX: usize = 64 << 20;
/// What an entry costs beside its bytes, about.
const ENTRY_BYTES: usize = 96;

type Key = Rc<[u8]>;

/// What the tables were when it began.
#[derive(Debug, Default)]
pub struct Moment {
    tables: HashMap<TableId, Remembered>,
    bytes: usize,
    /// The time at which it began: changes of rows are counted.
    began: u64,
    /// Why it can not be seen any more.
    lost: Option<Error>,
}

/// The rows of one table that have changed since.
#[derive(Debug)]
struct Remembered {
    layout: Arc<Layout>,
    /// The tuple of the moment; None when there was none.
    rows: HashMap<Key, Option<Rc<[u8]>>>,
    scans: Vec<Weak<RefCell<Progress>>>,
}

/// How far a scan is.
#[derive(Debug)]
struct Progress {
    order: TupleOrder,
    /// The last tuple that it gave; empty before the first.
    last: Vec<u8>,
    has_walked: bool,
    /// Rows that it gave before they changed.
    given: HashSet<Key>,
}

impl Progress {
    /// Whether the walk has passed the place of a tuple.
    fn has_passed(&self, tuple: &[u8]) -> bool {
        self.has_walked || (!self.last.is_empty() && self.order.compare(tuple, &self.last).is_le())
    }

    fn set_last(&mut self, tuple: &[u8]) {
        self.last.clear();
        self.last.extend_from_slice(tuple);
    }
}

impl Moment {
    /// A moment that begins at this time.
    pub fn at(began: u64) -> Self {
        Self { began, ..Self::default() }
    }

    /// Remembers changes of this table from now on.
    pub fn watch(&mut self, layout: Arc<Layout>) {
        let id = layout.table.id;
        self.tables.entry(id).or_insert_with(|| Remembered { layout, rows: HashMap::default(), scans: Vec::new() });
    }

    /// Whether rows of the table have changed since it began.
    pub fn has_changes(&self, table: TableId) -> bool {
        self.lost.is_some() || self.tables.get(&table).is_some_and(|remembered| !remembered.rows.is_empty())
    }

    /// A row is about to become another: told of every change of a watched table, before or right after it happens.
    pub fn change(&mut self, table: TableId, old: Option<&[u8]>, new: Option<&[u8]>) {
        let Some(remembered) = self.tables.get_mut(&table).filter(|_| self.lost.is_none()) else { return };
        let mut remember = || -> Result<usize> {
            let mut bytes = 0;
            if let Some(old) = old {
                bytes += remembered.remember(old, true)?;
            }
            if let Some(new) = new {
                bytes += remembered.remember(new, false)?;
            }
            Ok(bytes)
        };
        match remember() {
            Ok(bytes) => self.bytes += bytes,
            Err(error) => self.lose(error),
        }
        if self.bytes > BYTES_MAX {
            let message = format!("more than {} MiB of rows changed while a query read them", BYTES_MAX >> 20);
            self.lose(Error::new(Code::Conflict, message).with_hint("try again, or read fewer rows in one query"));
        }
    }

    /// The moment can not be seen any more: its scans answer `cause` from now on.
    pub fn lose(&mut self, cause: Error) {
        self.lost.get_or_insert(cause);
        self.bytes = 0;
        self.tables.values_mut().for_each(|remembered| remembered.rows = HashMap::default());
    }

    fn check(&self) -> Result<()> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    fn is_known(&self, table: TableId, tuple: &[u8]) -> Result<bool> {
        match self.tables.get(&table) {
            Some(remembered) if !remembered.rows.is_empty() => {
                Ok(remembered.rows.contains_key(remembered.layout.primary_key_of(tuple)?.as_slice()))
            }
            _ => Ok(false),
        }
    }
}

impl Remembered {
    /// Remembers a row at its first change; answers how many bytes that took. `was_there`: the tuple is that of the moment,
    /// otherwise there was none.
    fn remember(&mut self, tuple: &[u8], was_there: bool) -> Result<usize> {
        let key = self.layout.primary_key_of(tuple)?;
        if self.rows.contains_key(key.as_slice()) {
            return Ok(0);
        }
        let key: Key = key.into();
        let mut bytes = ENTRY_BYTES + key.len();
        if was_there {
            bytes += tuple.len();
            self.scans.retain(|scan| scan.strong_count() > 0);
            for scan in self.scans.iter().filter_map(Weak::upgrade) {
                let mut progress = scan.borrow_mut();
                if progress.has_passed(tuple) {
                    progress.given.insert(Rc::clone(&key));
                }
            }
        }
        self.rows.insert(key, was_there.then(|| tuple.into()));
        Ok(bytes)
    }
}

/// How a scan goes by chunks.
#[derive(Debug)]
pub struct Course<'a, C> {
    pub chunks: &'a mut Chunks<C>,
    /// None once it can not go by them any more.
    pub place: &'a mut Option<Place>,
    pub columns: &'a [usize],
    /// The time of the last change of any row.
    pub now: u64,
    /// Whether what it reads may be kept: all that was written so far will stay.
    pub keeps: bool,
}

impl<C: Content> Course<'_, C> {
    fn advance(&mut self) {
        self.place.iter_mut().for_each(Place::advance);
    }

    fn cut(&mut self) {
        self.place.iter_mut().for_each(|place| self.chunks.cut(place));
    }

    fn end_here(&mut self) {
        self.place.iter_mut().for_each(|place| self.chunks.end_at(place));
    }

    fn fill(&mut self, rows: usize) -> Option<C> {
        self.place.and_then(|place| self.chunks.fill(place, rows, self.keeps))
    }
}

/// The last tuple of a slice; empty when it has none.
fn last_of<'a>(bytes: &'a [u8], ends: &[u32]) -> &'a [u8] {
    let Some((_, before)) = ends.split_last() else { return &[] };
    &bytes[before.last().map_or(0, |end| *end as usize)..]
}

/// A scan at a moment.
#[derive(Debug)]
pub struct MomentScan {
    slicer: Slicer,
    table: TableId,
    moment: Rc<RefCell<Moment>>,
    progress: Rc<RefCell<Progress>>,
    /// Walking may yield, so that rows change in the middle of a slice.
    yields: bool,
    /// What comes after the walk.
    remembered: Option<std::vec::IntoIter<Rc<[u8]>>>,
}

impl MomentScan {
    /// Errors: `NoSuchIndex`.
    pub fn new(moment: Rc<RefCell<Moment>>, request: SliceRequest, yields: bool) -> Result<Self> {
        let order = order_of(&request.layout, request.index, request.descending)?;
        let progress = Progress { order, last: Vec::new(), has_walked: false, given: HashSet::default() };
        let (table, progress) = (request.layout.table.id, Rc::new(RefCell::new(progress)));
        {
            let mut moment = moment.borrow_mut();
            moment.watch(Arc::clone(&request.layout));
            if let Some(remembered) = moment.tables.get_mut(&table) {
                remembered.scans.push(Rc::downgrade(&progress));
            }
        }
        Ok(Self { slicer: Slicer::new(request), table, moment, progress, yields, remembered: None })
    }

    /// Appends the next slice to `bytes`, and where each of its tuples ends to `ends`. A slice may be empty; answers false
    /// when there are no more.
    ///
    /// Errors: what the host says; `Conflict`, or why else the moment was lost.
    pub fn next(&mut self, walk: &mut impl Walk, bytes: &mut Vec<u8>, ends: &mut Vec<u32>) -> Result<bool> {
        if self.remembered.is_none() {
            let (ended, _) = self.walk(walk, bytes, ends)?;
            self.moment.borrow().check()?;
            if ended != Ended::AtEnd {
                return Ok(true);
            }
            self.remembered = Some(self.not_given()?.into_iter());
        }
        self.moment.borrow().check()?;
        Ok(self.give_remembered(bytes, ends))
    }

    /// The same with slices of so many rows instead of `SLICE_ROWS_MAX`.
    pub fn of_slices(mut self, rows: usize) -> Self {
        self.slicer.slice_rows = rows;
        self
    }

    /// Whether it may go by chunks: it reads everything there is, without yielding.
    pub fn is_full(&self) -> bool {
        !self.yields && self.slicer.is_full()
    }

    /// As `next`, by way of chunks, of a scan that `is_full`: takes what is kept of them where it can, and leaves in them
    /// what it reads.
    pub fn next_by_chunks<C: Content>(
        &mut self,
        walk: &mut impl Walk,
        mut course: Course<'_, C>,
        bytes: &mut Vec<u8>,
        ends: &mut Vec<u32>,
    ) -> Result<(bool, Option<Kept<C>>)> {
        self.moment.borrow().check()?;
        let began = self.moment.borrow().began;
        let (Some(place), false) = (*course.place, self.has_walked()) else {
            return Ok((self.next(walk, bytes, ends)?, None));
        };
        let kept = match course.chunks.find(place, began) {
            Found::Chunk { end, content: Some(content) } if content.has(course.columns) => {
                let content = content.clone();
                self.pass_over(end)?;
                course.advance();
                Some(Kept { content, is_complete: true })
            }
            Found::Chunk { end, .. } => {
                let end = end.to_vec();
                self.read_chunk(walk, &mut course, &end, bytes, ends)?
            }
            Found::Unread => {
                let (_, passed) = self.walk(walk, bytes, ends)?;
                self.make_chunk(&mut course, passed, bytes, ends)?
            }
            Found::AtEnd => {
                self.pass_over(&[])?;
                None
            }
            Found::Lost => {
                *course.place = None;
                return Ok((self.next(walk, bytes, ends)?, None));
            }
        };
        if !self.has_walked() {
            return Ok((true, kept));
        }
        let remembered = self.not_given()?;
        let has_more = !remembered.is_empty();
        self.remembered = Some(remembered.into_iter());
        Ok((has_more, kept))
    }

    /// Reads the rows of a chunk that is known, and keeps them when all of them are as they are now.
    fn read_chunk<C: Content>(
        &mut self,
        walk: &mut impl Walk,
        course: &mut Course<'_, C>,
        end: &[u8],
        bytes: &mut Vec<u8>,
        ends: &mut Vec<u32>,
    ) -> Result<Option<Kept<C>>> {
        let chunks = &*course.chunks;
        let (ended, passed) = self.walk_until(walk, |tuple| chunks.is_behind(tuple, end), bytes, ends)?;
        match ended {
            Ended::Full => {
                course.cut();
                return self.make_chunk(course, passed, bytes, ends);
            }
            Ended::Reached => self.pass_over(end)?,
            Ended::AtEnd => {
                course.end_here();
                self.pass_over(&[])?;
            }
        }
        let content = if passed == 0 { course.fill(ends.len()) } else { None };
        course.advance();
        Ok(content.map(|content| Kept { content, is_complete: false }))
    }

    /// Makes a chunk, the last one, of a slice that was just read.
    fn make_chunk<C: Content>(
        &mut self,
        course: &mut Course<'_, C>,
        passed: usize,
        bytes: &[u8],
        ends: &[u32],
    ) -> Result<Option<Kept<C>>> {
        let end = if self.has_walked() { &[][..] } else { last_of(bytes, ends) };
        if end.is_empty() && !self.has_walked() {
            // A slice of rows that nobody wants: what becomes of them until the next is not known.
            *course.place = None;
            return Ok(None);
        }
        // From the chunk's end, not from where the walk has come to: rows may be put in between.
        self.pass_over(end)?;
        let content = (passed == 0 && course.keeps).then(|| C::of_rows(ends.len()));
        course.chunks.push(end, content.clone(), course.now)?;
        course.advance();
        Ok(content.map(|content| Kept { content, is_complete: false }))
    }

    fn has_walked(&self) -> bool {
        self.progress.borrow().has_walked
    }

    /// All rows up to a tuple were given, or need not be; empty for all there are.
    fn pass_over(&mut self, end: &[u8]) -> Result<()> {
        let mut progress = self.progress.borrow_mut();
        if end.is_empty() {
            progress.has_walked = true;
            self.slicer.finish();
            return Ok(());
        }
        progress.set_last(end);
        self.slicer.go_on_behind(end)
    }

    fn walk(&mut self, walk: &mut impl Walk, bytes: &mut Vec<u8>, ends: &mut Vec<u32>) -> Result<(Ended, usize)> {
        self.read(bytes, ends, |slicer, is_wanted, bytes, ends| {
            let has_more = slicer.next(walk, is_wanted, bytes, ends)?;
            Ok(if has_more { Ended::Full } else { Ended::AtEnd })
        })
    }

    fn walk_until(
        &mut self,
        walk: &mut impl Walk,
        is_beyond: impl Fn(&[u8]) -> bool,
        bytes: &mut Vec<u8>,
        ends: &mut Vec<u32>,
    ) -> Result<(Ended, usize)> {
        self.read(bytes, ends, |slicer, is_wanted, bytes, ends| {
            slicer.next_until(walk, is_wanted, is_beyond, bytes, ends)
        })
    }

    /// Reads a slice, and answers how it ended and how many of its tuples are not those of the moment.
    fn read(
        &mut self,
        bytes: &mut Vec<u8>,
        ends: &mut Vec<u32>,
        slice: impl FnOnce(&mut Slicer, &dyn Fn(&[u8]) -> Result<bool>, &mut Vec<u8>, &mut Vec<u32>) -> Result<Ended>,
    ) -> Result<(Ended, usize)> {
        let (moment, progress, table, yields) = (&self.moment, &self.progress, self.table, self.yields);
        let passed = Cell::new(0);
        let is_wanted = |tuple: &[u8]| -> Result<bool> {
            if moment.borrow().is_known(table, tuple)? {
                passed.set(passed.get() + 1);
                return Ok(false);
            }
            if yields {
                progress.borrow_mut().set_last(tuple);
            }
            Ok(true)
        };
        let ended = slice(&mut self.slicer, &is_wanted, bytes, ends)?;
        let mut progress = self.progress.borrow_mut();
        progress.has_walked = ended == Ended::AtEnd;
        if !ends.is_empty() {
            progress.set_last(last_of(bytes, ends));
        }
        Ok((ended, passed.get()))
    }

    /// The tuples of the moment that the walk did not come across.
    fn not_given(&self) -> Result<Vec<Rc<[u8]>>> {
        let (moment, progress) = (self.moment.borrow(), self.progress.borrow());
        let mut tuples = Vec::new();
        for (key, tuple) in moment.tables.get(&self.table).iter().flat_map(|remembered| &remembered.rows) {
            if let Some(tuple) = tuple
                && !progress.given.contains(key)
                && self.slicer.covers(tuple)?
            {
                tuples.push(Rc::clone(tuple));
            }
        }
        Ok(tuples)
    }

    fn give_remembered(&mut self, bytes: &mut Vec<u8>, ends: &mut Vec<u32>) -> bool {
        let Some(remembered) = &mut self.remembered else { return false };
        while ends.len() < SLICE_ROWS_MAX && bytes.len() < SLICE_BYTES_MAX && self.slicer.takes_more() {
            let Some(tuple) = remembered.next() else { return false };
            bytes.extend_from_slice(&tuple);
            ends.push(bytes.len() as u32);
            self.slicer.count_row();
        }
        self.slicer.takes_more() && remembered.len() > 0
    }
}
