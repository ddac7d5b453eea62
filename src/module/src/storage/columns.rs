//! The columnar copy: columns of tables that are read whole again and again, in the engine's form, as long as the rows that
//! they are of do not change.
//!
//! A copy begins with the second full scan of a table that has more rows than a slice; scans fill it with the columns that
//! they decode, and take them from it afterwards without looking at a row (`crud::chunks`). A write lets go the columns of some
//! thousand rows around it. A copy that is written to much more than it is read goes, so that tables which are only written to
//! do not pay for it; so do copies that nobody has read for long, when there is no room for others.

use super::watching;
use crate::bridge;
use crate::host::{Space, inbox};
use catalog::{Setting, State};
use crud::Layout;
use crud::chunks::{Chunks, Content, Kept, Place};
use crud::moment::{Course, MomentScan};
use crud::scan::Walk;
use crud::slice::SLICE_ROWS_MAX;
use model::{Result, TableId};
use sharding::BucketRange;
use sql::cluster::{Columnar, TupleBatch};
use sql::columns::{Budget, Columns};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// A copy may be written to so often between two scans, and so often more for each of its chunks.
const WRITES_MAX: usize = 1_024;
const WRITES_A_CHUNK_MAX: usize = 512;
/// A copy that so many scans of others have passed by makes room when there is none.
const SCANS_UNUSED_MAX: u64 = 256;
/// A copy of other buckets than those that are read now stays for so many scans.
const SCANS_ELSEWHERE_MAX: u64 = 16;

static BUDGET: LazyLock<Arc<Budget>> = LazyLock::new(Arc::default);

thread_local! {
    static COPIES: RefCell<Copies> = RefCell::default();
}

#[derive(Default)]
struct Copies {
    by_table: HashMap<TableId, Copy>,
    /// The definitions of tables that were read whole at least once.
    were_read: HashMap<TableId, u64>,
    /// Counts the full scans.
    scans: u64,
}

struct Copy {
    chunks: Chunks<Columned>,
    /// The last scan that read it.
    used: u64,
    /// Writes since then.
    writes: usize,
    /// It is about to be let go.
    is_going: bool,
}

/// What is kept of a chunk.
#[derive(Clone)]
struct Columned(Arc<Columns>);

impl Content for Columned {
    fn of_rows(rows: usize) -> Self {
        Self(Arc::new(Columns::new(rows, Arc::clone(&BUDGET))))
    }

    fn has(&self, columns: &[usize]) -> bool {
        self.0.has(columns)
    }
}

/// Bytes of all columns that are kept on this instance.
pub fn bytes() -> usize {
    BUDGET.used()
}

/// Takes over the setting, and lets go the copies of all tables but those that are read here, which have a version.
pub fn install(state: &State, version: impl Fn(TableId) -> Option<u64>) {
    BUDGET.set_max(state.settings.count(Setting::SqlColumnarMaxMb) << 20);
    let gone = COPIES.with_borrow_mut(|copies| {
        copies.were_read.retain(|table, read| version(*table) == Some(*read));
        let is_too_much = BUDGET.used() > BUDGET.max();
        copies.take(|table, copy| is_too_much || version(table) != Some(copy.chunks.version()))
    });
    let_go(gone);
}

/// Ends copies that were taken out. Not inside the trigger.
fn let_go(copies: Vec<(TableId, Copy)>) {
    copies.iter().for_each(|(table, _)| watching::release(*table));
    discard(copies);
}

/// Gives memory back on a worker thread: there may be many pieces.
fn discard<T: Send + 'static>(memory: Vec<T>) {
    if !memory.is_empty() {
        // Where there are no worker threads, the error drops it here.
        let _ = bridge::spawn(async move { drop(memory) });
    }
}

/// Where a full scan of a table begins in its copy; None when it has none.
///
/// Errors: what the host says.
pub fn begin(layout: &Arc<Layout>, buckets: &[BucketRange]) -> Result<Option<Place>> {
    let table = layout.table.id;
    if BUDGET.max() == 0 || Space(table).len(0)? <= SLICE_ROWS_MAX {
        return Ok(None);
    }
    let (place, gone) = COPIES.with_borrow_mut(|copies| copies.begin(layout, buckets));
    let_go(gone);
    if place.is_some() || !COPIES.with_borrow_mut(|copies| copies.wants(layout)) {
        return Ok(place);
    }
    let chunks = Chunks::new(Arc::clone(layout), buckets.to_vec())?;
    if let Err(error) = watching::hold(table) {
        log::warn!("table {table} gets no columnar copy: {error}");
        return Ok(None);
    }
    // Something may be on its way to the log since before.
    watching::unsettle();
    let copy = Copy { chunks, used: 0, writes: 0, is_going: false };
    Ok(COPIES.with_borrow_mut(|copies| {
        copies.by_table.insert(table, copy);
        copies.begin(layout, buckets).0
    }))
}

impl Copies {
    /// Takes out copies.
    fn take(&mut self, is_wanted: impl Fn(TableId, &Copy) -> bool) -> Vec<(TableId, Copy)> {
        self.by_table.extract_if(|table, copy| is_wanted(*table, copy)).collect()
    }

    /// The place at the beginning of the copy, if there is one of these buckets; and copies that have to go.
    fn begin(&mut self, layout: &Layout, buckets: &[BucketRange]) -> (Option<Place>, Vec<(TableId, Copy)>) {
        self.scans += 1;
        let (now, table) = (self.scans, layout.table.id);
        match self.by_table.get_mut(&table) {
            Some(copy) if copy.chunks.are_of(layout, buckets) => {
                watching::settle_soon();
                (copy.used, copy.writes) = (now, 0);
                return (Some(copy.chunks.start()), Vec::new());
            }
            _ => {}
        }
        let is_full = BUDGET.used() > BUDGET.max() / 10 * 9;
        let gone = self.take(|of, copy| {
            let unused = now - copy.used;
            unused > SCANS_UNUSED_MAX && is_full || of == table && unused > SCANS_ELSEWHERE_MAX
        });
        (None, gone)
    }

    /// Whether a table that has no copy of the buckets that are read is to have one.
    fn wants(&mut self, layout: &Layout) -> bool {
        let (table, version) = (layout.table.id, layout.table.version);
        !self.by_table.contains_key(&table) && self.were_read.insert(table, version) == Some(version)
    }
}

/// The next slice of a full scan, by way of the table's copy. Once it can not go on there, the place becomes None.
///
/// Errors: as `MomentScan::next`.
pub fn next_slice(
    table: TableId,
    place: &mut Option<Place>,
    columns: &[usize],
    scan: &mut MomentScan,
    walk: &mut impl Walk,
    batch: &mut TupleBatch,
) -> Result<bool> {
    COPIES.with_borrow_mut(|copies| {
        let Some(copy) = copies.by_table.get_mut(&table) else {
            *place = None;
            return scan.next(walk, &mut batch.bytes, &mut batch.ends);
        };
        let (now, keeps) = (watching::now(), watching::is_settled());
        let course = Course { chunks: &mut copy.chunks, place, columns, now, keeps };
        let (has_more, kept) = scan.next_by_chunks(walk, course, &mut batch.bytes, &mut batch.ends)?;
        discard(copy.chunks.take_given_up());
        batch.columnar = kept.map(|Kept { content: Columned(columns), is_complete }| match is_complete {
            true => Columnar::Whole(columns),
            false => Columnar::ToFill(columns),
        });
        Ok(has_more)
    })
}

/// A row of a table becomes another, at this time.
pub fn change(table: TableId, old: Option<&[u8]>, new: Option<&[u8]>, now: u64) {
    let is_too_much = COPIES.with_borrow_mut(|copies| {
        let Some(copy) = copies.by_table.get_mut(&table) else { return false };
        // Both have the same primary key.
        old.or(new).into_iter().for_each(|tuple| copy.chunks.change(tuple, now));
        copy.writes += 1;
        !copy.is_going && copy.writes >= WRITES_MAX + copy.chunks.count() * WRITES_A_CHUNK_MAX
    });
    if is_too_much {
        // The trigger can not be taken away while it runs.
        let is_going = inbox::post(move || {
            let_go(COPIES.with_borrow_mut(|copies| {
                copies.were_read.remove(&table);
                copies.take(|of, _| of == table)
            }));
        });
        COPIES.with_borrow_mut(|copies| {
            if let Some(copy) = copies.by_table.get_mut(&table) {
                copy.is_going = is_going;
            }
        });
    }
}

/// Rows went or came back without a word.
pub fn lose(table: Option<TableId>) {
    COPIES.with_borrow_mut(|copies| {
        let lost = copies.by_table.iter_mut().filter(|(of, _)| table.is_none_or(|table| table == **of));
        discard(lost.map(|(_, copy)| copy.chunks.renew()).collect());
    });
}
