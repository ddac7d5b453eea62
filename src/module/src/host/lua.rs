//! The Lua side of the core: the table that `require('picodata.core')` answers.
//!
//! Errors leave by `luaT_error`, which unwinds through C frames: at that point nothing with a destructor is alive here.

use super::tuple::Tuple;
use super::{door, error, guard};
use model::{Code, Error, Result};
use std::ffi::{CStr, c_char, c_int};
use tarantool::ffi::tarantool::BoxTuple;
use tlua::ffi::{self as lua, lua_CFunction, lua_State};

unsafe extern "C-unwind" {
    /// Raises the host's last error as a Lua error; does not return.
    fn luaT_error(l: *mut lua_State) -> c_int;
    /// The tuple at a place of the stack, or null.
    fn luaT_istuple(l: *mut lua_State, index: c_int) -> *mut BoxTuple;
}

/// The body of the module's `luaopen_` function: prepares the host room and answers a table with these functions.
///
/// # Safety
/// `l` is the state that the host passed in.
pub unsafe fn open(l: *mut lua_State, functions: &[(&CStr, lua_CFunction)]) -> c_int {
    // SAFETY: one slot for the table and one for a function; a new C call has at least 20. Nothing with a destructor
    // is alive when the error is raised.
    unsafe {
        if guard::guard(super::init) != 0 {
            return luaT_error(l);
        }
        lua::lua_createtable(l, 0, functions.len() as c_int);
        for (name, function) in functions {
            lua::lua_pushcclosure(l, *function, 0);
            lua::lua_setfield(l, -2, name.as_ptr());
        }
        1
    }
}

/// Runs `f` as the body of a Lua C function that answers one string of bytes, or raises.
///
/// # Safety
/// `l` is the state that the host passed in; `f` may yield but not raise a Lua error.
pub unsafe fn answer_bytes(l: *mut lua_State, f: impl FnOnce() -> Result<Vec<u8>>) -> c_int {
    if unsafe { push_bytes(l, f) } {
        return 1;
    }
    // SAFETY: the error was set by `push_bytes`, and everything of ours has been dropped.
    unsafe { luaT_error(l) }
}

/// Leaves the bytes on the stack and answers true, or raises the error in the host's diagnostics and answers false.
unsafe fn push_bytes(l: *mut lua_State, f: impl FnOnce() -> Result<Vec<u8>>) -> bool {
    match guard::contain(f) {
        // SAFETY: pointer and length describe `bytes`, which Lua copies.
        Ok(bytes) => unsafe {
            lua::lua_pushlstring(l, bytes.as_ptr().cast(), bytes.len());
            true
        },
        Err(e) => {
            error::raise(&e);
            false
        }
    }
}

/// The string argument at `index`, without converting numbers. Valid while it stays on the Lua stack.
///
/// # Safety
/// `l` is the state that the host passed in, and the answer is not used after the C function returns.
pub unsafe fn bytes_arg<'a>(l: *mut lua_State, index: c_int) -> Option<&'a [u8]> {
    // SAFETY: the type is checked, so the pointer is not null and the string is not changed.
    unsafe {
        if lua::lua_type(l, index) != lua::LUA_TSTRING {
            return None;
        }
        let mut len = 0;
        let start: *const c_char = lua::lua_tolstring(l, index, &mut len);
        Some(std::slice::from_raw_parts(start.cast(), len))
    }
}

/// The number argument at `index`, if it is a whole one that is not negative.
///
/// # Safety
/// `l` is the state that the host passed in.
pub unsafe fn uint_arg(l: *mut lua_State, index: c_int) -> Option<u64> {
    // SAFETY: reads a value of the stack; the type is checked.
    unsafe {
        if lua::lua_type(l, index) != lua::LUA_TNUMBER {
            return None;
        }
        let number = lua::lua_tonumber(l, index);
        (number >= 0.0 && number.fract() == 0.0).then_some(number as u64)
    }
}

/// The tuple argument at `index`.
///
/// # Safety
/// `l` is the state that the host passed in.
pub unsafe fn tuple_arg(l: *mut lua_State, index: c_int) -> Option<Tuple> {
    // SAFETY: the host answers null or a tuple that lives as long as it is on the stack.
    unsafe { Tuple::from_host(luaT_istuple(l, index)) }
}

/// `core.call(name, arguments as one MessagePack array) -> the reply's MessagePack`; raises what the door answers.
///
/// # Safety
/// Called by Lua only.
pub unsafe extern "C-unwind" fn call(l: *mut lua_State) -> c_int {
    // SAFETY: the strings are arguments 1 and 2 and stay on the stack until this function returns.
    unsafe {
        answer_bytes(l, || {
            let (Some(name), Some(args)) = (bytes_arg(l, 1), bytes_arg(l, 2)) else {
                return Err(Error::new(Code::Argument, "core.call takes a name and the arguments as MessagePack"));
            };
            let name = std::str::from_utf8(name).map_err(|_| Error::new(Code::Argument, "the name is not UTF-8"))?;
            door::find(name).ok_or_else(|| door::not_open(name))?.run(args)
        })
    }
}
