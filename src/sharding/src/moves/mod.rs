//! Buckets changing hands: what each side of a move does, as two state machines.
//!
//! ```text
//! source       Active -> Sending -> Closed -> Moved -> gone
//!              reads     reads      reads
//!              writes    writes
//! catalog      Copying ------------------- Finished ----------------- (record removed)
//! destination  wiping -> pulling ...       ReadOnly -> Active
//!                                          reads       reads, writes
//! ```
//!
//! The destination pulls: the rows slice by slice, then the keys that changed meanwhile. When little is left, or what is
//! left does not shrink (`Rounds`), the source lets writes wait until the rest is sent; with the last slice they are closed. The destination stores it and proposes `MoveFinish`. Each
//! side acts on it when it has applied it; the destination takes writes when the source said that it has.
//!
//! Nothing of this is on disk but the rows and the catalog. So a side that restarts starts anew, and what it had promised
//! before must not count: a promise names the `Tenure` that made it, and the catalog finishes a move only while both
//! tenures last. A closed source opens again only when the catalog says so, by aborting or by a new tenure of the
//! destination; then a `MoveFinish` that is still on its way is void.

mod destination;
mod rounds;
mod source;

pub use destination::{Destination, DestinationCommand, DestinationState};
pub use rounds::Rounds;
pub use source::{Answer, Source, SourceCommand, SourceState};

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

/// What the catalog says about a move, at the log index that this instance has applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MoveView {
    pub index: u64,
    /// None when the record has been removed: the move is over and cleaned up.
    pub phase: Option<MovePhase>,
    /// The destination owns the buckets.
    pub moved: bool,
    /// The present masters of both sides.
    pub source: Option<Tenure>,
    pub destination: Option<Tenure>,
}

/// One copy: which tenure of the destination makes it, and its number there. Each begins with nothing, after what the one
/// before had left is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Copying {
    pub destination: Tenure,
    pub attempt: u64,
}

/// What the destination asks of the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pull {
    pub copy: Copying,
    /// The number of the last slice of this copy that is stored; 0 for none. Asks for the one after it.
    pub have: u64,
}

/// What the source answers. An answer names the copy that it is for: it may come late.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pulled<K> {
    /// Beside it go the rows that were scanned, and for each key in `changed` its present row or none. Slices of a copy
    /// are numbered from 1.
    Slice { copy: Copying, source: Tenure, number: u64, changed: Vec<K>, last: bool },
    /// The source does not know this copy any more: delete it and begin another.
    StartOver { copy: Copying },
    /// Not now: one of the two has not applied enough of the log. Ask again.
    Later,
}
