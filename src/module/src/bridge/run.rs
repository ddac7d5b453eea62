//! From a fiber to the worker threads and back: `run`.

use super::threads;
use crate::host::clock::Deadline;
use crate::host::fiber::{Parked, Waiter};
use crate::host::{fiber, inbox};
use futures::FutureExt;
use model::{Code, Error, Result};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use wire::slots::{Key, Slots};

/// Fibers that wait for worker threads at the same time.
pub const RUNNING_MAX: usize = 8 << 10;

thread_local! {
    /// The fibers that wait. Their results are beside them, in the `Parcel`s.
    static WAITING: RefCell<Slots<Waiter>> = RefCell::new(Slots::new(RUNNING_MAX));
    static GAVE_UP: Cell<bool> = const { Cell::new(false) };
}

/// Where a future's result waits for its fiber.
type Parcel<T> = Arc<Mutex<Option<Result<T>>>>;

/// Runs `future` on the worker threads and parks the fiber until it is done. When `deadline` passes first, or the fiber
/// is cancelled, the future is dropped at its next await.
///
/// Errors: the future's; `Timeout`, `Cancelled`; `Internal` when it panicked; `LimitExceeded` when too many fibers wait;
/// `NotReady` during shutdown.
pub fn run<T: Send + 'static>(
    deadline: Deadline,
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let threads = threads::handle()?;
    let waiting = Waiting::new()?;
    let parcel: Parcel<T> = Arc::default();
    let delivery = Delivery { key: waiting.key, parcel: Arc::clone(&parcel), result: None };
    let task = threads.spawn(async move {
        let result = AssertUnwindSafe(future).catch_unwind().await;
        delivery.bring(result.unwrap_or_else(|_| Err(panicked())));
    });
    let parked = waiting.park(deadline);
    if let Some(result) = parcel.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return result;
    }
    task.abort();
    parked.or_error("the end of the statement")?;
    Err(threads::stopped())
}

fn panicked() -> Error {
    Error::internal("a defect of picodata ended the work").with_hint("the instance's log has the backtrace")
}

/// Wakes all fibers that wait: nobody is left to answer them.
pub(super) fn give_up() {
    GAVE_UP.set(true);
    WAITING.with_borrow_mut(|waiting| waiting.iter_mut().for_each(|waiter| waiter.wake()));
}

/// The running fiber among those that wait; leaves them when dropped.
struct Waiting {
    key: Key,
}

impl Waiting {
    fn new() -> Result<Waiting> {
        let full =
            |_| Error::new(Code::LimitExceeded, format!("{RUNNING_MAX} requests wait for worker threads already"));
        let key = WAITING.with_borrow_mut(|waiting| waiting.insert(Waiter::new())).map_err(full)?;
        Ok(Waiting { key })
    }

    fn park(&self, deadline: Deadline) -> Parked {
        loop {
            let is_woken = WAITING.with_borrow_mut(|waiting| waiting.get_mut(self.key).is_none_or(|w| w.is_woken()));
            if is_woken || GAVE_UP.get() {
                return Parked::Woken;
            }
            if fiber::is_cancelled() {
                return Parked::Cancelled;
            }
            if deadline.has_passed() {
                return Parked::Late;
            }
            fiber::doze(deadline.left_s());
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.with_borrow_mut(|waiting| waiting.remove(self.key));
    }
}

/// Brings the result to the fiber when the task ends in any way, also by being dropped unfinished.
struct Delivery<T: Send + 'static> {
    key: Key,
    parcel: Parcel<T>,
    result: Option<Result<T>>,
}

impl<T: Send + 'static> Delivery<T> {
    fn bring(mut self, result: Result<T>) {
        self.result = Some(result);
    }
}

impl<T: Send + 'static> Drop for Delivery<T> {
    fn drop(&mut self) {
        *self.parcel.lock().unwrap_or_else(PoisonError::into_inner) = self.result.take();
        let key = self.key;
        // Refused only during shutdown, when `give_up` wakes the fiber instead.
        inbox::post(move || {
            WAITING.with_borrow_mut(|waiting| {
                if let Some(waiter) = waiting.get_mut(key) {
                    waiter.wake();
                }
            });
        });
    }
}
