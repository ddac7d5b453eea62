//! A function that runs once in each turn of the event loop, before the loop sleeps.

use super::ffi as own;
use std::ffi::{c_int, c_void};

/// libev's `ev_prepare`.
#[repr(C)]
struct PrepareWatcher {
    active: c_int,
    pending: c_int,
    priority: c_int,
    data: *mut c_void,
    callback: unsafe extern "C" fn(event_loop: *mut c_void, watcher: *mut PrepareWatcher, events: c_int),
    run: fn(),
}

/// Has `run` called in every turn, from now until the process ends. It must not yield, and should cost nothing when there
/// is nothing to do; it may wake fibers.
pub fn each(run: fn()) {
    let watcher = Box::leak(Box::new(PrepareWatcher {
        active: 0,
        pending: 0,
        priority: 0,
        data: std::ptr::null_mut(),
        callback,
        run,
    }));
    // SAFETY: the watcher is laid out as libev's and is never freed; called on the tx thread, whose loop this is.
    unsafe { own::ev_prepare_start(own::ev_default_loop_ptr, (&raw mut *watcher).cast()) };
}

unsafe extern "C" fn callback(_: *mut c_void, watcher: *mut PrepareWatcher, _: c_int) {
    // SAFETY: libev passes the watcher that was started, which lives for ever.
    let run = unsafe { (*watcher).run };
    let _ = super::guard::contain(|| {
        run();
        Ok(())
    });
}
