//! Who is in sync: replicas that keep up are counted in, those that are offline, or answer but do not acknowledge writes, are
//! counted out, so that writes go on.
//!
//! Only while the master is heard: when it is lost together with a replica, and that is noticed first, the replica has
//! every write that was acknowledged, and may have to take over.
//!
//! Never below `min_in_sync`: writes then wait for the members that are missing. A member is counted in when three agree on
//! what it is now: the master, which has waited for it since it came to be so, and says so knowing who is in sync; the
//! member itself, which has seen its present part in the cluster, has no tail and follows the master of this term; and the
//! catalog, which refuses otherwise.

use super::propose_for;
use crate::{Step, View};
use catalog::{Instance, Op, Replicaset, Setting};
use model::InstanceName;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    view.state.topology.replicasets.values().filter_map(|replicaset| step(view, replicaset)).collect()
}

fn step(view: &View<'_>, replicaset: &Replicaset) -> Option<Step> {
    let master = view.live_master(&replicaset.name).filter(|master| view.is_heard(master))?;
    let stuck = view.current(master).map(|observed| &observed.stuck);
    let counts = |member: &Instance| {
        let is_stuck = stuck.is_some_and(|stuck| stuck.contains(&member.name));
        let is_held = replicaset.in_sync.contains(&member.name);
        let keeps_up = || is_held || keeps_up(view, replicaset, master, member);
        member.name == master.name || member.is_online() && !is_stuck && keeps_up()
    };
    let members = view.state.topology.members(&replicaset.name);
    let mut in_sync: BTreeSet<InstanceName> = members.filter(|m| counts(m)).map(|m| m.name.clone()).collect();
    let min = view.state.settings.count(Setting::MinInSync);
    for missing in &replicaset.in_sync {
        if in_sync.len() >= min {
            break;
        }
        in_sync.insert(missing.clone());
    }
    if in_sync == replicaset.in_sync {
        return None;
    }
    let version = |name: &InstanceName| view.state.topology.instances.get(name).map(|instance| instance.version);
    let new = in_sync.difference(&replicaset.in_sync);
    let promised: BTreeMap<InstanceName, u64> = new.filter_map(|name| Some((name.clone(), version(name)?))).collect();
    let (name, term) = (replicaset.name.clone(), replicaset.master_term);
    Some(propose_for(view, replicaset, Op::SetInSync { replicaset: name, term, in_sync, promised }))
}

/// Whether a member that is not in sync can be counted in.
fn keeps_up(view: &View<'_>, replicaset: &Replicaset, master: &Instance, member: &Instance) -> bool {
    let term = replicaset.master_term;
    // Said as long as the member was in sync, it would be no word about now: the master may have gone on without it since.
    let in_step = view.current(master).and_then(|observed| observed.in_step.as_ref());
    let waits_for_it = in_step
        .is_some_and(|in_step| in_step.term == term && in_step.members.get(&member.name) == Some(&member.version));
    let says_so = view.current(member).is_some_and(|observed| {
        !observed.stray && observed.follows.as_ref().is_some_and(|follows| follows.term == term)
    });
    waits_for_it && says_so
}
