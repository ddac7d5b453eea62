//! Threads that compute for long offer the processor to others again and again, whatever they are at: workers always, the
//! tx thread while the host reads its files in one step at a start.
//!
//! A step of a query may compute for long without a system call: the side of a join that becomes a table, a sort, a window.
//! Where processors are few, a kernel lets a thread that it owes some time finish its turn, up to the next tick of 4 ms,
//! whoever woke up meanwhile; with it waits every request of the instance. So a thread yields when it has asked the tx thread
//! for something, and each has a timer, whose signal makes it yield when it has not done so since the last one.
//!
//! A timer runs while its thread has something to do, and once more: the handler stops it when it finds the thread parked.
//! Threads that park and wake by the microsecond pay for a flag, and those that yield by themselves for a signal now and then.

use super::clock;
use std::cell::OnceCell;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, compiler_fence};

/// By default nothing is done about it, and neither the host nor tokio uses it.
const SIGNAL: libc::c_int = libc::SIGURG;
/// How often a thread is interrupted that does not yield by itself, and how often it is looked whether one does.
const TURN_NS: i64 = 300_000;
const LOOK_NS: i64 = 2_000_000;
/// A thread keeps the processor for as much time of its own between two yields,
const OWN_TURN_NS: u64 = 200_000;
/// and for this part of the time that the last yield took from it: the scheduler lets those that yield wait for more than
/// their turn, and where others never rest a thread that yields all the time would hardly run at all.
const AWAY_PER_OWN_TURN: u64 = 4;

/// Of one thread. Stays as long as the process: a signal may be on its way.
struct Turns {
    /// None where one can not be made: then the thread yields only when it asks for something.
    timer: Option<libc::timer_t>,
    is_parked: AtomicBool,
    /// 0 when the timer does not run.
    interval_ns: AtomicI64,
    /// Since the last signal.
    has_yielded: AtomicBool,
    /// Processor time of the thread from which on it may yield again.
    next_cpu_ns: AtomicU64,
}

// SAFETY: the timer is a number of the process, which any thread may name.
unsafe impl Sync for Turns {}

thread_local! {
    static TURNS: OnceCell<&'static Turns> = const { OnceCell::new() };
}

/// The calling thread has something to do again.
pub fn unpark() {
    let turns = TURNS.with(|turns| *turns.get_or_init(Turns::of_this_thread));
    turns.is_parked.store(false, Ordering::Relaxed);
    // The handler runs on this thread between two instructions, so their order is all that counts.
    compiler_fence(Ordering::SeqCst);
    if turns.interval_ns.load(Ordering::Relaxed) == 0 {
        turns.set_interval(LOOK_NS);
    }
}

/// The calling thread is about to wait.
pub fn park() {
    if let Some(turns) = TURNS.with(|turns| turns.get().copied()) {
        turns.is_parked.store(true, Ordering::Relaxed);
    }
}

/// Computes for long, in one piece.
pub fn giving_way<T>(compute: impl FnOnce() -> T) -> T {
    struct Meanwhile(&'static Turns);
    impl Drop for Meanwhile {
        fn drop(&mut self) {
            self.0.end();
        }
    }
    let meanwhile = Meanwhile(Turns::of_this_thread());
    meanwhile.0.set_interval(LOOK_NS);
    compute()
}

/// Lets others run that wait for this processor, if this thread has had it for a while.
pub fn give_way() {
    if let Some(turns) = TURNS.with(|turns| turns.get().copied())
        && turns.offer()
    {
        turns.has_yielded.store(true, Ordering::Relaxed);
    }
}

impl Turns {
    fn of_this_thread() -> &'static Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(install_handler);
        let turns = Box::into_raw(Box::new(Self {
            timer: None,
            is_parked: AtomicBool::new(false),
            interval_ns: AtomicI64::new(0),
            has_yielded: AtomicBool::new(false),
            next_cpu_ns: AtomicU64::new(0),
        }));
        // SAFETY: the structures live on this stack, and 0 is a value of all their fields. The handler gets a pointer to
        // what is never freed, and shared from here on.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_notify_thread_id = libc::gettid();
            event.sigev_signo = SIGNAL;
            event.sigev_value.sival_ptr = turns.cast();
            let mut timer = ptr::null_mut();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0 {
                (*turns).timer = Some(timer);
            }
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, SIGNAL);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
            &*turns
        }
    }

    /// Yields if the thread has used enough processor time since the last time; answers whether. Allowed in a handler.
    fn offer(&self) -> bool {
        if cpu_ns() < self.next_cpu_ns.load(Ordering::Relaxed) {
            return false;
        }
        let began_ns = clock::precise_ns();
        // SAFETY: has no preconditions.
        unsafe { libc::sched_yield() };
        let away_ns = clock::precise_ns().saturating_sub(began_ns);
        let own_ns = OWN_TURN_NS.max(away_ns / AWAY_PER_OWN_TURN);
        self.next_cpu_ns.store(cpu_ns() + own_ns, Ordering::Relaxed);
        true
    }

    /// Does away with the timer. A signal that is on its way finds nothing to do.
    fn end(&self) {
        let Some(timer) = self.timer else { return };
        self.is_parked.store(true, Ordering::Relaxed);
        self.interval_ns.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: a timer of this thread that nobody names from here on.
        unsafe { libc::timer_delete(timer) };
    }

    /// Lets the timer fire at each interval from now on; 0 stops it. Allowed in a handler.
    fn set_interval(&self, ns: i64) {
        let Some(timer) = self.timer else { return };
        if self.interval_ns.swap(ns, Ordering::Relaxed) == ns {
            return;
        }
        let interval = libc::timespec { tv_sec: 0, tv_nsec: ns };
        let times = libc::itimerspec { it_interval: interval, it_value: interval };
        // SAFETY: a timer that is there, and times on this stack.
        unsafe { libc::timer_settime(timer, 0, &raw const times, ptr::null_mut()) };
    }
}

/// Processor time of the calling thread.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a structure on this stack; the clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

fn install_handler() {
    // SAFETY: the structure lives on this stack, 0 is a value of all its fields, and the handler has the type that goes
    // with SA_SIGINFO.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(SIGNAL, &raw const action, ptr::null_mut());
    }
}

/// Makes system calls only, and leaves `errno` as it is.
extern "C" fn on_signal(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands over a valid structure. The value of a timer's signal is the pointer that the timer was
    // made with; signals that somebody sends have another code.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        if (*info).si_code == libc::SI_TIMER {
            let turns = &*(*info).si_value().sival_ptr.cast::<Turns>();
            if turns.is_parked.load(Ordering::Relaxed) {
                turns.set_interval(0);
            } else if turns.has_yielded.swap(false, Ordering::Relaxed) {
                turns.set_interval(LOOK_NS);
            } else {
                turns.set_interval(TURN_NS);
                turns.offer();
            }
        }
        *errno = before;
    }
}
