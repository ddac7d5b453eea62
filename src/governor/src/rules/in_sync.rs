//! Who is in sync: replicas that keep up are counted in, those that are offline are counted out, so that writes go on.
//!
//! Never below `min_in_sync`: writes then wait for the members that are missing.

use super::propose_for;
use crate::{Step, View};
use catalog::{Op, Replicaset, Setting};
use model::InstanceName;
use std::collections::BTreeSet;

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    view.state.topology.replicasets.values().filter_map(|replicaset| step(view, replicaset)).collect()
}

fn step(view: &View<'_>, replicaset: &Replicaset) -> Option<Step> {
    let master = view.live_master(&replicaset.name)?;
    let keeps_up = view.observed(master).map(|observed| &observed.in_step);
    let counts = |name: &InstanceName, online: bool| {
        let held = replicaset.in_sync.contains(name);
        *name == master.name || online && (held || keeps_up.is_some_and(|replicas| replicas.contains(name)))
    };
    let members = view.state.topology.members(&replicaset.name);
    let mut in_sync: BTreeSet<InstanceName> =
        members.filter(|m| counts(&m.name, m.is_online())).map(|m| m.name.clone()).collect();
    let min = view.state.settings.count(Setting::MinInSync);
    for missing in &replicaset.in_sync {
        if in_sync.len() >= min {
            break;
        }
        in_sync.insert(missing.clone());
    }
    let op =
        Op::SetInSync { replicaset: replicaset.name.clone(), term: replicaset.master_term, in_sync: in_sync.clone() };
    (in_sync != replicaset.in_sync).then(|| propose_for(view, replicaset, op))
}
