//! Whoever was asked to leave leaves when nobody needs it any more: it does not vote, is no master, and its replicaset has
//! other members in sync or no buckets left. The other rules see to all of that; this one takes the last steps.

use super::{propose, propose_for};
use crate::{Step, View};
use catalog::{Instance, InstanceState, Move, Op, Part};
use sharding::MovePhase;

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    let leaving = view.state.topology.instances.values().filter(|i| i.expelling && i.state != InstanceState::Expelled);
    leaving.filter_map(|instance| step(view, instance)).collect()
}

fn step(view: &View<'_>, instance: &Instance) -> Option<Step> {
    let placement = &view.state.placement;
    let replicaset = view.state.topology.replicasets.get(&instance.replicaset)?;
    // What it got by a move that was given up needs no deleting when it goes.
    let takes_part = |m: &Move| m.from == replicaset.name || (m.to == replicaset.name && m.phase != MovePhase::Aborted);
    let needed = placement.owns_any(&replicaset.name) || placement.moves.values().any(takes_part);
    let alone = replicaset.in_sync.iter().all(|member| *member == instance.name);
    if view.raft.voters.contains(&instance.raft_id) || view.raft.is_joint || (needed && alone) {
        return None;
    }
    // It may still serve until another master is named; who is gone from the catalog is not listened to any more.
    if replicaset.master.is_none() && replicaset.deposed.as_ref() == Some(&instance.name) && !alone {
        return None;
    }
    if replicaset.master.as_ref() == Some(&instance.name) {
        // Only when everyone leaves: otherwise the rule on masters waits for another member to hand over to.
        let (name, term) = (replicaset.name.clone(), replicaset.master_term + 1);
        let abdicate = Op::SetMaster { replicaset: name, term, master: None, kept: None };
        return (alone && view.state.topology.is_draining(&replicaset.name))
            .then(|| propose_for(view, replicaset, abdicate));
    }
    let (name, incarnation) = (instance.name.clone(), instance.incarnation);
    let op = Op::SetInstanceState { instance: name.clone(), incarnation, state: InstanceState::Expelled };
    Some(propose(view, op, Part::Instance(name)))
}
