//! Raft's messages between instances: `picodata.peer.raft(from, address, message)`, sent without waiting for the answer.
//!
//! The sender's address comes along, for an instance that has no catalog yet must be able to answer.

use crate::host::{Call, Deadline, fiber};
use crate::net::CallError;
use crate::node::{self, Node};
use catalog::InstanceState;
use model::msgpack::{Reader, write_array_len, write_bin, write_str, write_uint};
use model::{RaftId, Result};
use std::time::Duration;

pub const DOOR: &str = "picodata.peer.raft";

/// A snapshot that takes longer than this is sent anew.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends one message. Errors: the peer is not known or its connection is down; Raft repeats what matters.
pub fn send(node: &'static Node, to: RaftId, message: Vec<u8>, is_snapshot: bool) -> Result<()> {
    let address = node.address_of(to)?;
    let mut args = Vec::with_capacity(message.len() + 48);
    write_array_len(&mut args, 3);
    write_uint(&mut args, node.me.raft_id);
    write_str(&mut args, &node.config.advertise.to_string());
    write_bin(&mut args, &message);
    if !is_snapshot {
        let peer = node.pool.peer(&address.to_string())?;
        return peer.send(DOOR, &args).map_err(CallError::for_read);
    }
    fiber::spawn("pico_snapshot", move || {
        let sent = node.call(&address, DOOR, &args, Deadline::after(SNAPSHOT_TIMEOUT));
        node.raft.snapshot_sent(to, sent.is_ok());
    })
    .map(drop)
}

/// The door: hands the message to the fiber that drives Raft.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let from = reader.uint()?;
    let address = reader.str()?;
    let node = node::get()?;
    // Who was given up, or expelled, may not know: with others like it, it could take itself for the cluster.
    if node.state().topology.instance_by_raft_id(from).is_some_and(|sender| sender.state == InstanceState::Expelled) {
        return Ok(());
    }
    node.heard_from(from, address)?;
    node.raft.step(reader.bin()?.to_vec());
    Ok(())
}
