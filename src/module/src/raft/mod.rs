//! Raft inside Tarantool: the consensus room's node driven by one fiber, its log in local spaces.
//!
//! In come messages of peers and proposals of this instance; out come the catalog's state (`Published`), the rows of
//! global tables, and messages to peers.

pub mod disk;
pub mod machine;
pub mod runtime;
pub mod transport;
pub mod watch;

pub use machine::{Machine, Published, Rows};
pub use runtime::Runtime;
pub use transport::Transport;
