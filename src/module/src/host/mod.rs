//! The host: thin, safe wrappers over Tarantool's C API. Every other part of the module reaches Tarantool through here.
//!
//! In come calls from Lua and IPROTO (`door`, `lua`), out go box operations (`space`, `tuple`, `txn`), waits (`fiber`,
//! `clock`), log lines (`logger`) and errors (`error`, `guard`). All of it belongs to the tx thread; other threads post
//! closures to the `inbox`.

pub mod clock;
pub mod door;
pub mod error;
mod exclusive;
pub mod failpoint;
mod ffi;
pub mod fiber;
pub mod guard;
pub mod inbox;
pub mod logger;
pub mod lua;
mod peek;
pub mod process;
pub mod processor;
pub mod readahead;
pub mod relays;
mod reply;
pub mod space;
pub mod tuple;
pub mod turn;
pub mod txn;

pub use clock::Deadline;
pub use door::Call;
pub use exclusive::Exclusive;
pub use fiber::{Event, Parked, Waiter};
pub use space::{IteratorKind, Space, TupleIterator};
pub use tuple::Tuple;
pub use txn::Transaction;

use model::{Code, Error, Result};
use std::cell::Cell;

/// The longest wait that the host's timers take: longer ones are cut to it and checked again.
const TIMEOUT_MAX_S: f64 = 365.0 * 86_400.0;

thread_local! {
    static IS_TX: Cell<bool> = const { Cell::new(false) };
}

/// Whether the running thread is the one that owns the host.
pub fn is_tx_thread() -> bool {
    IS_TX.get()
}

/// Prepares this room; called on the tx thread when the module is loaded, before anything else here.
pub fn init() -> Result<()> {
    IS_TX.set(true);
    stay_loaded()?;
    failpoint::open();
    process::remember();
    logger::install();
    guard::install_panic_hook();
    inbox::start()
}

/// Keeps the module's code mapped until the process ends: the host unloads modules on its way out, when our threads may
/// still be running.
fn stay_loaded() -> Result<()> {
    // SAFETY: asks for the file of a function of this module, and opens it again under the path the loader knows.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let here = init as fn() -> Result<()> as *const libc::c_void;
        let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        if libc::dladdr(here, &mut info) == 0 || libc::dlopen(info.dli_fname, flags).is_null() {
            return Err(Error::new(Code::Internal, "the loaded module can not find itself"));
        }
    }
    Ok(())
}
