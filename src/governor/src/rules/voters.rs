//! Who votes in Raft: one, three or five instances, in as many failure domains as there are; all others learn.
//!
//! A silent voter is replaced as soon as another instance can take its place, and kept otherwise: fewer voters would
//! make nothing safer. An even number of voters tolerates no more failures than the odd number below it.
//!
//! An instance with rows that a change of master did not keep throws its data away, its votes with it: it does not vote.

use crate::{Step, View};
use catalog::{Instance, InstanceState, Setting};
use model::RaftId;
use std::collections::BTreeSet;

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    let topology = &view.state.topology;
    let known = || topology.instances.values().filter(|instance| instance.state != InstanceState::Expelled);
    if view.raft.is_joint || view.raft.voters.is_empty() {
        return vec![];
    }
    let leaves = |i: &Instance| !i.stays() || view.is_stray(i);
    if let Some(leader) = known().find(|i| i.raft_id == view.raft.leader && leaves(i)) {
        return hand_over(view, leader);
    }
    let voters = choose(view);
    if !voters.contains(&view.raft.leader) {
        return vec![]; // The leader can not be among those who may vote: nothing is safe to conclude.
    }
    let learners: BTreeSet<RaftId> = known().map(|i| i.raft_id).filter(|id| !voters.contains(id)).collect();
    if voters == view.raft.voters && learners == view.raft.learners {
        return vec![];
    }
    vec![Step::ChangeMembership { voters, learners }]
}

/// A leader that is leaving hands over to another voter, the one that joined first.
fn hand_over(view: &View<'_>, leader: &Instance) -> Vec<Step> {
    let heirs = view.state.topology.instances.values().filter(|i| i.raft_id != leader.raft_id && may_vote(view, i));
    let can_lead = |i: &&Instance| i.is_online() && i.stays() && view.can_ask(i) && !view.is_stray(i);
    let (voting, others): (Vec<_>, Vec<_>) =
        heirs.filter(can_lead).map(|i| i.raft_id).partition(|id| view.raft.voters.contains(id));
    if let Some(to) = voting.into_iter().min() {
        return vec![Step::TransferLeadership { to }];
    }
    // None of them votes yet: the one that is to lead begins by voting.
    let Some(heir) = others.into_iter().min() else { return vec![] };
    let mut voters = view.raft.voters.clone();
    voters.insert(heir);
    let learners = view.raft.learners.iter().copied().filter(|id| *id != heir).collect();
    vec![Step::ChangeMembership { voters, learners }]
}

fn may_vote(view: &View<'_>, instance: &Instance) -> bool {
    view.state.topology.tiers.get(&instance.tier).is_some_and(|tier| tier.can_vote)
}

/// Picks the voters one by one, the leader first.
fn choose(view: &View<'_>) -> BTreeSet<RaftId> {
    let votes = |instance: &Instance| view.raft.voters.contains(&instance.raft_id);
    let fit = |instance: &&Instance| {
        let lasts = instance.stays() && may_vote(view, instance) && !view.is_stray(instance);
        // An instance begins to vote when it is online and answers; once it votes, it counts on.
        lasts && (instance.is_online() && view.can_ask(instance) || votes(instance))
    };
    let mut candidates: Vec<&Instance> = view.state.topology.instances.values().filter(fit).collect();
    let max = view.state.settings.count(Setting::VotersMax).min(candidates.len()).max(1);
    let wanted = if max.is_multiple_of(2) { max - 1 } else { max };
    let mut chosen: Vec<&Instance> = vec![];
    while chosen.len() < wanted {
        let score = |i: &&&Instance| {
            let crowd: usize = chosen.iter().map(|other| shared_domains(i, other)).sum();
            (i.raft_id != view.raft.leader, !i.is_online(), crowd, !votes(i), i.raft_id)
        };
        let Some(next) = candidates.iter().min_by_key(score).copied() else { break };
        candidates.retain(|other| other.raft_id != next.raft_id);
        chosen.push(next);
    }
    chosen.into_iter().map(|instance| instance.raft_id).collect()
}

fn shared_domains(a: &Instance, b: &Instance) -> usize {
    a.failure_domain.iter().filter(|(key, value)| b.failure_domain.get(*key) == Some(*value)).count()
}
