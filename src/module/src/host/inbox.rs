//! Work that other threads hand to the tx thread: a bounded lock-free queue, an eventfd, and one fiber that sleeps in
//! `coio_wait` and runs what comes.
//!
//! A producer pays for the system call only when the fiber is asleep. The fiber gives the event loop a turn after
//! every `SLICE_NS` of work. No other thread ever calls a function of the host: this is the only door.

use super::{clock, fiber, guard};
use crossbeam_queue::ArrayQueue;
use model::{Code, Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use tarantool::ffi::tarantool::{CoIOFlags, coio_wait};

/// Jobs that can wait. Who posts more is told so; who must not lose a job limits its own number, as `bridge` does.
pub const JOBS_MAX: usize = 1 << 16;
/// How long the fiber works before other fibers get their turn.
const SLICE_NS: u64 = 300_000;

type Job = Box<dyn FnOnce() + Send>;

struct Inbox {
    jobs: ArrayQueue<Job>,
    /// The fiber waits for the eventfd, or is about to.
    asleep: AtomicBool,
    closed: AtomicBool,
    event: OwnedFd,
}

static INBOX: OnceLock<Inbox> = OnceLock::new();

/// Starts the fiber that empties the queue. Once, on the tx thread; works before `box.cfg`.
///
/// Errors: `Storage` when the process has no file descriptor left.
pub fn start() -> Result<()> {
    if INBOX.get().is_some() {
        return Ok(());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let event = unsafe {
        let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        if fd < 0 {
            let cause = std::io::Error::last_os_error();
            return Err(Error::new(Code::Storage, format!("eventfd can not be made: {cause}")));
        }
        OwnedFd::from_raw_fd(fd)
    };
    let inbox = INBOX.get_or_init(|| Inbox {
        jobs: ArrayQueue::new(JOBS_MAX),
        asleep: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        event,
    });
    fiber::spawn("pico_inbox", move || serve(inbox)).map(drop)
}

/// Like `post`, for what can be lost: refused already when the queue is half full.
pub fn post_minor(job: impl FnOnce() + Send + 'static) -> bool {
    INBOX.get().is_some_and(|inbox| inbox.jobs.len() < JOBS_MAX / 2) && post(job)
}

/// Hands `job` to the tx thread, where it must neither yield nor take long. False when it was not taken: the queue is
/// full, not started, or closed.
pub fn post(job: impl FnOnce() + Send + 'static) -> bool {
    let Some(inbox) = INBOX.get() else { return false };
    if inbox.closed.load(Ordering::Acquire) || inbox.jobs.push(Box::new(job)).is_err() {
        return false;
    }
    // Pairs with the fence in `serve`: either the fiber sees the job, or this thread sees that it is asleep.
    fence(Ordering::SeqCst);
    if inbox.asleep.load(Ordering::Relaxed) && inbox.asleep.swap(false, Ordering::AcqRel) {
        signal(inbox.event.as_raw_fd());
    }
    true
}

/// Takes no more jobs. Those that wait are run now; called on the tx thread while the host shuts down.
pub fn close() {
    if let Some(inbox) = INBOX.get() {
        inbox.closed.store(true, Ordering::Release);
        while let Some(job) = inbox.jobs.pop() {
            run(job);
        }
        signal(inbox.event.as_raw_fd());
    }
}

fn signal(event: RawFd) {
    let one: u64 = 1;
    // SAFETY: writes eight bytes that live on this stack. The counter can not overflow by ones, so it never blocks.
    unsafe { libc::write(event, (&raw const one).cast(), 8) };
}

fn serve(inbox: &'static Inbox) {
    while !inbox.closed.load(Ordering::Acquire) {
        if drain(inbox) {
            // There is more: let the loop poll its sockets before going on.
            fiber::sleep_zero();
            continue;
        }
        inbox.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if inbox.jobs.is_empty() && !inbox.closed.load(Ordering::Acquire) {
            wait_for_signal(inbox.event.as_raw_fd());
        }
        inbox.asleep.store(false, Ordering::Relaxed);
    }
}

fn wait_for_signal(event: RawFd) {
    let mut count: u64 = 0;
    // SAFETY: the descriptor lives as long as the process; the read fills eight bytes of this stack.
    unsafe {
        coio_wait(event, CoIOFlags::READ.bits(), super::TIMEOUT_MAX_S);
        libc::read(event, (&raw mut count).cast(), 8);
    }
}

/// Runs what waits, for one slice of time; true when the slice ended first.
fn drain(inbox: &Inbox) -> bool {
    let end_ns = clock::precise_ns() + SLICE_NS;
    while let Some(job) = inbox.jobs.pop() {
        run(job);
        if clock::precise_ns() >= end_ns {
            return true;
        }
    }
    false
}

fn run(job: Job) {
    // The hook has logged a panic; whoever waits for the job's outcome sees that its sender is gone.
    let _ = guard::contain(|| {
        job();
        Ok(())
    });
}
