//! A stray instance throws its data away and joins again under its name: as soon as it has no vote in Raft, because its
//! votes and its log go with the data, and as soon as somebody else is there to ask for its place.
//!
//! What it knows of its vote may be old. A life of the process that has called itself ready may be on its way to become
//! online, and a voter, without having heard of it: such a life begins another one first, which never calls itself ready.

use super::replicaset;
use crate::host::process;
use crate::node::Node;
use crate::start;
use boot::Address;
use model::Result;
use std::collections::BTreeSet;

pub fn begin_if_possible(node: &'static Node) -> Result<()> {
    let state = node.state();
    let Some(replicaset) = replicaset(node, &state) else { return Ok(()) };
    let record = state.topology.instances.get(&node.me.name);
    let is_counted_on = record.is_none_or(|me| me.is_online() || me.incarnation != node.facts.incarnation.get());
    let is_voter = node.raft.status().membership.is_voter(node.me.raft_id);
    if is_counted_on || is_voter || replicaset.needs(&node.me.name) {
        return Ok(());
    }
    let others = state.topology.instances.values().filter(|other| other.is_online() && other.name != node.me.name);
    let members: BTreeSet<Address> = others.filter_map(|other| other.address.parse().ok()).collect();
    if members.is_empty() {
        return Ok(());
    }
    if node.lineage.has_tail.get() && node.facts.was_ready.get() {
        log::warn!("picodata: instance {} begins another life, in which nobody counts on it", node.me.name);
        return Err(process::begin_again());
    }
    log::warn!("picodata: instance {} throws its data away and joins again", node.me.name);
    start::start_anew(&node.me.cluster_id, members)
}
