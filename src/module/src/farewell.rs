//! What an instance does before its process ends in good order: it hands its replicaset and Raft's leadership over, so that
//! nobody has to find out that it is gone.

use crate::doors::admin;
use crate::host::{Deadline, Parked};
use crate::node::{self, Node};
use consensus::FollowerState;
use model::Result;

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

fn hand_replicaset_over(node: &Node) -> Result<()> {
    let state = node.state();
    let Some(record) = state.topology.instances.get(&node.me.name).filter(|record| record.is_online()) else {
        return Ok(());
    };
    let Some(replicaset) = state.topology.replicasets.get(&record.replicaset) else { return Ok(()) };
    let is_other = |other: &catalog::Instance| other.name != node.me.name && other.is_online();
    let has_heir =
        state.topology.members(&replicaset.name).any(|m| is_other(m) && replicaset.in_sync.contains(&m.name));
    if replicaset.master.as_ref() != Some(&node.me.name) || !has_heir {
        return Ok(());
    }
    let master = admin::hand_over(node, &replicaset.name, None, Deadline::after_ms(REPLICASET_MS))?;
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
