//! Fibers that run what worker threads ask for and what may yield. They are kept for reuse while there is work.

use crate::host::clock::Deadline;
use crate::host::fiber::{self, Event};
use model::Result;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// Jobs beyond so many at once wait for a fiber.
const FIBERS_MAX: usize = 512;
/// A fiber without work ends after this time.
const IDLE_MS: u64 = 5_000;

pub type Job = Box<dyn FnOnce()>;

struct Fibers {
    jobs: RefCell<VecDeque<Job>>,
    work: Event,
    running: Cell<usize>,
    idle: Cell<usize>,
}

thread_local! {
    static FIBERS: RefCell<Option<Rc<Fibers>>> = const { RefCell::new(None) };
}

fn fibers() -> Result<Rc<Fibers>> {
    FIBERS.with_borrow_mut(|slot| {
        if let Some(fibers) = slot {
            return Ok(Rc::clone(fibers));
        }
        let fibers = Rc::new(Fibers {
            jobs: RefCell::default(),
            work: Event::new()?,
            running: Cell::new(0),
            idle: Cell::new(0),
        });
        Ok(Rc::clone(slot.insert(fibers)))
    })
}

/// Runs `job` in a fiber, soon. The number of jobs is bounded by the permits of `tx`; without memory for a fiber it is
/// dropped, which its sender sees.
pub fn submit(job: Job) {
    let fibers = match fibers() {
        Ok(fibers) => fibers,
        Err(error) => return log::error!("no fiber for a worker thread's request: {error}"),
    };
    fibers.jobs.borrow_mut().push_back(job);
    if fibers.jobs.borrow().len() <= fibers.idle.get() {
        return fibers.work.notify_one();
    }
    if fibers.running.get() < FIBERS_MAX {
        let worker = Rc::clone(&fibers);
        match fiber::spawn("pico_bridge", move || worker.work()) {
            Ok(_) => fibers.running.set(fibers.running.get() + 1),
            Err(error) if fibers.running.get() == 0 => {
                log::error!("no fiber for a worker thread's request: {error}");
                fibers.jobs.borrow_mut().clear();
            }
            // The fibers that run will come to it.
            Err(_) => {}
        }
    }
}

impl Fibers {
    fn work(&self) {
        loop {
            self.run_jobs();
            self.idle.set(self.idle.get() + 1);
            self.work.wait(Deadline::after_ms(IDLE_MS));
            self.idle.set(self.idle.get() - 1);
            let is_wanted = !self.jobs.borrow().is_empty();
            if !is_wanted {
                break;
            }
        }
        self.running.set(self.running.get() - 1);
    }

    fn run_jobs(&self) {
        loop {
            let job = self.jobs.borrow_mut().pop_front();
            let Some(job) = job else { return };
            // The job contains its own panics.
            job();
        }
    }
}
