//! A transaction as a guard: what is not committed is rolled back when it goes out of scope.
//!
//! memtx undoes a transaction as soon as its fiber yields, so nothing inside one may wait; `commit` itself does.

use super::error;
use super::ffi::{self as own, TxnSavepoint};
use model::{Code, Error, Result};
use std::cell::Cell;
use std::marker::PhantomData;
use tarantool::ffi::tarantool as ffi;

/// A running transaction of the running fiber.
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction {
    _not_send: PhantomData<*mut ()>,
}

thread_local! {
    static ON_FAILED_COMMIT: Cell<fn()> = const { Cell::new(|| ()) };
    /// The last transaction that began here.
    static OURS: Cell<i64> = const { Cell::new(-1) };
}

/// Has `told` called whenever the log did not take a transaction, whose changes are gone by then.
pub fn on_failed_commit(told: fn()) {
    ON_FAILED_COMMIT.set(told);
}

/// Whether the running fiber is in a transaction that is not a `Transaction`. Of vinyl's, which yield before they are
/// committed, it may say so wrongly.
pub fn is_foreign() -> bool {
    // SAFETY: reads a field of the running fiber.
    unsafe { own::box_txn_id() != OURS.get() }
}

impl Transaction {
    /// Errors: `Internal` when the fiber is in a transaction already.
    pub fn begin() -> Result<Transaction> {
        // SAFETY: called on a fiber of the tx thread, after box.cfg.
        match unsafe { ffi::box_txn_begin() } {
            0 => {
                // SAFETY: reads a field of the running fiber.
                OURS.set(unsafe { own::box_txn_id() });
                Ok(Transaction { _not_send: PhantomData })
            }
            _ => Err(error::last()),
        }
    }

    /// Writes the WAL; yields. After an error nothing of the transaction remains.
    pub fn commit(self) -> Result<()> {
        std::mem::forget(self);
        // SAFETY: as above; the host ends the transaction in either case.
        match unsafe { ffi::box_txn_commit() } {
            0 => Ok(()),
            _ => {
                let error = error::last();
                ON_FAILED_COMMIT.get()();
                Err(error)
            }
        }
    }

    /// Undoes everything. The same as dropping, where that would read oddly.
    pub fn rollback(self) {}
}

/// A point in the running fiber's transaction, for code that is called inside one which somebody else began. It knows its
/// transaction by number, so that it is safe to keep for too long.
#[derive(Clone, Copy)]
pub struct Bookmark {
    point: *mut TxnSavepoint,
    transaction: i64,
}

impl Bookmark {
    /// Errors: `Internal` outside a transaction.
    pub fn new() -> Result<Bookmark> {
        // SAFETY: called on a fiber of the tx thread; null is checked.
        let (transaction, point) = unsafe { (own::box_txn_id(), own::box_txn_savepoint()) };
        if point.is_null() { Err(error::last()) } else { Ok(Bookmark { point, transaction }) }
    }

    /// Undoes what the transaction did since.
    ///
    /// Errors: `Internal` when the transaction is over.
    pub fn rollback(self) -> Result<()> {
        // SAFETY: reads a field of the running fiber.
        if unsafe { own::box_txn_id() } != self.transaction {
            return Err(Error::new(Code::Internal, "the transaction ended before its savepoint was used"));
        }
        // SAFETY: the point belongs to the transaction that is still active.
        match unsafe { own::box_txn_rollback_to_savepoint(self.point) } {
            0 => Ok(()),
            _ => Err(error::last()),
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // SAFETY: without a transaction this does nothing. It fails only inside a trigger, where we never begin one.
        unsafe { ffi::box_txn_rollback() };
    }
}
