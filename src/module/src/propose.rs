//! Changes of the catalog, from any instance: `picodata.peer.propose` on the Raft leader.
//!
//! A proposal is sent again only when it is certain that nothing happened, unless it may as well happen twice.

use crate::host::{Call, Deadline, Parked};
use crate::net::Fate;
use crate::node::{self, Node};
use crate::start::join::{decode, encode};
use boot::Address;
use catalog::{Entry, Instance, InstanceState};
use model::msgpack::{Reader, write_array_len, write_bin, write_double};
use model::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub const DOOR: &str = "picodata.peer.propose";

/// When a leader is asked for again that this instance has heard nothing new of.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How long an instance is asked that may not lead.
const ASK_ANY: Duration = Duration::from_secs(2);

/// A change that was applied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Its place in the log.
    pub index: u64,
    /// The catalog version after it.
    pub version: u64,
    /// What a write to a global table answered.
    #[serde(with = "serde_bytes_option")]
    pub rows: Option<Vec<u8>>,
}

/// Proposes an entry and waits until it is applied on this instance; for a leader no longer than until `leader_by`.
pub fn propose(node: &Node, entry: &Entry, deadline: Deadline, leader_by: Deadline) -> Result<Answer> {
    let bytes = entry.to_bytes()?;
    loop {
        match attempt(node, &bytes, deadline) {
            Ok(answer) => {
                if node.raft.wait_applied(answer.index, deadline) {
                    return Ok(answer);
                }
                return Err(not_learned());
            }
            // Nothing happened: wait for a leader, or for another one.
            Err(error) if error.code == Code::NoLeader => {
                let parked = node.raft.changed.wait(leader_by.min(Deadline::after(ASK_AGAIN)));
                if leader_by.has_passed() || parked == Parked::Cancelled {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Proposes an entry that does no harm when it is applied twice, until its outcome is known.
pub fn propose_until_known(node: &Node, entry: &Entry, deadline: Deadline) -> Result<Answer> {
    loop {
        match propose(node, entry, deadline, deadline) {
            Err(error) if error.code == Code::Unknown && !deadline.has_passed() => {
                log::warn!("picodata: a proposal is made again: {error}");
            }
            outcome => return outcome,
        }
    }
}

/// The same for an instance that the others know at another address: the leader does not reach it, so it may not learn who
/// leads before its change is made. Asks all others for that.
pub fn propose_through_any(node: &Node, entry: &Entry, deadline: Deadline) -> Result<()> {
    let bytes = entry.to_bytes()?;
    loop {
        let mut last = match node.raft.status().leader {
            Some(_) => return propose_until_known(node, entry, deadline).map(drop),
            None => no_leader(),
        };
        let is_other = |other: &&Instance| other.name != node.me.name && other.state != InstanceState::Expelled;
        for instance in node.state().topology.instances.values().filter(is_other) {
            let address: Address = instance.address.parse()?;
            match ask(node, &address, &bytes, deadline.min(Deadline::after(ASK_ANY))) {
                Ok(answer) if node.raft.wait_applied(answer.index, deadline) => return Ok(()),
                Ok(_) => return Err(not_learned()),
                Err(error) if matches!(error.code, Code::NoLeader | Code::Unknown | Code::NotReady) => last = error,
                Err(error) => return Err(error),
            }
        }
        let parked = node.raft.changed.wait(deadline.min(Deadline::after(ASK_AGAIN)));
        if deadline.has_passed() || parked == Parked::Cancelled {
            return Err(last);
        }
    }
}

fn not_learned() -> Error {
    Error::new(Code::Unknown, "the change was made, but this instance did not learn of it in time")
}

fn no_leader() -> Error {
    Error::new(Code::NoLeader, "the cluster has no Raft leader just now")
}

fn attempt(node: &Node, entry: &[u8], deadline: Deadline) -> Result<Answer> {
    // It could not learn of the outcome.
    node.raft.check_running()?;
    let status = node.raft.status();
    let Some(leader) = status.leader else {
        return Err(no_leader());
    };
    if leader == node.me.raft_id {
        return propose_here(node, entry.to_vec(), deadline);
    }
    ask(node, &node.address_of(leader)?, entry, deadline)
}

/// Has the instance at an address propose.
fn ask(node: &Node, address: &Address, entry: &[u8], deadline: Deadline) -> Result<Answer> {
    let mut args = Vec::with_capacity(entry.len() + 16);
    write_array_len(&mut args, 2);
    write_bin(&mut args, entry);
    write_double(&mut args, deadline.left_s());
    match node.call(address, DOOR, &args, deadline) {
        Ok(answer) => decode(Reader::new(&answer).bin()?),
        Err(failure) if failure.fate == Fate::NotSent => Err(Error { code: Code::NoLeader, ..failure.error }),
        Err(failure) => Err(failure.for_write()),
    }
}

/// Has this instance propose as the leader, once. Errors: `NoLeader` when it is not, or has no majority behind it.
pub fn propose_here(node: &Node, entry: Vec<u8>, deadline: Deadline) -> Result<Answer> {
    let committed = node.raft.propose(entry, deadline)?;
    let version = committed.outcome.into_result()?;
    Ok(Answer { index: committed.index, version, rows: committed.rows.transpose()? })
}

/// The door on the leader: takes `[entry, seconds]`, answers an `Answer`.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    if reader.array_len()? != 2 {
        return Err(Error::new(Code::Argument, "propose takes an entry and seconds"));
    }
    let entry = reader.bin()?.to_vec();
    let deadline = Deadline::after(Duration::from_secs_f64(reader.number()?.clamp(0.0, 3600.0)));
    let node = node::get()?;
    // Another leader will be elected, which the asking instance waits for.
    node.raft.check_running().map_err(|error| Error { code: Code::NoLeader, ..error })?;
    let answer = propose_here(node, entry, deadline)?;
    let mut reply = Vec::new();
    write_bin(&mut reply, &encode(&answer)?);
    call.reply(&reply)
}

/// `Option<Vec<u8>>` as binary data.
mod serde_bytes_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(serde_bytes::Bytes::new).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<serde_bytes::ByteBuf>::deserialize(deserializer)?.map(serde_bytes::ByteBuf::into_vec))
    }
}
