//! The module: one cdylib inside Tarantool. Front doors (Lua, IPROTO), fibers, spaces, connections, threads.
//!
//! `host` wraps Tarantool's C API; everything else is built on it. `start` makes the process a member of the cluster,
//! `assembly` puts its rooms together. The facade in `lua/` loads this library as `picodata.core`.

mod acks;
mod assembly;
mod bridge;
mod copying;
mod crud;
mod doors;
mod facts;
mod farewell;
mod global_rows;
mod governing;
mod host;
mod lease;
mod lineage;
mod mastership;
mod moving;
mod net;
mod node;
mod propose;
mod query;
mod raft;
mod router;
mod schema_change;
mod schema_work;
mod sequences;
mod side_by_side;
mod start;
mod storage;

use std::ffi::c_int;
use tlua::ffi::lua_State;

/// What `require('picodata.core')` runs: prepares the host room and answers the table of Lua functions.
///
/// # Safety
/// Called by Lua only, on the tx thread.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn luaopen_picodata_core(l: *mut lua_State) -> c_int {
    doors::open();
    // SAFETY: `l` comes from Lua.
    unsafe {
        host::lua::open(
            l,
            &[
                (c"call", host::lua::call),
                (c"follower_connected", net::follower::follower_connected),
                (c"schema_changed", schema_work::schema_changed),
                (c"row_changed", storage::watching::row_changed),
                (c"space_truncated", storage::watching::space_truncated),
                (c"shut_down", shut_down),
            ],
        )
    }
}

/// What the host calls when it begins to shut down: others take over what this instance leads, and worker threads leave the
/// host alone from then on. Yields.
///
/// # Safety
/// Called by Lua only, on the tx thread.
unsafe extern "C-unwind" fn shut_down(_: *mut lua_State) -> c_int {
    let _ = host::guard::contain(|| {
        farewell::say();
        Ok(())
    });
    let _ = host::guard::contain(|| {
        bridge::shut_down();
        Ok(())
    });
    0
}
