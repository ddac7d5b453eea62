//! The doors: C functions that Tarantool calls for IPROTO requests and that hand over to the core.
//!
//! For a function made with `language = 'C'` the host loads a private copy of the named library, with statics of its
//! own. So this library holds nothing but trampolines. It is installed once for each package (`picodata.so`,
//! `picodata/crud.so`, `picodata/peer.so`); a trampoline learns its package from the name of the file it was loaded
//! from, asks the core that `require('picodata')` loaded for the door `package.symbol`, remembers the answer and calls it.
//!
//! Nothing here allocates or panics.

mod core;
mod facade;
mod package;

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicPtr, Ordering};

/// The context of a call, which only the host looks into.
#[repr(C)]
pub struct Context {
    _opaque: [u8; 0],
}

/// A door as the core hands it out: the first word of it is the function to call, with the door itself as first argument.
#[repr(C)]
pub struct Door {
    enter: unsafe extern "C" fn(*const Door, *mut Context, *const c_char, *const c_char) -> c_int,
}

/// What a C procedure answers when it has set the host's last error.
const FAILED: c_int = -1;

/// Calls the door of this package named `symbol`; `found` remembers it.
///
/// # Safety
/// The arguments are those that the host passed to the trampoline.
#[inline(always)]
unsafe fn enter(
    found: &AtomicPtr<Door>,
    symbol: &'static str,
    context: *mut Context,
    args: *const c_char,
    args_end: *const c_char,
) -> c_int {
    let mut door = found.load(Ordering::Relaxed);
    if door.is_null() {
        let Some(resolved) = core::resolve(symbol) else { return FAILED };
        door = resolved;
        found.store(door, Ordering::Relaxed);
    }
    // SAFETY: the core never frees a door, and stays loaded until the process ends.
    unsafe { ((*door).enter)(door, context, args, args_end) }
}

/// Exports one trampoline a name. Which package has which of them is decided by the functions that the module creates
/// in `_func`; a symbol of another package is refused like any unknown name.
macro_rules! doors {
    ($($symbol:ident)*) => { $(
        /// A trampoline.
        ///
        /// # Safety
        /// Called by the host only.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(context: *mut Context, args: *const c_char, args_end: *const c_char) -> c_int {
            static FOUND: AtomicPtr<Door> = AtomicPtr::new(std::ptr::null_mut());
            // SAFETY: passes on what the host gave.
            unsafe { enter(&FOUND, stringify!($symbol), context, args, args_end) }
        }
    )* };
}

// picodata.*
doors! {
    sql queries status create_table drop_table create_index drop_index call bucket_id expel switchover recover set_weight help
    set_setting settings cancel
    task_submit task_status task_wait task_cancel task_list
    role_deploy role_enable role_disable role_upgrade role_status
}

// picodata.crud.*
doors! {
    insert insert_object insert_many insert_object_many
    replace replace_object replace_many replace_object_many
    upsert upsert_object upsert_many upsert_object_many
    update get delete select count len min max truncate
}

// picodata.peer.*
doors! {
    discover join raft propose report table_exists catch_up
    follow fence make_room apply_schema standing log_end copy_begin copy_read history awake
    batch procedure fragment fragment_next fragment_cancel moment_end row_counts query_cancel
    move_pull move_close move_release move_drop
}

/// What `require('picodata')` runs: the facade, a Lua file under another name. It can not be found as `picodata`
/// itself, because the host would then take it for the library that the functions of package `picodata` are in.
///
/// # Safety
/// Called by Lua only.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn luaopen_picodata(l: *mut facade::LuaState) -> c_int {
    // SAFETY: `l` comes from Lua.
    unsafe { facade::open(l) }
}
