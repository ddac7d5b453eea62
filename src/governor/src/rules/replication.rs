//! Replication is a star: replicas follow the master, and the master follows nobody.
//!
//! Every replica is set up anew in every term, so that it looks for a tail of its own first. Not while a term has no
//! master: its members have just stopped following the old one. The master sees to itself, before it takes writes.

use crate::{Follows, Step, View};
use catalog::{Instance, Replicaset};

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
    let wanted = Follows { term: replicaset.master_term, peers: [master.address.clone()].into() };
    let is_wrong = |member: &&Instance| {
        view.observed(member).and_then(|o| o.follows.as_ref()).is_some_and(|follows| *follows != wanted)
    };
    let replicas = members().filter(|member| member.name != master.name && !view.is_stray(member));
    let mut wrong: Vec<_> = replicas.filter(|member| view.can_ask(member)).filter(is_wrong).collect();
    wrong.sort_by_key(|member| member.raft_id);
    let configure = |instance: &Instance| Step::ConfigureReplication {
        replicaset: replicaset.name.clone(),
        term: wanted.term,
        instance: instance.name.clone(),
        peers: wanted.peers.clone(),
    };
    wrong.into_iter().map(configure).collect()
}
