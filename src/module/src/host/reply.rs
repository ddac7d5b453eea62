//! How a C procedure's answer looks to the client.
//!
//! The host wraps what a C procedure returns into one more array, so that a client would see `[[value]]` where a Lua
//! function gives `[value]`. Doors must look the same from everywhere, so the port that collects an answer gets a method
//! table in which the wrapping method is replaced by its older sibling, which does not wrap.
//!
//! The layout is that of this build of the host. It is checked once against symbols that the host exports; where it
//! differs, answers stay wrapped.

use std::ffi::c_void;
use std::sync::OnceLock;
use tarantool::ffi::tarantool::BoxFunctionCtx;

const METHODS: usize = 7;
const DUMP_MSGPACK: usize = 0;
const DUMP_MSGPACK_16: usize = 1;
const DUMP_LUA: usize = 2;
const GET_VDBEMEM: usize = 5;

type Methods = [usize; METHODS];

unsafe extern "C" {
    static port_c_vtab: Methods;
    fn port_c_dump_lua();
    fn port_c_get_vdbemem();
}

/// What the host passes as a call's context, and the beginning of what that points to.
#[repr(C)]
struct Context {
    port: *mut Port,
}

#[repr(C)]
struct Port {
    methods: *const c_void,
}

/// The method table that does not wrap; None when the host's is not the one we know.
fn flat_methods() -> Option<&'static Methods> {
    static FLAT: OnceLock<Option<Methods>> = OnceLock::new();
    FLAT.get_or_init(|| {
        // SAFETY: a constant table of the host, at least as large as the exported symbols let it be seen to be.
        let mut methods = unsafe { port_c_vtab };
        let is_known = methods[DUMP_LUA] == port_c_dump_lua as *const () as usize
            && methods[GET_VDBEMEM] == port_c_get_vdbemem as *const () as usize;
        methods[DUMP_MSGPACK] = methods[DUMP_MSGPACK_16];
        is_known.then_some(methods)
    })
    .as_ref()
}

/// Makes the answer of this call arrive unwrapped.
///
/// # Safety
/// `context` is that of a call which is still running.
pub unsafe fn unwrap(context: *mut BoxFunctionCtx) {
    let Some(flat) = flat_methods() else { return };
    // SAFETY: the context begins with a pointer to the port and the port with one to its methods; that they are those of
    // a C procedure is checked before they are replaced by a table of the same layout that lives forever.
    unsafe {
        let port = (*context.cast::<Context>()).port;
        if (*port).methods == (&raw const port_c_vtab).cast() {
            (*port).methods = std::ptr::from_ref(flat).cast();
        }
    }
}
