//! The replication room: which rows a replicaset has kept over its changes of master, and who has others.
//!
//! Clocks come in: how many rows of each member somebody has. Out goes whether these rows are a part of the replicaset's
//! history, or a tail that a change of master left behind; how long a master may serve (`lease`); and how a follower comes
//! to be counted in (`promises`). Without I/O or a clock, so that the catalog can hold it, the governor can plan on it,
//! and tests can drive it through any life of a replicaset.

mod clock;
mod history;
pub mod lease;
mod promises;

pub use clock::Vclock;
pub use history::{CUTS_MAX, Cut, History, Kept, Stray};
pub use promises::{Follower, Promises};
