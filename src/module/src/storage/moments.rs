//! The moments of this instance: which are open, and who tells them of changes.
//!
//! While a moment is watched, a trigger of the host on each of its tables tells it of every row before that row becomes another,
//! whoever writes it. The trigger is there only as long as some moment watches the table, so writes pay for it only
//! then. All of it runs on the tx thread.

use super::Storage;
use crate::host::lua as host_lua;
use crate::host::{Tuple, guard};
use crate::start::lua;
use crud::Layout;
use crud::moment::Moment;
use crud::row::bucket_of_stored;
use model::msgpack::{write_array_len, write_uint};
use model::{Code, Error, Result, TableId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;
use tlua::ffi::lua_State;

type Shared = Rc<RefCell<Moment>>;

#[derive(Default)]
struct Moments {
    by_number: HashMap<u64, Shared>,
    /// The moments that are told of changes of a table.
    by_table: HashMap<TableId, Vec<Shared>>,
}

thread_local! {
    static MOMENTS: RefCell<Moments> = RefCell::default();
}

/// The moment with this number, if it is watched.
pub fn watched(number: u64) -> Option<Shared> {
    MOMENTS.with_borrow(|moments| moments.by_number.get(&number).map(Rc::clone))
}

/// Tells the moment of all changes of these tables from now on, until `end`.
///
/// Errors: `SchemaChanged` when a table is not here; what the host says.
pub fn watch(storage: &Storage, number: u64, moment: &Shared, tables: &[TableId]) -> Result<()> {
    let known = storage.tables();
    let layouts: Vec<Arc<Layout>> = tables
        .iter()
        .map(|id| known.get(*id).cloned().ok_or_else(|| Error::new(Code::SchemaChanged, "a table is not here")))
        .collect::<Result<_>>()?;
    let mut unwatched = Vec::new();
    MOMENTS.with_borrow_mut(|moments| {
        moments.by_number.insert(number, Rc::clone(moment));
        for layout in layouts {
            let table = layout.table.id;
            moment.borrow_mut().watch(layout);
            let watching = moments.by_table.entry(table).or_default();
            if watching.is_empty() {
                unwatched.push(table);
            }
            watching.push(Rc::clone(moment));
        }
    });
    let set = unwatched.into_iter().try_for_each(|table| set_trigger("watch_rows", table));
    if set.is_err() {
        end(number);
    }
    set
}

/// The moment is needed no more.
pub fn end(number: u64) {
    let unwatched: Vec<TableId> = MOMENTS.with_borrow_mut(|moments| {
        let Some(moment) = moments.by_number.remove(&number) else { return Vec::new() };
        let tables: Vec<TableId> = moment.borrow().tables().collect();
        let mut left = |table: &TableId| {
            let watching = moments.by_table.get_mut(table);
            watching.is_some_and(|watching| {
                watching.retain(|other| !Rc::ptr_eq(other, &moment));
                watching.is_empty()
            })
        };
        let unwatched: Vec<TableId> = tables.into_iter().filter(|table| left(table)).collect();
        unwatched.iter().for_each(|table| drop(moments.by_table.remove(table)));
        unwatched
    });
    for table in unwatched {
        if let Err(error) = set_trigger("unwatch_rows", table) {
            log::warn!("the trigger on table {table} could not be removed: {error}");
        }
    }
}

/// The rows of a table went all at once, or changes were taken back without a word: who looks at an earlier moment of it
/// begins again.
pub fn lose(table: Option<TableId>) {
    MOMENTS.with_borrow(|moments| {
        for (watched, watching) in &moments.by_table {
            if table.is_none_or(|table| table == *watched) {
                let cause = Error::new(Code::SchemaChanged, "the rows of a table went while a query read them");
                watching.iter().for_each(|moment| moment.borrow_mut().lose(cause.clone()));
            }
        }
    });
}

fn set_trigger(function: &str, table: TableId) -> Result<()> {
    let mut args = Vec::new();
    write_array_len(&mut args, 1);
    write_uint(&mut args, table.into());
    lua::call(function, &args).map(drop)
}

/// A row of a table becomes another. Rows of buckets that are not served here are nobody's: a move brings or takes them.
fn changed(table: TableId, old: Option<&Tuple>, new: Option<&Tuple>) -> Result<()> {
    let storage = super::get()?;
    let (old, new) = (old.map(Tuple::to_vec), new.map(Tuple::to_vec));
    MOMENTS.with_borrow(|moments| {
        let Some(watching) = moments.by_table.get(&table) else { return Ok(()) };
        let is_sharded = storage.tables().get(table).is_some_and(|layout| layout.is_sharded());
        if let (true, Some(tuple)) = (is_sharded, old.as_ref().or(new.as_ref())) {
            let bucket = bucket_of_stored(tuple)?;
            if !storage.guard.borrow().is_readable(bucket) {
                return Ok(());
            }
        }
        watching.iter().for_each(|moment| moment.borrow_mut().change(table, old.as_deref(), new.as_deref()));
        Ok(())
    })
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
