//! The module: one cdylib inside Tarantool. Front doors (Lua, IPROTO), fibers, spaces, connections, threads.
//!
//! `host` wraps Tarantool's C API; everything else is built on it. The facade in `lua/` loads this library as
//! `picodata.core`.

pub mod bridge;
pub mod crud;
pub mod host;
pub mod net;
pub mod router;
mod side_by_side;
pub mod storage;

use std::ffi::c_int;
use tlua::ffi::lua_State;

/// What `require('picodata.core')` runs: prepares the host room and answers the table of Lua functions.
///
/// # Safety
/// Called by Lua only, on the tx thread.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn luaopen_picodata_core(l: *mut lua_State) -> c_int {
    // SAFETY: `l` comes from Lua.
    unsafe { host::lua::open(l, &[(c"call", host::lua::call)]) }
}
