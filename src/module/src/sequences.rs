//! Numbers of sequences on this instance: taken from ranges that it has leased through the catalog.
//!
//! A lease is an entry of the log, so a number is this instance's alone before it is handed out. What is leftover when
//! the process ends is lost: sequences have gaps, never the same number twice.

use crate::host::{Deadline, Event};
use crate::node;
use catalog::Op;
use model::{Code, Error, Result, Sequence, SequenceId};
use sql::cluster::sequence_is_used_up;
use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};

/// Numbers that one statement takes at most.
const NUMBERS_MAX: usize = 1_000_000;

/// Numbers that are left of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    from: i64,
    count: u32,
}

struct Leases {
    left: RefCell<HashMap<SequenceId, Lease>>,
    /// Sequences for which a lease is on its way: others wait for it.
    asked: RefCell<HashSet<SequenceId>>,
    answered: Event,
}

thread_local! {
    static LEASES: OnceCell<&'static Leases> = const { OnceCell::new() };
}

fn leases() -> Result<&'static Leases> {
    LEASES.with(|cell| match cell.get() {
        Some(leases) => Ok(*leases),
        None => {
            let leases = Leases { left: RefCell::default(), asked: RefCell::default(), answered: Event::new()? };
            Ok(*cell.get_or_init(|| Box::leak(Box::new(leases))))
        }
    })
}

/// The next `count` numbers of a sequence. Called on a fiber of the tx thread.
///
/// Errors: `ValueOutOfRange` at the end of the sequence, `SchemaChanged` when it was dropped, `LimitExceeded`,
/// `Timeout`, `NoLeader`; numbers that were taken before the error are lost.
pub fn take(sequence: &Sequence, count: usize, deadline: Deadline) -> Result<Vec<i64>> {
    if count > NUMBERS_MAX {
        let message = format!("a statement takes at most {NUMBERS_MAX} numbers of a sequence");
        return Err(Error::new(Code::LimitExceeded, message));
    }
    let leases = leases()?;
    let mut numbers = Vec::with_capacity(count);
    loop {
        leases.take(sequence, count, &mut numbers);
        if numbers.len() == count {
            return Ok(numbers);
        }
        leases.renew(sequence, count - numbers.len(), deadline)?;
    }
}

impl Leases {
    fn take(&self, sequence: &Sequence, count: usize, numbers: &mut Vec<i64>) {
        let mut left = self.left.borrow_mut();
        let Some(lease) = left.get_mut(&sequence.id) else { return };
        while numbers.len() < count && lease.count > 0 {
            numbers.push(lease.from);
            lease.count -= 1;
            // The last number of all may have none after it.
            lease.from = lease.from.saturating_add(sequence.increment);
        }
        if lease.count == 0 {
            left.remove(&sequence.id);
        }
    }

    /// Leases numbers, or waits for the fiber that does.
    fn renew(&self, sequence: &Sequence, missing: usize, deadline: Deadline) -> Result<()> {
        if !self.asked.borrow_mut().insert(sequence.id) {
            let is_answered = || (!self.asked.borrow().contains(&sequence.id)).then_some(());
            return self.answered.wait_until(deadline, "numbers of a sequence", is_answered);
        }
        let leased = crate::host::guard::contain(|| lease(sequence, missing, deadline));
        self.asked.borrow_mut().remove(&sequence.id);
        self.answered.notify_all();
        self.left.borrow_mut().insert(sequence.id, leased?);
        Ok(())
    }
}

/// Leases numbers from the catalog; tries again while others are faster.
fn lease(sequence: &Sequence, missing: usize, deadline: Deadline) -> Result<Lease> {
    let node = node::get()?;
    let wanted = u32::try_from(missing).unwrap_or(u32::MAX).max(sequence.cache);
    loop {
        let state = node.state();
        let running = state
            .sequences
            .running
            .get(&sequence.id)
            .ok_or_else(|| Error::new(Code::SchemaChanged, "the sequence was dropped while a statement used it"))?;
        let from = running.next.ok_or_else(|| sequence_is_used_up(&running.sequence))?;
        let (count, _) = running.sequence.range(from, wanted);
        match node.propose(Op::SequenceLease { id: sequence.id, from, count }, deadline) {
            Ok(_) => return Ok(Lease { from, count }),
            Err(error) if error.code == Code::Conflict && !deadline.has_passed() => {
                // Somebody else leased from here: this instance hears of it next.
                node.raft.catch_up(deadline)?;
            }
            Err(error) => return Err(error),
        }
    }
}
