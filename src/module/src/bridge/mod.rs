//! The bridge between the tx thread, which owns the host, and tokio's worker threads, which plan and run queries.
//!
//! A fiber that needs work done elsewhere calls `run` and parks until the future is done. Code on a worker thread that
//! needs the host awaits `on_tx`, for what takes microseconds, or `on_tx_fiber`, for what may yield. Worker threads
//! never call the host themselves: everything crosses through `host::inbox`.

mod fibers;
mod run;
pub mod threads;
mod tx;

use model::Result;
pub use run::run;
pub use threads::configure;
pub use tx::{on_tx, on_tx_fiber};

/// Runs `future` on the worker threads; nobody waits for it.
///
/// Errors: as `threads::handle`.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Result<tokio::task::AbortHandle> {
    Ok(threads::handle()?.spawn(future).abort_handle())
}

/// Ends the worker threads' part in the process: fibers that wait for them get `NotReady`, and what they ask of the tx
/// thread from now on is refused. Called on the tx thread when the host begins to shut down.
pub fn shut_down() {
    threads::stop();
    crate::host::inbox::close();
    run::give_up();
}
