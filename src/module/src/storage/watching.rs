//! Who is told of every row that becomes another on this instance, whoever writes it: the moments of running queries
//! (`moments`) and the columnar copies (`columns`).
//!
//! A trigger of the host is on a table only as long as somebody wants to be told, so writes pay for it only then. All of it
//! runs on the tx thread.

use super::{columns, moments};
use crate::host::lua as host_lua;
use crate::host::{Tuple, guard, txn};
use crate::start::lua;
use model::msgpack::{write_array_len, write_uint};
use model::{Result, TableId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_int;
use tarantool::ffi::lua as ffi;
use tlua::ffi::lua_State;

thread_local! {
    /// How many want to be told of each table.
    static HOLDERS: RefCell<HashMap<TableId, usize>> = RefCell::default();
    /// Counts the changes of rows that somebody was told of.
    static CLOCK: Cell<u64> = const { Cell::new(1) };
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

/// The rows of a table went all at once, or changes were taken back without a word: None when it is not known of which table.
pub fn lose(table: Option<TableId>) {
    CLOCK.set(CLOCK.get() + 1);
    moments::lose(table);
    columns::lose(table);
}

fn changed(table: TableId, old: Option<&Tuple>, new: Option<&Tuple>) -> Result<()> {
    let now = CLOCK.get() + 1;
    CLOCK.set(now);
    let (old, new) = (old.map(Tuple::to_vec), new.map(Tuple::to_vec));
    columns::change(table, old.as_deref(), new.as_deref(), now);
    moments::change(table, old.as_deref(), new.as_deref())
}

/// `core.row_changed(table, old, new)`, called by the host's triggers. Never raises: the write is not to fail for it.
/// Answers whether the caller is to have `core.rows_taken_back` called when the transaction is rolled back: those of the
/// module see to that themselves.
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
    // SAFETY: pushes one value; a C function has room for it.
    unsafe { ffi::lua_pushboolean(l, c_int::from(txn::is_first_sight_of_foreign())) };
    1
}

/// `core.rows_taken_back()`, called when a transaction that is not the module's was rolled back.
///
/// # Safety
/// Called by Lua only, on the tx thread.
pub unsafe extern "C-unwind" fn rows_taken_back(_: *mut lua_State) -> c_int {
    let told = guard::contain(|| {
        lose(None);
        Ok(())
    });
    if let Err(error) = told {
        log::error!("running queries were not told of a rollback: {error}");
    }
    0
}
