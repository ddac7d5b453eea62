//! Points in time on the monotonic clock, as the event loop sees it: reading it costs a few nanoseconds, and it stands
//! still while one fiber runs without yielding.

use std::time::{Duration, Instant};
use tarantool::ffi::tarantool::{clock_monotonic64, fiber_clock};

/// When something has to be over, in seconds of the monotonic clock. `Deadline::NEVER` is later than all others.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Deadline(f64);

impl Deadline {
    pub const NEVER: Deadline = Deadline(f64::INFINITY);

    pub fn after(timeout: Duration) -> Deadline {
        Deadline(now_s() + timeout.as_secs_f64())
    }

    pub fn after_ms(timeout_ms: u64) -> Deadline {
        Deadline(now_s() + timeout_ms as f64 / 1e3)
    }

    /// The same moment as `instant`, which worker threads and the SQL room use.
    pub fn at(instant: Instant) -> Deadline {
        Deadline::after(instant.saturating_duration_since(Instant::now()))
    }

    /// The moment as worker threads write it. `NEVER` becomes a day from now.
    pub fn instant(self) -> Instant {
        const DAY_S: f64 = 86_400.0;
        Instant::now() + Duration::from_secs_f64(self.left_s().min(DAY_S))
    }

    /// Seconds until then; 0 when it has passed.
    pub fn left_s(self) -> f64 {
        (self.0 - now_s()).max(0.0)
    }

    pub fn has_passed(self) -> bool {
        self.0 <= now_s()
    }

    pub fn min(self, other: Deadline) -> Deadline {
        if other.0 < self.0 { other } else { self }
    }
}

/// Seconds of the monotonic clock at the beginning of this loop turn. Works before `box.cfg`.
pub fn now_s() -> f64 {
    // SAFETY: reads the loop's cached time; every caller runs on the tx thread.
    unsafe { fiber_clock() }
}

/// Nanoseconds of the monotonic clock right now, on any thread.
pub fn precise_ns() -> u64 {
    // SAFETY: a wrapper of clock_gettime without state.
    unsafe { clock_monotonic64() }
}
