//! Several pieces of work at the same time, each on a fiber, for one caller that waits for all.

use crate::host::{Deadline, Event, fiber};
use model::{Code, Error, Result};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A piece of work. It runs to its end even when the caller is cancelled.
pub type Task<T> = Box<dyn FnOnce() -> T>;

struct Work<T> {
    tasks: RefCell<Vec<Option<Task<T>>>>,
    results: RefCell<Vec<Option<T>>>,
    next: Cell<usize>,
    left: Cell<usize>,
    done: Event,
}

impl<T> Work<T> {
    /// Takes tasks one after the other until there are none.
    fn run(&self) {
        loop {
            let at = self.next.get();
            let task = match self.tasks.borrow_mut().get_mut(at) {
                Some(task) => task.take(),
                None => return,
            };
            self.next.set(at + 1);
            if let Some(task) = task {
                let result = crate::host::guard::contain(|| Ok(task()));
                self.results.borrow_mut()[at] = result.ok();
            }
            self.left.set(self.left.get() - 1);
            if self.left.get() == 0 {
                self.done.notify_all();
            }
        }
    }
}

/// Runs the tasks, at most `fibers_max` at a time, the calling fiber being one of them. Answers in the tasks' order.
///
/// Errors: `Cancelled` when the caller is; `Internal` when a task panicked.
pub fn run<T: 'static>(name: &str, fibers_max: usize, tasks: Vec<Task<T>>) -> Result<Vec<T>> {
    let count = tasks.len();
    let work = Rc::new(Work {
        results: RefCell::new((0..count).map(|_| None).collect()),
        tasks: RefCell::new(tasks.into_iter().map(Some).collect()),
        next: Cell::new(0),
        left: Cell::new(count),
        done: Event::new()?,
    });
    for _ in 1..count.min(fibers_max) {
        let theirs = Rc::clone(&work);
        if fiber::spawn(name, move || theirs.run()).is_err() {
            // Those that run take all the tasks.
            break;
        }
    }
    work.run();
    work.done.wait_until(Deadline::NEVER, "work on other fibers", || (work.left.get() == 0).then_some(()))?;
    let results: Option<Vec<T>> = work.results.take().into_iter().collect();
    results.ok_or_else(|| Error::new(Code::Internal, "a part of the request failed by a defect of picodata"))
}
