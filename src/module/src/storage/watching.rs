//! Who is told of every row that becomes another on this instance, whoever writes it: the moments of running queries
//! (`moments`) and the columnar copies (`columns`).
//!
//! A trigger of the host is on a table only as long as somebody wants to be told, so writes pay for it only then. All of it
//! runs on the tx thread.

use super::{columns, moments};
use crate::host::lua as host_lua;
use crate::host::{Transaction, Tuple, fiber, guard, inbox, txn};
use crate::raft::disk;
use crate::start::lua;
use model::msgpack::{Reader, write_array_len, write_uint};
use model::{Result, TableId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_int;
use tlua::ffi::lua_State;

/// The note that is written only for its place in the log.
const MARK: &str = "settled";

thread_local! {
    /// How many want to be told of each table.
    static HOLDERS: RefCell<HashMap<TableId, usize>> = RefCell::default();
    /// Counts the changes of rows that somebody was told of.
    static CLOCK: Cell<u64> = const { Cell::new(1) };
    /// The time of the last change whose outcome nobody tells, and of the last one whose outcome is known all the same.
    static UNSETTLED: Cell<u64> = const { Cell::new(0) };
    static SETTLED: Cell<u64> = const { Cell::new(0) };
    static IS_SETTLING: Cell<bool> = const { Cell::new(false) };
}

/// The time of the last change of any row.
pub fn now() -> u64 {
    CLOCK.get()
}

/// The changes of this table are told from now on, until `release`.
///
/// Errors: what the host says.
pub fn hold(table: TableId) -> Result<()> {
    if HOLDERS.with_borrow(|holders| !holders.contains_key(&table)) {
        set_trigger("watch_rows", table)?;
    }
    HOLDERS.with_borrow_mut(|holders| *holders.entry(table).or_default() += 1);
    Ok(())
}

/// Not inside the trigger.
pub fn release(table: TableId) {
    let is_last = HOLDERS.with_borrow_mut(|holders| {
        let Some(count) = holders.get_mut(&table) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            holders.remove(&table);
        }
        is_last
    });
    if is_last && let Err(error) = set_trigger("unwatch_rows", table) {
        log::warn!("the trigger on table {table} could not be removed: {error}");
    }
}

fn set_trigger(function: &str, table: TableId) -> Result<()> {
    let mut args = Vec::new();
    write_array_len(&mut args, 1);
    write_uint(&mut args, table.into());
    lua::call(function, &args).map(drop)
}

/// Whether what is in memory stays, or will be told to `lose`. It is not known of what somebody else's transaction wrote until the log
/// has taken it or not: the host takes it back without a word.
pub fn is_settled() -> bool {
    SETTLED.get() >= UNSETTLED.get()
}

/// Changes of somebody else's may be under way.
pub fn unsettle() {
    UNSETTLED.set(CLOCK.get());
    settle_soon();
}

/// Finds out what became of them, if nobody does so already: the log is written in turn, so whatever was written before a
/// transaction of our own is decided when that is.
pub fn settle_soon() {
    if is_settled() || IS_SETTLING.replace(true) {
        return;
    }
    // A trigger must not yield.
    let is_posted = inbox::post(|| {
        let settle = || {
            if let Err(error) = settle() {
                log::debug!("what others wrote is not known to be in the log: {error}");
            }
            IS_SETTLING.set(false);
        };
        if fiber::spawn("pico_settle", settle).is_err() {
            IS_SETTLING.set(false);
        }
    });
    if !is_posted {
        IS_SETTLING.set(false);
    }
}

fn settle() -> Result<()> {
    while !is_settled() {
        let until = UNSETTLED.get();
        let transaction = Transaction::begin()?;
        disk::write_mark(MARK, until)?;
        // Also when the log does not take it.
        let _ = transaction.commit();
        SETTLED.set(until);
    }
    Ok(())
}

/// The rows of a table went all at once, or changes were taken back without a word; None when it is not known of which table.
pub fn lose(table: Option<TableId>) {
    CLOCK.set(CLOCK.get() + 1);
    moments::lose(table);
    columns::lose(table);
}

fn changed(table: TableId, old: Option<&Tuple>, new: Option<&Tuple>) -> Result<()> {
    let now = CLOCK.get() + 1;
    CLOCK.set(now);
    let (old, new) = (old.map(Tuple::to_vec), new.map(Tuple::to_vec));
    if txn::is_foreign() {
        unsettle();
    }
    columns::change(table, old.as_deref(), new.as_deref(), now);
    moments::change(table, old.as_deref(), new.as_deref())
}

/// `core.row_changed(table, old, new)`, called by the host's triggers. Never raises: the write is not to fail for it.
///
/// # Safety
/// Called by Lua only, on the tx thread.
pub unsafe extern "C-unwind" fn row_changed(l: *mut lua_State) -> c_int {
    // SAFETY: the state is the one that the host passed in; the tuples stay on its stack until this function returns.
    let (table, old, new) = unsafe { (host_lua::uint_arg(l, 1), host_lua::tuple_arg(l, 2), host_lua::tuple_arg(l, 3)) };
    let told = guard::contain(|| {
        let table = table.and_then(|table| TableId::try_from(table).ok());
        table.map_or(Ok(()), |table| changed(table, old.as_ref(), new.as_ref()))
    });
    if let Err(error) = told {
        log::error!("a running query was not told of a change: {error}");
        lose(None);
    }
    0
}

/// `core.space_truncated(old, new)`, called by the host's trigger on its list of truncations.
///
/// # Safety
/// As `row_changed`.
pub unsafe extern "C-unwind" fn space_truncated(l: *mut lua_State) -> c_int {
    // SAFETY: as above.
    let tuple = unsafe { host_lua::tuple_arg(l, 2) };
    let told = guard::contain(|| {
        let Some(bytes) = tuple.as_ref().map(Tuple::to_vec) else { return Ok(()) };
        let mut reader = Reader::new(&bytes);
        reader.array_len()?;
        lose(TableId::try_from(reader.uint()?).ok());
        unsettle();
        Ok(())
    });
    if let Err(error) = told {
        log::error!("running queries were not told of a truncation: {error}");
        lose(None);
    }
    0
}
