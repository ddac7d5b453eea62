//! What is to happen, in the order of the pretended clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Events by time, then by the order in which they were scheduled.
#[derive(Debug)]
pub struct Queue<E> {
    order: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, E>,
    scheduled: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { order: BinaryHeap::new(), events: BTreeMap::new(), scheduled: 0 }
    }
}

impl<E> Queue<E> {
    pub fn schedule(&mut self, at_us: u64, event: E) {
        self.scheduled += 1;
        self.order.push(Reverse((at_us, self.scheduled)));
        self.events.insert(self.scheduled, event);
    }

    /// The next event and its time.
    pub fn next(&mut self) -> Option<(u64, E)> {
        let Reverse((at_us, number)) = self.order.pop()?;
        Some((at_us, self.events.remove(&number)?))
    }
}
