//! Panics stop here. The host is C: a panic that reached it would abort the process, so every function that it calls
//! runs inside `contain`.

use model::{Error, Result};
use std::any::Any;
use std::backtrace::Backtrace;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f` and turns a panic into an `Internal` error. The panic itself was logged by the hook, with its backtrace.
pub fn contain<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // What a panic leaves half done stays visible to later calls: cells are left borrowed at worst, and those report
    // themselves as the next contained panic.
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| Err(panic_error(&*payload)))
}

/// Runs `f` as the body of a C function of the host: 0, or -1 with the error raised.
pub fn guard(f: impl FnOnce() -> Result<()>) -> c_int {
    match contain(f) {
        Ok(()) => 0,
        Err(error) => super::error::raise(&error),
    }
}

fn panic_error(payload: &(dyn Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Error::internal(format!("a defect of picodata: {text}")).with_hint("the instance's log has the backtrace")
}

/// From now on panics are written to the host's log instead of stderr.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        log::error!("panic: {info}\n{}", Backtrace::force_capture());
    }));
}
