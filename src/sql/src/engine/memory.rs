//! Memory of queries: one bounded pool for the instance, and a bound for each query within it.

use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one query, or one fragment of it in this process, may take of the instance's pool.
#[derive(Debug)]
pub struct QueryPool {
    parent: Arc<dyn MemoryPool>,
    bytes_max: usize,
    bytes: AtomicUsize,
}

impl QueryPool {
    pub fn new(parent: Arc<dyn MemoryPool>, bytes_max: usize) -> Self {
        Self { parent, bytes_max, bytes: AtomicUsize::new(0) }
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query({} of {} bytes)", self.reserved(), self.bytes_max)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.parent.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.parent.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.parent.grow(reservation, additional);
        self.bytes.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.parent.shrink(reservation, shrink);
        self.bytes.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        let grown = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
            bytes.checked_add(additional).filter(|bytes| *bytes <= self.bytes_max)
        });
        if grown.is_err() {
            let message = format!("its limit is {} bytes", self.bytes_max);
            return Err(DataFusionError::ResourcesExhausted(message));
        }
        self.parent.try_grow(reservation, additional).inspect_err(|_| {
            self.bytes.fetch_sub(additional, Ordering::Relaxed);
        })
    }

    fn reserved(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes_max)
    }
}
