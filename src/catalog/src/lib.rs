//! The catalog room: the cluster's replicated state machine.
//!
//! Entries of the Raft log come in, in the same order on every instance; the state and what the module has to act on
//! go out. Nothing else changes what the cluster knows about itself: who belongs to it, which tables it has, who owns
//! which buckets. Two instances at the same version have equal states, and `State::digest` proves it.

mod alter;
mod apply;
mod display;
mod mastership;
mod membership;
pub mod op;
pub mod placement;
mod recovery;
pub mod schema;
pub mod sequences;
pub mod settings;
mod shared;
pub mod state;
pub mod topology;
mod views;

pub use apply::{Change, Outcome};
pub use op::{Entry, Guard, Op, Part};
pub use placement::{Move, MoveId, Placement};
pub use recovery::Losses;
pub use schema::{PendingChange, Schema, SchemaId};
pub use sequences::{Running, Sequences};
pub use settings::{Setting, Settings};
pub use shared::Shared;
pub use state::{Cluster, State};
pub use topology::{Instance, InstanceState, Newcomer, Place, Replicaset, ReplicasetState, Tier, TierSpec, Topology};

#[cfg(test)]
mod tests;
