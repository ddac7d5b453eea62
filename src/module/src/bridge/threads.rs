//! Tokio's runtime: made when it is first needed, which must be after `box.cfg`, because a process that forks keeps none
//! of its threads.

use crate::host::processor;
use model::{Code, Error, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, Handle, Runtime};

/// Planning recurses: the deepest plans that the limits allow need about 1 MB in release builds.
const STACK_BYTES: usize = 8 << 20;
const WORKERS_MAX: usize = 256;

/// 0 means one for each processor.
static WORKERS: AtomicUsize = AtomicUsize::new(0);

enum State {
    NotStarted,
    Running(Runtime),
    Stopped,
}

static STATE: Mutex<State> = Mutex::new(State::NotStarted);

/// Sets how many worker threads there will be; without effect once they run. 0 means one for each processor.
///
/// Errors: `Config` when there are too many.
pub fn configure(workers: usize) -> Result<()> {
    if workers > WORKERS_MAX {
        return Err(Error::new(Code::Config, format!("{workers} worker threads are more than {WORKERS_MAX}")));
    }
    WORKERS.store(workers, Ordering::Relaxed);
    Ok(())
}

/// The runtime, made by the first call.
///
/// Errors: `NotReady` during shutdown, `Storage` when threads can not be made.
pub fn handle() -> Result<Handle> {
    let mut state = STATE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match &*state {
        State::Running(runtime) => Ok(runtime.handle().clone()),
        State::Stopped => Err(stopped()),
        State::NotStarted => {
            let runtime = start()?;
            let handle = runtime.handle().clone();
            *state = State::Running(runtime);
            Ok(handle)
        }
    }
}

pub(super) fn stopped() -> Error {
    Error::new(Code::NotReady, "the instance is shutting down")
}

fn start() -> Result<Runtime> {
    let workers = match WORKERS.load(Ordering::Relaxed) {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
        workers => workers,
    };
    Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_stack_size(STACK_BYTES)
        .thread_name("pico-worker")
        .on_thread_start(|| {
            block_signals();
            lower_priority();
            processor::unpark();
        })
        .on_thread_unpark(processor::unpark)
        .on_thread_park(processor::park)
        .enable_time()
        .build()
        .map_err(|error| Error::new(Code::Storage, format!("worker threads can not be started: {error}")))
}

/// Leaves the process's signals to the tx thread, where the host expects them.
fn block_signals() {
    // SAFETY: fills a set on this stack and changes the mask of this thread only.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}

/// Gives the host's own threads ten times the share of a processor that they and this thread want: queries take what
/// is left by requests of microseconds.
fn lower_priority() {
    const NICENESS: libc::c_int = 10;
    // SAFETY: on Linux 0 names the calling thread. A refusal leaves it as it is, which is harmless.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

/// Lets the threads end without waiting for them: one may be deep in a computation.
pub(super) fn stop() {
    let mut state = STATE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let State::Running(runtime) = std::mem::replace(&mut *state, State::Stopped) {
        runtime.shutdown_background();
    }
}
