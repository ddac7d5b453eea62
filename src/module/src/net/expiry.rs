//! Deadlines of calls without a timer for each: one fiber sleeps until the earliest deadline it knows, then looks through
//! everything under way. A call that is answered in time has cost one comparison.

use crate::host::clock::{Deadline, now_s};
use crate::host::fiber::{self, FiberHandle};
use model::Result;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

/// Two scans are at least so far apart, which also is how late a call may time out.
const SCAN_GAP_S: f64 = 0.002;

/// Something with deadlines.
pub trait Expire {
    /// Ends what is late; answers the earliest deadline of the rest.
    fn expire(&self) -> Deadline;
}

pub struct Expiry {
    earliest: Cell<Deadline>,
    watched: RefCell<Vec<Weak<dyn Expire>>>,
    fiber: RefCell<Option<FiberHandle>>,
}

impl Expiry {
    pub fn start() -> Result<Rc<Expiry>> {
        let expiry = Rc::new(Expiry {
            earliest: Cell::new(Deadline::NEVER),
            watched: RefCell::new(Vec::new()),
            fiber: RefCell::new(None),
        });
        let weak = Rc::downgrade(&expiry);
        let handle = fiber::spawn("pico_expiry", move || run(&weak))?;
        *expiry.fiber.borrow_mut() = Some(handle);
        Ok(expiry)
    }

    pub fn watch(&self, watched: Weak<dyn Expire>) {
        self.watched.borrow_mut().push(watched);
    }

    /// Makes sure that somebody looks when `deadline` has passed.
    #[inline]
    pub fn note(&self, deadline: Deadline) {
        if deadline < self.earliest.get() {
            self.earliest.set(deadline);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(fiber) = &*self.fiber.borrow() {
            fiber.wake();
        }
    }

    fn scan(&self) {
        self.earliest.set(Deadline::NEVER);
        let watched: Vec<_> = {
            let mut watched = self.watched.borrow_mut();
            watched.retain(|weak| weak.strong_count() > 0);
            watched.iter().filter_map(Weak::upgrade).collect()
        };
        for something in watched {
            let next = something.expire();
            self.earliest.set(self.earliest.get().min(next));
        }
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        // The fiber finds its weak reference dead and ends.
        self.wake();
    }
}

fn run(weak: &Weak<Expiry>) {
    let mut scan_after_s = 0.0;
    while let Some(expiry) = weak.upgrade() {
        if expiry.earliest.get().has_passed() && now_s() >= scan_after_s {
            expiry.scan();
            scan_after_s = now_s() + SCAN_GAP_S;
        }
        let sleep_s = expiry.earliest.get().left_s().max(scan_after_s - now_s());
        drop(expiry);
        fiber::doze(sleep_s);
        if fiber::is_cancelled() {
            return;
        }
    }
}
