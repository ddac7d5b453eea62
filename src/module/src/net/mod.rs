//! Connections between instances, in the tx thread's fibers.
//!
//! A `Pool` has one `Peer` for each address; a peer connects when it is first needed and again after a break. Calls of
//! all fibers share the peer's `Link`: they append to its outbound buffer, one fiber writes it once a loop turn, another
//! takes the answers apart and wakes who waits. Single operations of a loop turn travel together as one call.
//!
//! `mini_server` is the other end before `box.cfg`, when the host's own server does not listen yet.

pub mod error;
mod expiry;
pub mod follower;
mod handshake;
mod link;
pub mod mini_server;
pub mod peer;
pub mod pool;
mod socket;

pub use error::{CallError, Fate};
pub use mini_server::MiniServer;
pub use peer::Peer;
pub use pool::{LinkEvent, Pool};
pub use socket::{Listener, Socket};
pub use wire::outbound::Priority;

/// The user by which instances know one another; its password is the cluster's secret.
pub const SERVICE_USER: &str = "pico_service";
/// The user by which followers ask for rows; its password is the same.
pub const REPLICATION_USER: &str = "pico_replication";
/// The procedure that runs a batch of operations.
pub const BATCH_PROCEDURE: &str = "picodata.peer.batch";
