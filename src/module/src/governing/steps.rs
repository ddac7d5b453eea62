//! The governor's steps carried out: proposals here, requests to instances through their doors.
//!
//! A door does its work and leaves the result in the instance's facts, from where it reaches the leader with the next
//! report. Every door may be called twice.

use super::SCHEMA_DOOR;
use crate::host::{Call, Deadline, Parked, failpoint};
use crate::net::CallError;
use crate::node::Node;
use crate::{lineage, propose, schema_work};
use boot::Address;
use governor::Step;
use model::msgpack::*;
use model::{Code, InstanceName, Result};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long one step may take; the governor plans again in any case.
const STEP_TIMEOUT_MS: u64 = 5_000;
/// How long a voter may take to take the leadership over; Raft gives the attempt up by itself about then.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(1);

pub fn carry_out(node: &'static Node, step: &Step) -> Result<()> {
    let deadline = Deadline::after_ms(STEP_TIMEOUT_MS);
    match step {
        // Not through the next leader, when this one is none any more: that plans by itself, on what it sees.
        Step::Propose(entry) => match propose::propose_here(node, entry.to_bytes()?, deadline) {
            // Somebody else was first; the next plan sees it.
            Err(error) if error.code == Code::Conflict => Ok(()),
            other => other.map(drop),
        },
        Step::ChangeMembership { voters, learners } => {
            let (voters, learners) = (voters.iter().copied().collect(), learners.iter().copied().collect());
            node.raft.change_members(voters, learners, deadline)
        }
        Step::TransferLeadership { to } => {
            node.raft.transfer_leader(*to);
            // Until it is over: what is done without waiting would be planned again before anything is sent.
            let until = deadline.min(Deadline::after(TRANSFER_TIMEOUT));
            while node.raft.is_leader() && node.raft.changed.wait(until) == Parked::Woken {}
            Ok(())
        }
        Step::ConfigureReplication { replicaset, term, instance, peers } => {
            ask(node, instance, lineage::FOLLOW_DOOR, &lineage::follow_args(replicaset, *term, peers), deadline)
        }
        Step::Fence { replicaset, term, instances, reach } => {
            let args = lineage::fence_args(replicaset, *term, reach.as_ref())?;
            ask_all(node, instances, lineage::FENCE_DOOR, &args, deadline)
        }
        Step::ApplySchema { id, instances } => {
            let mut args = Vec::new();
            write_array_len(&mut args, 1);
            write_uint(&mut args, *id);
            ask_all(node, instances, SCHEMA_DOOR, &args, deadline)
        }
    }
}

/// Has an instance, this one too, carry out what a door does.
pub fn ask(
    node: &'static Node,
    name: &InstanceName,
    door: &'static str,
    args: &[u8],
    deadline: Deadline,
) -> Result<()> {
    if *name == node.me.name {
        let door = crate::host::door::find(door).ok_or_else(|| crate::host::door::not_open(door))?;
        return door.run(args).map(drop);
    }
    let address: Address = node.state().topology.instance(name)?.address.parse()?;
    node.call(&address, door, args, deadline).map(drop).map_err(CallError::for_read)
}

/// Asks instances side by side; the first failure counts.
fn ask_all(
    node: &'static Node,
    names: &BTreeSet<InstanceName>,
    door: &'static str,
    args: &[u8],
    deadline: Deadline,
) -> Result<()> {
    let tasks: Vec<crate::side_by_side::Task<Result<()>>> = names
        .iter()
        .map(|name| {
            let (name, args) = (name.clone(), args.to_vec());
            let task = move || ask(node, &name, door, &args, deadline);
            Box::new(task) as crate::side_by_side::Task<Result<()>>
        })
        .collect();
    let fibers_max = tasks.len();
    crate::side_by_side::run("pico_ask", fibers_max, tasks)?.into_iter().collect()
}

/// `picodata.peer.apply_schema(id)`: a master does what the pending change asks for, a replica waits to see it.
pub fn serve_apply_schema(call: &mut Call<'_>) -> Result<()> {
    let node = super::node()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let id = reader.uint()?;
    let deadline = Deadline::after_ms(STEP_TIMEOUT_MS);
    let pending = node.wait_for(deadline, "the schema change", |state| {
        let is_past = state.schema.pending.as_ref().is_none_or(|pending| pending.id > id)
            && state.schema.finished.contains_key(&id);
        let pending = state.schema.pending.clone().filter(|pending| pending.id == id);
        if is_past { Some(None) } else { pending.map(Some) }
    })?;
    let Some(pending) = pending else { return Ok(()) };
    failpoint::reach("schema.asked");
    let outcome = match schema_work::build(node, &pending, deadline) {
        Ok(()) => None,
        // Not a refusal: the leader asks again.
        Err(error) if error.code.is_retryable() => return Err(error),
        Err(error) => Some(error.to_string()),
    };
    failpoint::reach("schema.built");
    *node.facts.schema.borrow_mut() = Some((id, outcome));
    node.facts.changed.notify_all();
    Ok(())
}
