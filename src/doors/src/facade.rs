//! `require('picodata')` answers what `require('picodata.facade')` does.

use std::ffi::{c_char, c_int};

#[repr(C)]
pub struct LuaState {
    _opaque: [u8; 0],
}

/// LuaJIT's pseudo index of the table of globals.
const GLOBALS: c_int = -10_002;

unsafe extern "C-unwind" {
    fn lua_getfield(l: *mut LuaState, index: c_int, name: *const c_char);
    fn lua_pushstring(l: *mut LuaState, text: *const c_char);
    fn lua_call(l: *mut LuaState, args: c_int, results: c_int);
}

/// # Safety
/// `l` is the state that the host passed in. An error of the facade passes through as a Lua error; nothing here has a
/// destructor.
pub unsafe fn open(l: *mut LuaState) -> c_int {
    // SAFETY: three slots of the stack, of which a C function always has twenty.
    unsafe {
        lua_getfield(l, GLOBALS, c"require".as_ptr());
        lua_pushstring(l, c"picodata.facade".as_ptr());
        lua_call(l, 1, 1);
    }
    1
}
