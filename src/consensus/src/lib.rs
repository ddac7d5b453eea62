//! The consensus room: one Raft node as a machine without I/O, clock or randomness of its own.
//!
//! In come ticks, messages of other nodes (untrusted bytes), proposals and reads. Out comes a `Ready`: what to write to
//! disk, what to send before and after it is there, what is committed and may be applied. Whoever drives the node,
//! the module on box spaces or the simulator on pretended disks, does what a `Ready` says and reports back with
//! `persisted`. The algorithm is tikv's raft-rs; this room keeps it away from everybody else, feeds it only messages
//! that it can digest, and decides how its log looks on disk.

mod codec;
mod config;
mod handout;
mod log;
mod logger;
mod membership;
mod message;
mod node;
mod reads;
mod ready;
mod rng;
mod status;

pub use config::Config;
pub use log::Log;
pub use membership::Membership;
pub use message::describe;
pub use node::Node;
pub use ready::{Committed, LogRow, Outgoing, Payload, Persist, Position, Ready, Snapshot, StateKey};
pub use rng::Rng;
pub use status::{Follower, FollowerState, Role, Status};
