//! A whole cluster in memory, for tests: replicasets with real stored tuples, a bucket map, and fragments that are
//! really serialised and answered by the engine of the replicaset they are sent to.
//!
//! Tests build the same tables on one, two and three replicasets and expect the same answers.

mod catalog;
mod cluster;
pub mod point;
mod schema;
mod session;
pub mod slt;
mod store;

pub use cluster::{FragmentRunner, MemoryCluster, MemoryNode};
pub use schema::{MemorySchema, TIER, TableBuilder};
pub use session::Session;
pub use store::{Store, encode as encode_tuple};
