//! A stray instance throws its data away and joins again under its name: as soon as it has no vote in Raft, because its
//! votes and its log go with the data, and as soon as somebody else is there to ask for its place.

use super::replicaset;
use crate::node::Node;
use crate::start;
use boot::Address;
use model::Result;
use std::collections::BTreeSet;

pub fn begin_if_possible(node: &'static Node) -> Result<()> {
    let state = node.state();
    let Some(replicaset) = replicaset(node, &state) else { return Ok(()) };
    if replicaset.needs(&node.me.name) || node.raft.status().membership.is_voter(node.me.raft_id) {
        return Ok(());
    }
    let others = state.topology.instances.values().filter(|other| other.is_online() && other.name != node.me.name);
    let members: BTreeSet<Address> = others.filter_map(|other| other.address.parse().ok()).collect();
    if members.is_empty() {
        return Ok(());
    }
    log::warn!("picodata: instance {} throws its data away and joins again", node.me.name);
    start::start_anew(&node.me.cluster_id, members)
}
