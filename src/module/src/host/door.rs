//! Doors: the functions that users and other instances call, over IPROTO and from Lua, by one name.
//!
//! In comes a MessagePack array of arguments, out goes one MessagePack object or an error. IPROTO calls arrive through
//! the trampolines of the crate `doors`, which ask `picodata_resolve_door` once for each name; Lua calls arrive through
//! `lua::call`.

use super::error;
use super::guard;
use model::{Code, Error, Result};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use tarantool::ffi::tarantool::{self as ffi, BoxFunctionCtx};

/// What a door does. An `Ok` without a reply answers nil.
pub type Handler = fn(&mut Call<'_>) -> Result<()>;

/// A registered door. The first field is the binary interface to the crate `doors`; doors live as long as the process.
#[repr(C)]
pub struct Door {
    enter: unsafe extern "C" fn(*const Door, *mut BoxFunctionCtx, *const c_char, *const c_char) -> c_int,
    handler: Cell<Handler>,
    name: &'static str,
}

impl Door {
    /// Runs the door for a caller in this process, who gets the reply's bytes.
    pub fn run(&self, args: &[u8]) -> Result<Vec<u8>> {
        let handler = self.handler.get();
        guard::contain(|| {
            let mut call = Call { args, name: self.name, replied: false, sink: Sink::Bytes(Vec::new()) };
            handler(&mut call)?;
            match call.sink {
                Sink::Bytes(bytes) if call.replied => Ok(bytes),
                _ => Ok(vec![NIL]),
            }
        })
    }
}

const NIL: u8 = 0xc0;

thread_local! {
    static DOORS: RefCell<HashMap<&'static str, &'static Door>> = RefCell::new(HashMap::new());
}

/// Opens the door `name`, such as `picodata.crud.get`, or gives an open one another handler.
pub fn register(name: &'static str, handler: Handler) {
    DOORS.with_borrow_mut(|doors| {
        let door = doors.entry(name).or_insert_with(|| {
            Box::leak(Box::new(Door { enter: enter_from_iproto, handler: Cell::new(handler), name }))
        });
        door.handler.set(handler);
    });
}

pub fn find(name: &str) -> Option<&'static Door> {
    DOORS.with_borrow(|doors| doors.get(name).copied())
}

/// The names of all doors, in order.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = DOORS.with_borrow(|doors| doors.keys().copied().collect());
    names.sort_unstable();
    names
}

/// The error for a name without a door.
pub fn not_open(name: &str) -> Error {
    Error::new(Code::NotReady, format!("{name} is not available on this instance"))
        .with_hint("picodata.start has to finish first")
}

/// Answers the door with this name, or null. Called by the crate `doors` on the tx thread.
///
/// # Safety
/// `name` points to `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn picodata_resolve_door(name: *const u8, len: usize) -> *const Door {
    let mut found = std::ptr::null();
    let _ = guard::contain(|| {
        // SAFETY: by the caller's promise.
        let name = unsafe { std::slice::from_raw_parts(name, len) };
        if let Some(door) = std::str::from_utf8(name).ok().and_then(find) {
            found = door;
        }
        Ok(())
    });
    found
}

unsafe extern "C" fn enter_from_iproto(
    door: *const Door,
    ctx: *mut BoxFunctionCtx,
    args: *const c_char,
    args_end: *const c_char,
) -> c_int {
    guard::guard(|| {
        // SAFETY: doors are never freed; the host passes the two ends of one byte string.
        let (door, args) = unsafe {
            let len = args_end.offset_from_unsigned(args);
            (&*door, std::slice::from_raw_parts(args.cast::<u8>(), len))
        };
        // SAFETY: the context of the call that has just begun.
        unsafe { super::reply::unwrap(ctx) };
        let mut call = Call { args, name: door.name, replied: false, sink: Sink::Iproto(ctx) };
        door.handler.get()(&mut call)?;
        if call.replied { Ok(()) } else { call.reply(&[NIL]) }
    })
}

enum Sink {
    Iproto(*mut BoxFunctionCtx),
    Bytes(Vec<u8>),
}

/// One call of a door.
pub struct Call<'a> {
    args: &'a [u8],
    name: &'static str,
    replied: bool,
    sink: Sink,
}

impl Call<'_> {
    /// The name that was called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The arguments, one MessagePack array. **Valid until the fiber yields**: whoever waits takes a `copy` before.
    pub fn args(&self) -> &[u8] {
        self.args
    }

    /// The arguments to keep.
    pub fn copy(&self) -> Vec<u8> {
        self.args.to_vec()
    }

    /// Answers one MessagePack object, once in a call. The bytes are copied.
    pub fn reply(&mut self, object: &[u8]) -> Result<()> {
        debug_assert!(!self.replied, "{} replied twice", self.name);
        self.replied = true;
        match &mut self.sink {
            Sink::Bytes(bytes) => bytes.extend_from_slice(object),
            Sink::Iproto(ctx) => {
                let range = object.as_ptr_range();
                // SAFETY: the context is the one of the call that is still running.
                if unsafe { ffi::box_return_mp(*ctx, range.start.cast(), range.end.cast()) } != 0 {
                    return Err(error::last());
                }
            }
        }
        Ok(())
    }
}
