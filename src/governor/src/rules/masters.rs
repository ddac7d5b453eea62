//! Who is master: every replicaset has one that is online and stays.
//!
//! A change of master goes by steps, each of which the next leader can take up:
//! 1. the catalog begins a new term without a master;
//! 2. the members in sync that are online stop following the old master and say how much of its writes they have;
//! 3. the one that has most becomes master of the term.
//!
//! A write is acknowledged when all members in sync have it, so any of them has all acknowledged writes; the one that
//! has most loses the least of the others too. Those that are leaving come last. With nobody in sync online, the
//! replicaset waits for one.

use super::propose_for;
use crate::{Fenced, Step, View};
use catalog::{Instance, Op, Replicaset};
use model::InstanceName;
use std::cmp::Reverse;

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    view.state.topology.replicasets.values().filter_map(|replicaset| step(view, replicaset)).collect()
}

fn step(view: &View<'_>, replicaset: &Replicaset) -> Option<Step> {
    match &replicaset.master {
        None if replicaset.in_sync.is_empty() => crown_first(view, replicaset),
        None => elect(view, replicaset),
        Some(master) => depose(view, replicaset, master),
    }
}

/// A new replicaset: the member that joined first made its data, so it is the master.
fn crown_first(view: &View<'_>, replicaset: &Replicaset) -> Option<Step> {
    let first = view.state.topology.members(&replicaset.name).min_by_key(|member| member.raft_id)?;
    first.is_online().then(|| set_master(view, replicaset, replicaset.master_term + 1, Some(first)))
}

/// A master that is offline goes when another can take over; one that is leaving, when that one stays.
fn depose(view: &View<'_>, replicaset: &Replicaset, master: &InstanceName) -> Option<Step> {
    let present = view.state.topology.instances.get(master)?;
    let replaces =
        |heir: &Instance| heir.name != *master && (!present.is_online() || (!present.stays() && heir.stays()));
    let deposed = heirs(view, replicaset).any(replaces);
    deposed.then(|| set_master(view, replicaset, replicaset.master_term + 1, None))
}

/// A term without a master: hear the members in sync, then take the best.
fn elect(view: &View<'_>, replicaset: &Replicaset) -> Option<Step> {
    if view.state.topology.is_draining(&replicaset.name) && !view.state.placement.owns_any(&replicaset.name) {
        return None; // It has abdicated: there is nothing left to be master of.
    }
    let term = replicaset.master_term;
    let position = |member: &Instance| match view.observed(member)?.fenced {
        Some(Fenced { term: fenced, position }) if fenced == term => Some(position),
        _ => None,
    };
    let unheard: Vec<&Instance> = heirs(view, replicaset).filter(|heir| position(heir).is_none()).collect();
    if !unheard.is_empty() {
        let instances = unheard.into_iter().map(|member| member.name.clone()).collect();
        return Some(Step::Fence { replicaset: replicaset.name.clone(), term, instances });
    }
    let best = heirs(view, replicaset).min_by_key(|heir| (!heir.stays(), Reverse(position(heir)), heir.raft_id))?;
    Some(set_master(view, replicaset, term, Some(best)))
}

/// The members that could be master without losing a write.
fn heirs<'a>(view: &'a View<'_>, replicaset: &'a Replicaset) -> impl Iterator<Item = &'a Instance> {
    let members = view.state.topology.members(&replicaset.name);
    members.filter(|member| member.is_online() && replicaset.in_sync.contains(&member.name))
}

fn set_master(view: &View<'_>, replicaset: &Replicaset, term: u64, master: Option<&Instance>) -> Step {
    let master = master.map(|master| master.name.clone());
    propose_for(view, replicaset, Op::SetMaster { replicaset: replicaset.name.clone(), term, master })
}
