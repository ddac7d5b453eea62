//! The core that `require('picodata')` loaded: found among the loaded libraries and asked for a door.

use super::{Door, package};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

/// How the core's path ends wherever it is installed.
const CORE_SUFFIX: &[u8] = b"picodata/core.so";
/// No door has a longer name.
const NAME_BYTES_MAX: usize = 128;
/// `model::Code::NotReady`.
const NOT_READY: u32 = 20005;

unsafe extern "C" {
    fn box_error_set(file: *const c_char, line: c_uint, code: u32, format: *const c_char, ...) -> c_int;
}

type Resolve = unsafe extern "C" fn(*const u8, usize) -> *mut Door;

/// Answers the door `symbol` of this library's package; None with the host's last error set.
pub fn resolve(symbol: &'static str) -> Option<*mut Door> {
    let mut name = [0u8; NAME_BYTES_MAX];
    let Some(len) = package::name().and_then(|package| join(&mut name, package, symbol.as_bytes())) else {
        return refuse(c"%.*s: its library was loaded under a name that is none of its own", symbol.as_bytes());
    };
    let Some(resolve) = find_resolver() else {
        return refuse(c"%.*s: picodata is not loaded in this process (hint: call require('picodata').start)", &name);
    };
    // SAFETY: `len` bytes of the name are written.
    let door = unsafe { resolve(name.as_ptr(), len) };
    if door.is_null() {
        return refuse(c"%.*s is not available on this instance (hint: picodata.start has to finish first)", &name);
    }
    Some(door)
}

/// Sets the host's last error. `format` consumes a length and a text, which ends there or at a zero byte.
fn refuse<T>(format: &CStr, text: &[u8]) -> Option<T> {
    // SAFETY: the host formats into a buffer of its own at once.
    unsafe {
        box_error_set(c"picodata".as_ptr(), 0, NOT_READY, format.as_ptr(), text.len() as c_int, text.as_ptr());
    }
    None
}

/// Writes `package.symbol`; answers its length, or None when it does not fit.
fn join(name: &mut [u8], package: &[u8], symbol: &[u8]) -> Option<usize> {
    let len = package.len() + 1 + symbol.len();
    name.get_mut(..package.len())?.copy_from_slice(package);
    *name.get_mut(package.len())? = b'.';
    name.get_mut(package.len() + 1..len)?.copy_from_slice(symbol);
    Some(len)
}

fn find_resolver() -> Option<Resolve> {
    let mut handle: *mut c_void = null_mut();
    // SAFETY: the callback gets the address of `handle` and is done when the call returns. The core's handle is kept
    // open, so that the function stays where it is.
    unsafe {
        libc::dl_iterate_phdr(Some(open_if_core), (&raw mut handle).cast());
        if handle.is_null() {
            return None;
        }
        let symbol = libc::dlsym(handle, c"picodata_resolve_door".as_ptr());
        if symbol.is_null() { None } else { Some(std::mem::transmute::<*mut c_void, Resolve>(symbol)) }
    }
}

/// Opens the library if it is the core, without loading anything; a non-zero answer ends the iteration.
unsafe extern "C" fn open_if_core(info: *mut libc::dl_phdr_info, _size: usize, handle: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid entry with a name that ends in zero; `handle` comes from `find_resolver`.
    unsafe {
        let path = (*info).dlpi_name;
        if path.is_null() || !CStr::from_ptr(path).to_bytes().ends_with(CORE_SUFFIX) {
            return 0;
        }
        let opened = libc::dlopen(path, libc::RTLD_NOW | libc::RTLD_NOLOAD);
        *handle.cast::<*mut c_void>() = opened;
        c_int::from(!opened.is_null())
    }
}
