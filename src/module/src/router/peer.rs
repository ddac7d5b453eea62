//! How the router reaches other instances: what the room `net` knows of a request's fate, in this room's words.

use crate::host::Deadline;
use crate::net::{CallError, Fate, Peer, Priority};
use crud::retry::Failure;
use model::Durability;
use std::rc::Rc;

/// Sends an operation with the batch that its table's durability has in this loop turn, and waits for its answer.
///
/// Errors: what the network says. That the storage refused is in the answer.
pub fn operate(
    peer: &Rc<Peer>,
    operation: &[u8],
    durability: Durability,
    deadline: Deadline,
) -> Result<Vec<u8>, Failure> {
    peer.operate(operation, durability, deadline).map_err(failure)
}

/// Calls a door of another instance.
///
/// Errors: what the door says, as `Refused`, and what the network says.
pub fn call(peer: &Rc<Peer>, door: &str, args: &[u8], deadline: Deadline) -> Result<Vec<u8>, Failure> {
    peer.call(door, args, Priority::Normal, deadline).map_err(failure)
}

fn failure(CallError { error, fate }: CallError) -> Failure {
    match fate {
        Fate::NotSent => Failure::NotSent(error),
        Fate::Sent => Failure::NoAnswer(error),
        Fate::Answered => Failure::Refused(error, 0),
    }
}
