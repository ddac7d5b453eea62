//! That nobody waits for a piece of work any more.
//!
//! A future is ended between two of its steps. A step that goes on for long (`engine::watch`) looks at this.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Clone, Debug, Default)]
pub struct Stop {
    is_set: Arc<AtomicBool>,
    /// Work that this is a part of.
    whole: Option<Arc<Stop>>,
}

impl Stop {
    /// For a part of the work, which may be over before the whole is.
    pub fn of_part(&self) -> Self {
        Self { is_set: Arc::default(), whole: Some(Arc::new(self.clone())) }
    }

    /// Ends the work, at all clones of this and its parts.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed) || self.whole.as_ref().is_some_and(|whole| whole.is_set())
    }
}
