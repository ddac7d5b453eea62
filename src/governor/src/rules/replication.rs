//! Replication is a star: replicas follow the master, and the master follows nobody.
//!
//! A master that comes back after another took over may have rows that nobody acknowledged. Since nobody follows it, they
//! stay where they are until it is master again; nothing keeps it from that yet.
//!
//! Not while a term has no master: its members have just stopped following the old one.

use crate::{Step, View};
use catalog::{Instance, Replicaset};
use std::collections::BTreeSet;

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    view.state.topology.replicasets.values().flat_map(|replicaset| set_up(view, replicaset)).collect()
}

fn set_up(view: &View<'_>, replicaset: &Replicaset) -> Vec<Step> {
    if replicaset.master.is_none() && !replicaset.in_sync.is_empty() {
        return vec![];
    }
    let members = || view.state.topology.members(&replicaset.name);
    // Without any data yet, everybody waits for the first master.
    let Some(master) = members().find(|member| replicaset.master.as_ref() == Some(&member.name)) else { return vec![] };
    let wanted = |member: &Instance| -> BTreeSet<String> {
        if member.name == master.name { BTreeSet::new() } else { [master.address.clone()].into() }
    };
    let is_wrong = |member: &&Instance| {
        view.observed(member).and_then(|o| o.peers.as_ref()).is_some_and(|peers| *peers != wanted(member))
    };
    let mut wrong: Vec<_> = members().filter(|member| view.can_ask(member)).filter(is_wrong).collect();
    // The master first: a newcomer waits for it to answer.
    wrong.sort_by_key(|member| (replicaset.master.as_ref() != Some(&member.name), member.raft_id));
    let configure = |instance: &Instance| Step::ConfigureReplication {
        replicaset: replicaset.name.clone(),
        instance: instance.name.clone(),
        peers: wanted(instance),
    };
    wrong.into_iter().map(configure).collect()
}
