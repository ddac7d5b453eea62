//! Replication is set up among all members of a replicaset: everyone knows everyone, so that any can become master.
//!
//! Not while a term has no master: its members have just stopped following the old one.

use crate::{Step, View};
use catalog::Replicaset;
use std::collections::BTreeSet;

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    view.state.topology.replicasets.values().flat_map(|replicaset| set_up(view, replicaset)).collect()
}

fn set_up(view: &View<'_>, replicaset: &Replicaset) -> Vec<Step> {
    if replicaset.master.is_none() && !replicaset.in_sync.is_empty() {
        return vec![];
    }
    let members = || view.state.topology.members(&replicaset.name);
    let wanted: BTreeSet<String> = members().map(|member| member.address.clone()).collect();
    let mut wrong: Vec<_> = members()
        .filter(|member| view.can_ask(member))
        .filter(|member| view.observed(member).and_then(|o| o.peers.as_ref()).is_some_and(|peers| *peers != wanted))
        .collect();
    // The master first: a newcomer waits for it to answer.
    wrong.sort_by_key(|member| (replicaset.master.as_ref() != Some(&member.name), member.raft_id));
    let configure = |instance: &catalog::Instance| Step::ConfigureReplication {
        replicaset: replicaset.name.clone(),
        instance: instance.name.clone(),
        peers: wanted.clone(),
    };
    wrong.into_iter().map(configure).collect()
}
