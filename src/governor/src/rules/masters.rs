//! Who is master: every replicaset has one that is online and stays.
//!
//! A change of master goes by steps, each of which the next leader can take up:
//! 1. the catalog begins a new term without a master;
//! 2. the members in sync that are online stop following the old master and say which rows they have;
//! 3. once the old master knows, or has no lease any more, the one that has most becomes master of the term, and the
//!    catalog keeps with which rows: whoever has others has a tail that this change of master left behind.
//!
//! A master that is online hands over: it is heard first, and since it takes no writes any more, the others get the chance to
//! reach what it has before they stop following it. Then all have the same, nothing is left behind, and any of them
//! can go on. If they do not reach it in time, the old master has most and is the new one too.
//!
//! A write is acknowledged when all members in sync have it, so any of them has all acknowledged writes; the one that
//! has most loses the least of the others too. Those that are leaving come last. With nobody in sync online, the
//! replicaset waits for one. When all members in sync were heard, the rows that all of them have are acknowledged, though
//! the old master may not have heard so of the last ones.

use super::propose_for;
use crate::{Step, View};
use catalog::{Instance, Op, Replicaset, Setting};
use model::InstanceName;
use replication::{Kept, Vclock};
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
    first.is_online().then(|| set_master(view, replicaset, replicaset.master_term + 1, Some((first, None))))
}

/// A master that is offline goes when another can take over; one that is leaving, when that one stays; one that was asked
/// to hand over, when that is the one it was asked for.
fn depose(view: &View<'_>, replicaset: &Replicaset, master: &InstanceName) -> Option<Step> {
    let present = view.state.topology.instances.get(master)?;
    let replaces = |heir: &Instance| {
        let is_wanted = replicaset.heir.as_ref() == Some(&heir.name);
        heir.name != *master && (!present.is_online() || (!present.stays() && heir.stays()) || is_wanted)
    };
    let deposed = heirs(view, replicaset).any(replaces);
    deposed.then(|| set_master(view, replicaset, replicaset.master_term + 1, None))
}

/// A term without a master: hear the members in sync, then take the best.
fn elect(view: &View<'_>, replicaset: &Replicaset) -> Option<Step> {
    if view.state.topology.is_draining(&replicaset.name) && !view.state.placement.owns_any(&replicaset.name) {
        return None; // It has abdicated: there is nothing left to be master of.
    }
    let term = replicaset.master_term;
    let fenced = |heir: &Instance| view.observed(heir)?.fenced.as_ref().filter(|fenced| fenced.term == term);
    let unheard: Vec<&Instance> = heirs(view, replicaset).filter(|heir| fenced(heir).is_none()).collect();
    let deposed = replicaset.deposed.as_ref().and_then(|name| view.state.topology.instances.get(name));
    let fence = |members: &[&Instance], reach: Option<&Vclock>| Step::Fence {
        replicaset: replicaset.name.clone(),
        term,
        instances: members.iter().map(|member| member.name.clone()).collect(),
        reach: reach.cloned(),
    };
    let giver = deposed.filter(|deposed| heirs(view, replicaset).any(|heir| heir.name == deposed.name));
    if giver.is_some_and(|giver| view.answers(giver).is_none()) {
        return None; // A new leader: whether it can hand over is not known yet.
    }
    match giver.filter(|giver| view.can_ask(giver)) {
        Some(giver) if fenced(giver).is_none() => return Some(fence(&[giver], None)),
        Some(giver) if !unheard.is_empty() => {
            return Some(fence(&unheard, fenced(giver).map(|fenced| &fenced.kept.clock)));
        }
        None if !unheard.is_empty() => return Some(fence(&unheard, None)),
        _ => {}
    }
    if deposed.is_some_and(|deposed| view.may_serve(deposed)) {
        return None;
    }
    let heard: Vec<(&Instance, &Kept)> =
        heirs(view, replicaset).filter_map(|heir| Some((heir, &fenced(heir)?.kept))).collect();
    let (best, kept) = heard.iter().copied().min_by_key(|(heir, kept)| {
        let is_wanted = replicaset.heir.as_ref() == Some(&heir.name);
        let is_deposed = replicaset.deposed.as_ref() == Some(&heir.name);
        (!heir.stays(), Reverse(kept.clock.total()), !is_wanted, is_deposed, heir.raft_id)
    })?;
    let mut kept = kept.clone();
    let min = view.state.settings.count(Setting::MinInSync);
    if heard.len() == replicaset.in_sync.len() && heard.len() >= min {
        kept.shared = heard.iter().fold(kept.clock.clone(), |shared, (_, other)| shared.shared(&other.clock));
    }
    Some(set_master(view, replicaset, term, Some((best, Some(&kept)))))
}

/// The members that could be master without losing a write.
fn heirs<'a>(view: &'a View<'_>, replicaset: &'a Replicaset) -> impl Iterator<Item = &'a Instance> {
    let members = view.state.topology.members(&replicaset.name);
    members.filter(|member| member.is_online() && replicaset.in_sync.contains(&member.name))
}

/// The master, if there is to be one, and with which rows it takes over.
type Chosen<'a> = Option<(&'a Instance, Option<&'a Kept>)>;

fn set_master(view: &View<'_>, replicaset: &Replicaset, term: u64, chosen: Chosen<'_>) -> Step {
    let master = chosen.map(|(master, _)| master.name.clone());
    let kept = chosen.and_then(|(_, kept)| kept.cloned());
    propose_for(view, replicaset, Op::SetMaster { replicaset: replicaset.name.clone(), term, master, kept })
}
