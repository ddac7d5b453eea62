//! Where Raft's messages go: from a peer's number to its address, over the connections that everything else uses too.

use model::RaftId;

/// Sends without waiting and without promise: Raft repeats what matters.
pub trait Transport {
    fn send(&self, to: RaftId, message: Vec<u8>, is_snapshot: bool);
}
