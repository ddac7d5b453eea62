//! This instance's lease as a master: until when it is certain that nobody else is master in its place.
//!
//! The leader's calls for reports renew it; see `replication::lease` for why no two leases meet. It is looked at before
//! every piece of work, on a clock that also counts while this thread was stopped: no timer has to fire in time.

use crate::host::clock;
use crate::router;
use replication::lease;
use std::cell::Cell;

thread_local! {
    static END_NS: Cell<u64> = const { Cell::new(0) };
    /// About when this process began: no stamp of its own is older.
    static BEGAN_NS: u64 = clock::precise_ns();
}

/// Whether this instance may serve what it is the master of, as of now.
#[inline]
pub fn holds() -> bool {
    clock::precise_ns() < END_NS.get()
}

/// The leader has sent a stamp of this instance back. Never makes a lease shorter.
///
/// A stamp that an earlier process gave at this address is of another start of the machine, if not of another machine, and
/// says nothing on this clock.
pub fn renew(stamp_ns: u64, lease_ms: u64) {
    if !(BEGAN_NS.with(|began_ns| *began_ns)..=clock::precise_ns()).contains(&stamp_ns) {
        return;
    }
    let had_lease = holds();
    END_NS.set(END_NS.get().max(lease::end(stamp_ns, lease_ms.saturating_mul(1_000_000))));
    if !had_lease && holds() {
        // Who was refused for the lack of it tries again.
        if let Ok(router) = router::get() {
            router.changed.notify_all();
        }
    }
}
