//! What an instance does before its process ends in good order: it hands its replicaset and Raft's leadership over, so that
//! nobody has to find out that it is gone.

use crate::doors::admin;
use crate::host::{Deadline, Parked};
use crate::node::{self, Node};
use consensus::FollowerState;
use model::{Code, Error, Result};

/// How long the end of the process is put off for each of the two.
const REPLICASET_MS: u64 = 2_000;
const RAFT_MS: u64 = 1_000;

pub fn say() {
    let Ok(node) = node::get() else { return };
    if let Err(error) = hand_replicaset_over(node) {
        log::warn!("picodata: this instance ends as a master: {error}");
    }
    hand_raft_over(node);
}

/// Tries again while another member is there that may be in sync soon, as after a change of master a moment ago.
fn hand_replicaset_over(node: &Node) -> Result<()> {
    let deadline = Deadline::after_ms(REPLICASET_MS);
    loop {
        match try_to_hand_over(node, deadline) {
            Err(error) if error.code == Code::Conflict && node.raft.changed.wait(deadline) == Parked::Woken => {}
            outcome => return outcome,
        }
    }
}

fn try_to_hand_over(node: &Node, deadline: Deadline) -> Result<()> {
    let state = node.state();
    let Some(record) = state.topology.instances.get(&node.me.name).filter(|record| record.is_online()) else {
        return Ok(());
    };
    let Some(replicaset) = state.topology.replicasets.get(&record.replicaset) else { return Ok(()) };
    let is_other = |other: &&catalog::Instance| other.name != node.me.name && other.is_online();
    let mut others = state.topology.members(&replicaset.name).filter(is_other).peekable();
    if replicaset.master.as_ref() != Some(&node.me.name) || others.peek().is_none() {
        return Ok(());
    }
    if !others.any(|other| replicaset.in_sync.contains(&other.name)) {
        return Err(Error::new(Code::Conflict, "no other member is in sync"));
    }
    let master = admin::hand_over(node, &replicaset.name, None, deadline)?;
    log::info!("picodata: {master} is the master in place of this instance, which ends");
    Ok(())
}

fn hand_raft_over(node: &Node) {
    let status = node.raft.status();
    if !node.raft.is_leader() {
        return;
    }
    let is_fit = |follower: &&consensus::Follower| {
        follower.is_active
            && follower.state == FollowerState::Replicate
            && status.membership.voters.contains(&follower.raft_id)
    };
    let Some(heir) = status.followers.iter().filter(is_fit).max_by_key(|follower| follower.matched) else { return };
    node.raft.transfer_leader(heir.raft_id);
    let deadline = Deadline::after_ms(RAFT_MS);
    while node.raft.is_leader() && node.raft.changed.wait(deadline) == Parked::Woken {}
}
