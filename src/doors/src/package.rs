//! The package that this copy of the library serves, read off the name of the file it was loaded from.

use std::ffi::{CStr, c_void};

/// `picodata`, `picodata.crud` or `picodata.peer`; None when the loader does not know the file.
///
/// The host loads the library through a copy or link such as `/tmp/tntXXXX/picodata.crud.so`.
pub fn name() -> Option<&'static [u8]> {
    // SAFETY: the loader fills the struct, and its strings live as long as this library is loaded.
    let path = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(name as fn() -> Option<&'static [u8]> as *const c_void, &mut info) == 0 {
            return None;
        }
        CStr::from_ptr(info.dli_fname).to_bytes()
    };
    let file = path.rsplit(|byte| *byte == b'/').next()?;
    file.strip_suffix(b".so")
}
