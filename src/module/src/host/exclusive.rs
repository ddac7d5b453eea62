//! Work of which one piece runs at a time: fibers that come meanwhile wait for their turn.

use super::{Deadline, Event, guard};
use model::Result;
use std::cell::Cell;
use std::rc::Rc;

pub struct Exclusive {
    /// What the others are told they wait for.
    name: &'static str,
    busy: Cell<bool>,
    idle: Event,
}

impl Exclusive {
    /// Errors: `Storage` when there is no memory.
    pub fn new(name: &'static str) -> Result<Rc<Self>> {
        Ok(Rc::new(Self { name, busy: Cell::new(false), idle: Event::new()? }))
    }

    /// Runs `work` when no other is running.
    ///
    /// Errors: `Timeout` and `Cancelled` before it began; `Internal` when it panicked; its own.
    pub fn run<T>(&self, deadline: Deadline, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.idle.wait_until(deadline, self.name, || (!self.busy.get()).then_some(()))?;
        self.busy.set(true);
        let result = guard::contain(work);
        self.busy.set(false);
        self.idle.notify_all();
        result
    }
}
