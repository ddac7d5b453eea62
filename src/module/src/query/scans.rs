//! Scans of this instance's storage for worker threads: the cursors stay on the tx thread, a worker holds their number.
//!
//! The first slice is read as the scan is opened. If that is all, and no other scan shares its moment, nobody has to be
//! told of changes; otherwise the moment is watched from then on.

use crate::bridge;
use crate::host::inbox;
use crate::storage::{self, moments, scan::ScanCursor};
use async_trait::async_trait;
use crud::moment::Moment;
use model::{Engine, Error, Result};
use sql::cluster::{self, Scan, ScanRequest, TupleBatch};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

thread_local! {
    /// Cursors by number; None while one is being read.
    static CURSORS: RefCell<HashMap<u64, Option<ScanCursor>>> = RefCell::default();
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// Opens a scan. Called on a worker thread.
pub async fn open(request: ScanRequest, moment: Arc<cluster::Moment>) -> Result<Box<dyn Scan>> {
    let yields = request.table.engine == Engine::Vinyl;
    let of = Arc::clone(&moment);
    let (first, kept) = match yields {
        // Reading may wait for the disk, and rows change meanwhile.
        true => bridge::on_tx(move || open_watched(&request, &of).map(|kept| (None, Some(kept)))).await?,
        false => bridge::on_tx(move || open_and_read(&request, &of)).await?,
    };
    Ok(Box::new(OpenScan { kept, first, yields, _moment: moment }))
}

/// How many scans are open here.
pub fn count() -> usize {
    CURSORS.with_borrow(HashMap::len)
}

/// The number of a cursor. Dropping it closes the cursor, on whatever thread that is: the worker that asked for a scan may
/// have lost interest while it was opened, and then nobody else knows of it.
struct Kept(u64);

impl Drop for Kept {
    fn drop(&mut self) {
        let number = self.0;
        inbox::post(move || close(number));
    }
}

fn keep(cursor: ScanCursor) -> Kept {
    let number = LAST.get() + 1;
    LAST.set(number);
    CURSORS.with_borrow_mut(|cursors| cursors.insert(number, Some(cursor)));
    Kept(number)
}

/// The moment as it is watched by now.
fn watch(moment: &cluster::Moment) -> Result<Rc<RefCell<Moment>>> {
    if let Some(watched) = moments::watched(moment.number) {
        return Ok(watched);
    }
    let fresh = moments::fresh();
    moments::watch(storage::get()?, moment.number, &fresh, &moment.tables)?;
    Ok(fresh)
}

fn open_watched(request: &ScanRequest, moment: &cluster::Moment) -> Result<Kept> {
    let watched = watch(moment)?;
    storage::get()?.open_scan(request, watched).map(keep)
}

/// Opens a scan of a table that does not yield, and reads its first slice. The number is None when that was all.
fn open_and_read(request: &ScanRequest, moment: &cluster::Moment) -> Result<(Option<TupleBatch>, Option<Kept>)> {
    let storage = storage::get()?;
    let known = moments::watched(moment.number);
    let own = known.clone().unwrap_or_else(moments::fresh);
    let mut cursor = storage.open_scan(request, Rc::clone(&own))?;
    let (slice, has_more) = cursor.next_slice()?;
    if known.is_none() && (has_more || moment.scans > 1) {
        moments::watch(storage, moment.number, &own, &moment.tables)?;
    }
    Ok((Some(slice), has_more.then(|| keep(cursor))))
}

/// Ends a moment, from any thread.
pub fn end_moment(number: u64) {
    inbox::post(move || moments::end(number));
}

struct OpenScan {
    /// None when all is read.
    kept: Option<Kept>,
    /// A slice that is read already.
    first: Option<TupleBatch>,
    /// Reading it may wait for the disk.
    yields: bool,
    _moment: Arc<cluster::Moment>,
}

#[async_trait]
impl Scan for OpenScan {
    async fn next(&mut self) -> Result<Option<TupleBatch>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(number) = self.kept.as_ref().map(|kept| kept.0) else { return Ok(None) };
        let read = move || read(number);
        let answer = if self.yields { bridge::on_tx_fiber(read).await } else { bridge::on_tx(read).await };
        match answer {
            Ok((slice, has_more)) => {
                if !has_more {
                    self.kept = None;
                }
                Ok(Some(slice))
            }
            Err(error) => {
                self.kept = None;
                Err(error)
            }
        }
    }
}

/// The next slice, and whether there may be more; a cursor that has no more, or failed, is closed.
fn read(number: u64) -> Result<(TupleBatch, bool)> {
    let cursor = CURSORS.with_borrow_mut(|cursors| cursors.get_mut(&number).and_then(Option::take));
    let mut cursor = cursor.ok_or_else(|| Error::internal("a scan was read after it was closed"))?;
    let answer = cursor.next_slice();
    match answer {
        // The place is gone when the scan was closed meanwhile.
        Ok((_, true)) => CURSORS.with_borrow_mut(|cursors| {
            if let Some(place) = cursors.get_mut(&number) {
                *place = Some(cursor);
            }
        }),
        _ => close(number),
    }
    answer
}

fn close(number: u64) {
    let closed = CURSORS.with_borrow_mut(|cursors| cursors.remove(&number));
    drop(closed);
}
