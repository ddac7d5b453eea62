//! The module's floor (`host`, `net`, `bridge`) on its own, with doors that try it out, for `test_floor.py`.
//!
//! It is compiled from the module's sources, because a test executable can not link what needs the host's symbols.

#[path = "../../../src/module/src/bridge/mod.rs"]
pub mod bridge;
#[path = "../../../src/module/src/host/mod.rs"]
pub mod host;
#[path = "../../../src/module/src/net/mod.rs"]
pub mod net;

mod try_bridge;
mod try_host;
mod try_net;

use std::ffi::c_int;
use tlua::ffi::lua_State;

/// The library is loaded in place of the core.
///
/// # Safety
/// Called by Lua only, on the tx thread.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn luaopen_picodata_core(l: *mut lua_State) -> c_int {
    // SAFETY: `l` comes from Lua.
    let results = unsafe { host::lua::open(l, &[(c"call", host::lua::call)]) };
    try_host::register();
    try_net::register();
    try_bridge::register();
    results
}
