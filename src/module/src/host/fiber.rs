//! Fibers: started with a name, never joined, and unable to leak a panic; and the two ways in which one waits for
//! another, `Waiter` (one fiber, no allocation) and `Event` (any number).

use super::clock::Deadline;
use super::{TIMEOUT_MAX_S, error, ffi as own, guard};
use model::{Code, Error, Result};
use std::cell::Cell;
use std::ffi::{CString, c_int};
use std::marker::PhantomData;
use std::rc::Rc;
use tarantool::ffi::tarantool::{self as ffi, Fiber, FiberCond, VaList};

/// The host cuts names after so many bytes.
const NAME_BYTES_MAX: usize = 31;

/// A fiber that was started. Dropping the handle leaves it running.
#[derive(Clone)]
pub struct FiberHandle {
    /// Null once the fiber has ended, so that no dead fiber is touched.
    fiber: Rc<Cell<*mut Fiber>>,
}

impl FiberHandle {
    pub fn is_running(&self) -> bool {
        !self.fiber.get().is_null()
    }

    /// Wakes the fiber if it sleeps; it must treat that as spurious unless it agreed otherwise.
    pub fn wake(&self) {
        if self.is_running() {
            // SAFETY: not null, so the fiber has not ended.
            unsafe { ffi::fiber_wakeup(self.fiber.get()) };
        }
    }

    /// Asks the fiber to end: its waits answer `Cancelled` from now on.
    pub fn cancel(&self) {
        if self.is_running() {
            // SAFETY: as above.
            unsafe { ffi::fiber_cancel(self.fiber.get()) };
        }
    }
}

type Body = Box<dyn FnOnce()>;

struct Start {
    body: Body,
    fiber: Rc<Cell<*mut Fiber>>,
}

/// Starts a fiber that runs `body` after the fibers that are ready now. A panic in it is logged and ends only it.
///
/// Errors: `Storage` when there is no memory for a stack.
pub fn spawn(name: &str, body: impl FnOnce() + 'static) -> Result<FiberHandle> {
    let name: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(NAME_BYTES_MAX).collect();
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: `name` outlives the call, which copies it.
    let fiber = unsafe { ffi::fiber_new(name.as_ptr(), Some(run_body)) };
    if fiber.is_null() {
        return Err(error::last());
    }
    let handle = FiberHandle { fiber: Rc::new(Cell::new(fiber)) };
    let start = Box::new(Start { body: Box::new(body), fiber: Rc::clone(&handle.fiber) });
    // SAFETY: the fiber is new; `run_body` takes exactly this one pointer and owns it from here on.
    unsafe { ffi::fiber_start(fiber, Box::into_raw(start)) };
    Ok(handle)
}

/// The C entry of every fiber that `spawn` makes.
unsafe extern "C" fn run_body(mut args: VaList) -> c_int {
    // SAFETY: `spawn` passes one pointer that it made by `Box::into_raw`.
    let start = unsafe { Box::from_raw(args.get::<*const Start>().cast_mut()) };
    let Start { body, fiber } = *start;
    // The starter goes on first: it may hold borrows that the body needs.
    // SAFETY: called on a fiber of the tx thread.
    unsafe { own::fiber_reschedule() };
    let _ = guard::contain(|| {
        body();
        Ok(())
    });
    fiber.set(std::ptr::null_mut());
    0
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    Woken,
    /// The deadline passed first.
    Late,
    /// The fiber was cancelled.
    Cancelled,
}

impl Parked {
    /// Errors: `Timeout` and `Cancelled`, told about `what` was waited for.
    pub fn or_error(self, what: &str) -> Result<()> {
        match self {
            Parked::Woken => Ok(()),
            Parked::Late => Err(Error::new(Code::Timeout, format!("time ran out waiting for {what}"))),
            Parked::Cancelled => Err(Error::new(Code::Cancelled, format!("cancelled while waiting for {what}"))),
        }
    }
}

/// The running fiber, for another one to wake. A wake-up that comes before the fiber parks is not lost, and spurious ones
/// from the host do not count. **It must not outlive its fiber**: it lives on that fiber's stack, or is taken away by a
/// guard that does.
pub struct Waiter {
    fiber: *mut Fiber,
    woken: Cell<bool>,
}

impl Waiter {
    /// A waiter for the running fiber, which alone may park on it.
    pub fn new() -> Waiter {
        // SAFETY: called on a fiber of the tx thread.
        Waiter { fiber: unsafe { ffi::fiber_self() }, woken: Cell::new(false) }
    }

    pub fn is_woken(&self) -> bool {
        self.woken.get()
    }

    /// Lets `park` return. May be called any number of times.
    pub fn wake(&self) {
        if !self.woken.replace(true) {
            // SAFETY: the fiber is alive, because `self` does not outlive it.
            unsafe { ffi::fiber_wakeup(self.fiber) };
        }
    }

    /// Sleeps until `wake`, without a timer when the deadline is `NEVER`. Yields only when not woken yet.
    pub fn park(&self, deadline: Deadline) -> Parked {
        while !self.woken.get() {
            if is_cancelled() {
                return Parked::Cancelled;
            }
            if deadline == Deadline::NEVER {
                // SAFETY: called on a fiber of the tx thread.
                unsafe { ffi::fiber_yield() };
            } else if deadline.has_passed() {
                return Parked::Late;
            } else {
                // SAFETY: as above.
                unsafe { own::fiber_yield_timeout(deadline.left_s().min(TIMEOUT_MAX_S)) };
            }
        }
        Parked::Woken
    }
}

impl Default for Waiter {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that fibers wait for together: a condition that they check again after each wake-up.
pub struct Event {
    cond: *mut FiberCond,
    /// The host's condition belongs to the tx thread.
    _not_send: PhantomData<*mut ()>,
}

impl Event {
    /// Errors: `Storage` when there is no memory.
    pub fn new() -> Result<Event> {
        // SAFETY: an allocation; null is checked.
        let cond = unsafe { ffi::fiber_cond_new() };
        if cond.is_null() {
            return Err(error::last());
        }
        Ok(Event { cond, _not_send: PhantomData })
    }

    /// Wakes all who wait now.
    pub fn notify_all(&self) {
        // SAFETY: the condition lives as long as `self`.
        unsafe { ffi::fiber_cond_broadcast(self.cond) };
    }

    /// Wakes the one who has waited longest.
    pub fn notify_one(&self) {
        // SAFETY: as above.
        unsafe { ffi::fiber_cond_signal(self.cond) };
    }

    /// Waits for one notification. Always yields; there may be spurious wake-ups.
    pub fn wait(&self, deadline: Deadline) -> Parked {
        if is_cancelled() {
            return Parked::Cancelled;
        }
        // SAFETY: as above; who waits borrows `self`, so it is not freed under them.
        let outcome = unsafe { ffi::fiber_cond_wait_timeout(self.cond, deadline.left_s().min(TIMEOUT_MAX_S)) };
        match outcome {
            0 => Parked::Woken,
            _ if is_cancelled() => Parked::Cancelled,
            _ => Parked::Late,
        }
    }

    /// Waits until `done` answers something, asking it first and after each notification.
    pub fn wait_until<T>(&self, deadline: Deadline, what: &str, mut done: impl FnMut() -> Option<T>) -> Result<T> {
        loop {
            if let Some(value) = done() {
                return Ok(value);
            }
            let parked = self.wait(deadline);
            if parked != Parked::Woken {
                return match done() {
                    Some(value) => Ok(value),
                    None => Err(parked.or_error(what).err().unwrap_or_else(|| Error::internal("woken"))),
                };
            }
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nobody waits, because whoever does borrows `self`.
        unsafe { ffi::fiber_cond_delete(self.cond) };
    }
}

/// Whether somebody asked the running fiber to end.
pub fn is_cancelled() -> bool {
    // SAFETY: reads a flag of the running fiber.
    unsafe { ffi::fiber_is_cancelled() }
}

/// Sleeps at least `seconds`, or until the fiber is cancelled. Yields even when `seconds` is 0.
pub fn sleep(seconds: f64) {
    // SAFETY: called on a fiber of the tx thread.
    unsafe { ffi::fiber_sleep(seconds.clamp(0.0, TIMEOUT_MAX_S)) };
}

/// Parks the fiber until anybody wakes it; for loops that check their own condition after each wake-up.
pub fn suspend() {
    // SAFETY: called on a fiber of the tx thread.
    unsafe { ffi::fiber_yield() };
}

/// Like `suspend`, for at most `seconds`.
pub fn doze(seconds: f64) {
    // SAFETY: as above.
    unsafe { own::fiber_yield_timeout(seconds.clamp(0.0, TIMEOUT_MAX_S)) };
}

/// Lets every other fiber and the loop's sockets have a turn.
pub fn sleep_zero() {
    sleep(0.0);
}

/// Lets the fibers run that are ready in this loop turn, without looking at sockets.
pub fn yield_turn() {
    // SAFETY: as above.
    unsafe { own::fiber_reschedule() };
}
