//! The functions of the host that this room calls and the `tarantool` crate does not declare, or declares through a
//! lookup that is too slow for a hot path. All of them are exported by `/usr/bin/tarantool` 2.6.0.
//!
//! None of them may be called from another thread than tx.

use std::ffi::{c_char, c_int, c_void};
use tarantool::ffi::tarantool::BoxTuple;

/// A savepoint of the running transaction; owned by the transaction.
#[repr(C)]
pub struct TxnSavepoint {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    /// Parks the running fiber; answers true when `timeout` seconds passed before anybody woke it.
    pub fn fiber_yield_timeout(timeout: f64) -> bool;
    /// Puts the running fiber behind all that are ready to run in this loop turn.
    pub fn fiber_reschedule();

    /// The number of the running fiber's transaction; -1 outside one.
    pub fn box_txn_id() -> i64;
    pub fn box_txn_savepoint() -> *mut TxnSavepoint;
    pub fn box_txn_rollback_to_savepoint(savepoint: *mut TxnSavepoint) -> c_int;

    pub fn box_index_iterator(
        space_id: u32,
        index_id: u32,
        kind: c_int,
        key: *const c_char,
        key_end: *const c_char,
    ) -> *mut c_void;
    pub fn box_iterator_next(iterator: *mut c_void, result: *mut *mut BoxTuple) -> c_int;
    pub fn box_iterator_free(iterator: *mut c_void);
    pub fn box_is_ro() -> bool;

    /// This instance's vector clock.
    pub static box_vclock: *const c_void;
    /// This instance's number in its replicaset.
    pub static instance_id: u32;
    /// A member of the replicaset by its number, which has to be below 32; null when there is none.
    pub fn replica_by_id(id: u32) -> *const c_void;
    pub fn relay_get_state(relay: *const c_void) -> c_int;
    pub fn relay_vclock(relay: *const c_void) -> *const c_void;
    pub static ev_default_loop_ptr: *mut c_void;
    pub fn ev_prepare_start(event_loop: *mut c_void, watcher: *mut c_void);
}
