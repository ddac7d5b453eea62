//! Buckets changing hands.

use model::InstanceName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One instance's time as master in one life of its process. What a side of a move promises holds for its tenure: the
/// catalog refuses to finish a move on the word of a master that has since restarted or been replaced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tenure {
    pub instance: InstanceName,
    pub incarnation: u64,
    pub master_term: u64,
}

impl fmt::Display for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.instance, self.incarnation, self.master_term)
    }
}

/// Where a move stands in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MovePhase {
    /// The source owns the buckets, the destination pulls them.
    Copying,
    /// The destination owns the buckets, the source has a copy to delete.
    Finished,
    /// The source owns the buckets still, the destination has a copy to delete.
    Aborted,
}
