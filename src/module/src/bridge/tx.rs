//! From a worker thread to the tx thread and back: `on_tx` and `on_tx_fiber`.

use super::{fibers, threads};
use crate::host::processor;
use crate::host::{guard, inbox};
use model::Result;
use tokio::sync::{Semaphore, oneshot};

/// Requests to the tx thread that wait at the same time; more wait for a permit. Together with `run::RUNNING_MAX`
/// results they always fit the inbox.
const REQUESTS_MAX: usize = 16 << 10;

static PERMITS: Semaphore = Semaphore::const_new(REQUESTS_MAX);

const _: () = assert!(REQUESTS_MAX + super::run::RUNNING_MAX <= inbox::JOBS_MAX / 2);

/// Runs `f` on the tx thread, between two fibers. It must not yield and should take some 100 us at most. When the answer
/// is no longer awaited by then, it does not run.
///
/// Errors: those of `f`; `Internal` when it panicked; `NotReady` during shutdown.
pub async fn on_tx<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    cross(f, |job| job()).await
}

/// Runs `f` on the tx thread in a fiber, where it may yield.
///
/// Errors: as `on_tx`.
pub async fn on_tx_fiber<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    cross(f, fibers::submit).await
}

/// Takes `f` across; `start` runs it there, at once or later.
async fn cross<T: Send + 'static>(
    f: impl FnOnce() -> Result<T> + Send + 'static,
    start: impl FnOnce(fibers::Job) + Send + 'static,
) -> Result<T> {
    let permit = PERMITS.acquire().await.map_err(|_| threads::stopped())?;
    let (answer, answered) = oneshot::channel();
    let is_posted = inbox::post(move || {
        let job = move || {
            if !answer.is_closed() {
                // Nobody awaits the answer when this fails.
                let _ = answer.send(guard::contain(f));
            }
            drop(permit);
        };
        start(Box::new(job));
    });
    if !is_posted {
        return Err(threads::stopped());
    }
    // The tx thread may wait for this very processor.
    processor::give_way();
    answered.await.unwrap_or_else(|_| Err(threads::stopped()))
}
