//! Scans of this instance's storage for worker threads: the cursors stay on the tx thread, a worker holds their number.

use crate::bridge;
use crate::host::inbox;
use crate::storage::{self, scan::ScanCursor};
use async_trait::async_trait;
use model::{Engine, Error, Result};
use sql::cluster::{Scan, ScanRequest, TupleBatch};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

thread_local! {
    /// Cursors by number; one that is being read is out of the table for so long.
    static CURSORS: RefCell<HashMap<u64, ScanCursor>> = RefCell::default();
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// Opens a scan. Called on a worker thread.
pub async fn open(request: ScanRequest) -> Result<Box<dyn Scan>> {
    let yields = request.table.engine == Engine::Vinyl;
    let number = bridge::on_tx(move || {
        let cursor = storage::get()?.open_scan(&request)?;
        let number = LAST.get() + 1;
        LAST.set(number);
        CURSORS.with_borrow_mut(|cursors| cursors.insert(number, cursor));
        Ok(number)
    })
    .await?;
    Ok(Box::new(OpenScan { number, yields, is_done: false }))
}

struct OpenScan {
    number: u64,
    /// Reading it may wait for the disk.
    yields: bool,
    is_done: bool,
}

#[async_trait]
impl Scan for OpenScan {
    async fn next(&mut self) -> Result<Option<TupleBatch>> {
        if self.is_done {
            return Ok(None);
        }
        let number = self.number;
        let read = move || read(number);
        let batch = if self.yields { bridge::on_tx_fiber(read).await } else { bridge::on_tx(read).await };
        self.is_done = !matches!(batch, Ok(Some(_)));
        batch
    }
}

/// The next slice; a cursor that has none left, or failed, is closed.
fn read(number: u64) -> Result<Option<TupleBatch>> {
    let cursor = CURSORS.with_borrow_mut(|cursors| cursors.remove(&number));
    let mut cursor = cursor.ok_or_else(|| Error::internal("a scan was read after it was closed"))?;
    let batch = cursor.next_slice()?;
    if batch.is_some() {
        CURSORS.with_borrow_mut(|cursors| cursors.insert(number, cursor));
    }
    Ok(batch)
}

impl Drop for OpenScan {
    fn drop(&mut self) {
        let number = self.number;
        if !self.is_done {
            inbox::post(move || CURSORS.with_borrow_mut(|cursors| drop(cursors.remove(&number))));
        }
    }
}
