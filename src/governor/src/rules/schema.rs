//! The pending schema change: all masters carry it out, then the replicas that are online have seen it, then it is
//! committed. It is aborted when a master reports that it can not be done, or when its time is over.

use super::propose;
use crate::{Step, View};
use catalog::{Instance, Op, Part, PendingChange};
use model::InstanceName;
use std::collections::BTreeSet;

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    let Some(pending) = &view.state.schema.pending else { return vec![] };
    let id = pending.id;
    if let Some(reason) = failure(view, pending) {
        return vec![propose(view, Op::SchemaAbort { id, reason }, Part::Schema)];
    }
    let unready = unready(view, pending);
    if let Some(waits_for) = unready.first().filter(|_| view.pending_ms >= pending.timeout_ms) {
        let reason = format!("it was not done after {} ms: {waits_for}", pending.timeout_ms);
        return vec![propose(view, Op::SchemaAbort { id, reason }, Part::Schema)];
    }
    let masters = behind(view, pending, |i| view.live_master(&i.replicaset).is_some_and(|m| m.name == i.name));
    if !masters.is_empty() {
        return vec![Step::ApplySchema { id, instances: masters }];
    }
    let replicas = behind(view, pending, Instance::is_online);
    if !replicas.is_empty() {
        return vec![Step::ApplySchema { id, instances: replicas }];
    }
    if unready.is_empty() {
        return vec![propose(view, Op::SchemaCommit { id }, Part::Schema)];
    }
    vec![]
}

/// Why a master refused; the first by name.
fn failure(view: &View<'_>, pending: &PendingChange) -> Option<String> {
    let instances = view.state.topology.instances.values();
    let mut reports =
        instances.filter_map(|i| view.observed(i).and_then(|o| o.schema.as_ref()).map(|report| (i, report)));
    let (instance, report) = reports.find(|(_, report)| report.id == pending.id && report.error.is_some())?;
    Some(format!("instance \"{}\": {}", instance.name, report.error.as_deref().unwrap_or_default()))
}

/// What the change waits for, in words: masters first.
fn unready(view: &View<'_>, pending: &PendingChange) -> Vec<String> {
    let topology = &view.state.topology;
    let masterless = topology.replicasets.keys().filter(|name| view.live_master(name).is_none());
    let mut waits: Vec<String> = masterless.map(|name| format!("replicaset \"{name}\" has no master online")).collect();
    let behind = behind(view, pending, Instance::is_online);
    waits.extend(behind.iter().map(|name| format!("instance \"{name}\" did not answer")));
    waits
}

/// The instances among `which` that have not reported the change done.
fn behind(view: &View<'_>, pending: &PendingChange, which: impl Fn(&Instance) -> bool) -> BTreeSet<InstanceName> {
    let done =
        |i: &Instance| view.observed(i).and_then(|o| o.schema.as_ref()).is_some_and(|report| report.id == pending.id);
    let instances = view.state.topology.instances.values();
    instances.filter(|i| which(i) && !done(i)).map(|i| i.name.clone()).collect()
}
