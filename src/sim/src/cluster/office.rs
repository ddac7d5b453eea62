//! The governor at work on the Raft leader: it asks everybody, has itself confirmed, grants leases, plans and carries out.

use super::letter::Letter;
use super::node::{Asker, number_of};
use super::raft::Input;
use super::world::{BEAT_US, World};
use crate::invariants::Verdict;
use crate::scenario::Defect;
use catalog::topology::Topology;
use catalog::{InstanceState, MoveId, Op, SchemaId, Setting};
use consensus::Role;
use governor::{Action, Observed, Raft, Step, View};
use model::InstanceName;
use replication::lease::{self, Grants};
use std::collections::{BTreeMap, BTreeSet};

/// An instance that has not answered for so long is asked again.
const ASK_AGAIN_US: u64 = 500_000;
/// How long a round may take.
const ROUND_US: u64 = 500_000;
/// How long a step rests that was carried out in vain, and how long one may take.
const REST_US: u64 = 250_000;
const STEP_US: u64 = 5_000_000;
/// Steps planned in one go.
const PLANS_MAX: usize = 20;

/// What is known of one instance. Times are the leader's.
#[derive(Debug)]
pub struct Watch {
    since_us: u64,
    heard_us: u64,
    grants: Grants,
    report: Option<Observed>,
    call: Option<(u64, u64)>,
    is_gone: bool,
}

/// One term in office.
#[derive(Debug)]
pub struct Office {
    term: u64,
    /// Everything that was committed before is known.
    is_ready: bool,
    /// The round under way: its number, and when it began.
    round: Option<(u64, u64)>,
    confirmed_us: u64,
    watches: BTreeMap<InstanceName, Watch>,
    busy: BTreeMap<String, u64>,
    pending_since: Option<(SchemaId, u64)>,
    moves_since: BTreeMap<MoveId, u64>,
    /// When this leader last looked at the cluster.
    looked_us: u64,
}

impl World {
    /// What a leader does again and again.
    pub fn govern(&mut self, number: u64) -> Verdict {
        let clock_us = self.clock_of(number);
        let Some(process) = self.process(number) else { return Ok(()) };
        let (is_leader, term) = (process.raft.role() == Role::Leader, process.raft.term());
        if !is_leader {
            process.office = None;
            return Ok(());
        }
        if process.office.as_ref().is_none_or(|office| office.term != term) {
            process.office = Some(Office {
                term,
                is_ready: false,
                round: None,
                confirmed_us: 0,
                watches: BTreeMap::new(),
                busy: BTreeMap::new(),
                pending_since: None,
                moves_since: BTreeMap::new(),
                looked_us: clock_us,
            });
        }
        self.begin_round(number, clock_us)?;
        self.ask_everybody(number, clock_us);
        self.plan(number)
    }

    fn office(&mut self, number: u64) -> Option<&mut Office> {
        self.process(number)?.office.as_mut()
    }

    fn begin_round(&mut self, number: u64, clock_us: u64) -> Verdict {
        self.calls += 1;
        let context = self.calls;
        let Some(office) = self.office(number) else { return Ok(()) };
        if office.round.is_some_and(|(_, began_us)| clock_us < began_us + ROUND_US) {
            return Ok(());
        }
        office.round = Some((context, clock_us));
        self.put(number, Input::Read(context))
    }

    /// A majority has confirmed that this node leads, since the round began.
    pub fn round_confirmed(&mut self, number: u64, context: u64) {
        let Some(process) = self.process(number) else { return };
        let (is_leader, term) = (process.raft.role() == Role::Leader, process.raft.term());
        let Some(office) = process.office.as_mut().filter(|office| is_leader && office.term == term) else { return };
        let Some((_, began_us)) = office.round.take_if(|(number, _)| *number == context) else { return };
        office.confirmed_us = began_us;
        office.is_ready = true;
    }

    fn ask_everybody(&mut self, number: u64, clock_us: u64) {
        let first_call = self.calls + 1;
        let Some(process) = self.process(number) else { return };
        let lease_us = process.state.settings.count(Setting::LeaseMs) as u64 * 1_000;
        let known = process.state.topology.instances.values().filter(|i| i.state != InstanceState::Expelled);
        let known: BTreeSet<InstanceName> = known.map(|instance| instance.name.clone()).collect();
        let Some(office) = &mut process.office else { return };
        let confirmed_us = office.confirmed_us;
        // To this instance itself nothing travels: the round is the stamp.
        process.lease_end_us = process.lease_end_us.max(lease::end(confirmed_us, lease_us));
        office.watches.retain(|name, _| known.contains(name));
        let mut letters = Vec::new();
        for name in known {
            let watch = office.watches.entry(name.clone()).or_insert_with(|| Watch {
                since_us: clock_us,
                heard_us: clock_us,
                grants: Grants::default(),
                report: None,
                call: None,
                is_gone: false,
            });
            if watch.call.is_some_and(|(_, at_us)| clock_us < at_us + ASK_AGAIN_US) {
                continue;
            }
            let call = first_call + letters.len() as u64;
            watch.call = Some((call, clock_us));
            watch.grants.confirmed(confirmed_us);
            letters.push((number_of(name.as_str()), Letter::Ask { call, stamp_us: watch.grants.stamp(), lease_us }));
        }
        self.calls += letters.len() as u64;
        for (to, letter) in letters {
            self.send(number, to, letter);
        }
    }

    /// An instance answered.
    pub fn reported(&mut self, number: u64, from: u64, call: u64, (report, stamp_us): (Observed, u64)) -> Verdict {
        let clock_us = self.clock_of(number);
        let name = super::node::name_of(from);
        let Some(process) = self.process(number) else { return Ok(()) };
        let topology = &process.state.topology;
        let is_current = topology.instances.get(&name).is_some_and(|i| topology.part_version(i) == report.seen);
        let Some(office) = &mut process.office else { return Ok(()) };
        let Some(watch) = office.watches.get_mut(&name) else { return Ok(()) };
        if watch.call.take_if(|(number, _)| *number == call).is_none() {
            return Ok(());
        }
        watch.is_gone = false;
        watch.heard_us = clock_us;
        // Who does not know its present part may take itself for the master that it was: it gets no lease.
        if is_current && from != number {
            watch.grants.heard(stamp_us, clock_us);
        }
        watch.report = Some(report);
        Ok(())
    }

    /// Nobody listens there: the process has ended.
    pub fn refused(&mut self, number: u64, from: u64, call: u64) {
        let name = super::node::name_of(from);
        let watch = self.office(number).and_then(|office| office.watches.get_mut(&name));
        if let Some(watch) = watch
            && watch.call.take_if(|(number, _)| *number == call).is_some()
        {
            watch.is_gone = true;
        }
    }

    /// A step was carried out.
    pub fn step_ended(&mut self, number: u64, key: &str, is_done: bool) {
        let rests_until_us = self.clock_of(number) + if is_done { 0 } else { REST_US };
        if let Some(until_us) = self.office(number).and_then(|office| office.busy.get_mut(key)) {
            *until_us = rests_until_us;
        }
    }

    pub fn plan(&mut self, number: u64) -> Verdict {
        let clock_us = self.clock_of(number);
        if let Some(office) = self.office(number) {
            // While this process stood still it heard nobody: that is not the others' silence.
            let passed_us = clock_us.saturating_sub(std::mem::replace(&mut office.looked_us, clock_us));
            if passed_us > 2 * BEAT_US {
                let excuse = |watch: &mut Watch| watch.heard_us = clock_us.min(watch.heard_us + passed_us);
                office.watches.values_mut().for_each(excuse);
            }
        }
        for _ in 0..PLANS_MAX {
            let Some(action) = self.next_action(number, clock_us) else { return Ok(()) };
            self.trace.say(self.now_us, || format!("i{number} {}: {}", action.rule, action.step));
            *self.steps.entry(action.rule).or_default() += 1;
            self.carry_step_out(number, action, clock_us)?;
        }
        Ok(())
    }

    fn next_action(&mut self, number: u64, clock_us: u64) -> Option<Action> {
        let defect = self.options.defect;
        let process = self.process(number)?;
        let office = process.office.as_mut().filter(|office| office.is_ready)?;
        let state = &process.state;
        let lease_us = state.settings.count(Setting::LeaseMs) as u64 * 1_000;
        let pending = state.schema.pending.as_ref().map(|pending| pending.id);
        if office.pending_since.map(|(id, _)| id) != pending {
            office.pending_since = pending.map(|id| (id, clock_us));
        }
        office.moves_since.retain(|id, _| state.placement.moves.contains_key(id));
        for id in state.placement.moves.keys() {
            office.moves_since.entry(*id).or_insert(clock_us);
        }
        office.busy.retain(|_, until_us| *until_us > clock_us);
        let membership = process.raft.membership();
        let ms = |since_us: u64| clock_us.saturating_sub(since_us) / 1_000;
        let observed = |(name, watch): (&InstanceName, &Watch)| (name.clone(), watch.observed(clock_us, lease_us));
        let mut instances: BTreeMap<InstanceName, Observed> = office.watches.iter().map(observed).collect();
        distort(&mut instances, defect, &state.topology);
        let view = View {
            state,
            raft: Raft {
                leader: process.raft_id,
                voters: membership.voters.iter().copied().collect(),
                learners: membership.learners.iter().copied().collect(),
                is_joint: membership.is_joint(),
            },
            instances,
            pending_ms: office.pending_since.map_or(0, |(_, since_us)| ms(since_us)),
            moves_ms: office.moves_since.iter().map(|(id, since_us)| (*id, ms(*since_us))).collect(),
            busy: office.busy.keys().cloned().collect(),
        };
        governor::plan(&view)
    }

    fn carry_step_out(&mut self, number: u64, action: Action, clock_us: u64) -> Verdict {
        let key = action.step.key();
        let until_us = clock_us + if matches!(action.step, Step::Propose(_)) { STEP_US } else { REST_US };
        if let Some(office) = self.office(number) {
            office.busy.insert(key.clone(), until_us);
        }
        match action.step {
            Step::Propose(entry) => {
                self.check_offline(number, &entry.op)?;
                let entry = entry.to_bytes().map_err(super::world::text)?;
                self.put(number, Input::Propose { entry, asker: Asker::Governor { key } })?;
            }
            Step::ChangeMembership { voters, learners } => {
                self.report.member_changes += 1;
                let (voters, learners) = (voters.into_iter().collect(), learners.into_iter().collect());
                self.put(number, Input::Members { voters, learners })?;
            }
            Step::TransferLeadership { to } => self.put(number, Input::Transfer(to))?,
            Step::ConfigureReplication { replicaset, term, instance, peers } => {
                self.send(number, number_of(instance.as_str()), Letter::Follow { replicaset, term, peers });
            }
            Step::Fence { replicaset, term, instances, reach } => {
                for instance in instances {
                    let letter = Letter::Fence { replicaset: replicaset.clone(), term, reach: reach.clone() };
                    self.send(number, number_of(instance.as_str()), letter);
                }
            }
            Step::ApplySchema { id, instances } => {
                for instance in instances {
                    self.send(number, number_of(instance.as_str()), Letter::Schema { id });
                }
            }
        }
        Ok(())
    }

    /// A leader takes somebody for offline: who has said nothing of the kind must have been silent.
    fn check_offline(&mut self, number: u64, op: &Op) -> Verdict {
        let Op::SetInstanceState { instance, incarnation, state: InstanceState::Offline } = op else { return Ok(()) };
        let Some(process) = self.process(number) else { return Ok(()) };
        let offline_after_us = process.state.settings.count(Setting::OfflineAfterMs) as u64 * 1_000;
        let watch = process.office.as_ref().and_then(|office| office.watches.get(instance));
        let report = watch.and_then(|watch| watch.report.as_ref());
        if report.is_some_and(|report| report.stray || report.incarnation != Some(*incarnation)) {
            return Ok(());
        }
        let patience_us = offline_after_us + 2 * ASK_AGAIN_US;
        let suspect = number_of(instance.as_str());
        if self.nodes.get(&suspect).is_none_or(|node| !node.is_up()) {
            return Ok(());
        }
        self.promises.accuracy.offline(number, suspect, self.now_us, patience_us)
    }
}

/// What a leader that is built wrongly makes of what it has observed.
fn distort(instances: &mut BTreeMap<InstanceName, Observed>, defect: Option<Defect>, topology: &Topology) {
    for (name, observed) in instances {
        match defect {
            Some(Defect::JudgesUnheard) => observed.incarnation = observed.incarnation.or(Some(0)),
            Some(Defect::TrustsOldPromises) => {
                let present = topology.instances.get(name).map_or(0, |instance| topology.part_version(instance));
                if observed.in_step.is_some() && observed.seen != present {
                    (observed.seen, observed.stuck) = (present, BTreeSet::new());
                }
            }
            _ => {}
        }
    }
}

impl Watch {
    fn observed(&self, clock_us: u64, lease_us: u64) -> Observed {
        let over_us = self.grants.over_at(self.since_us, lease_us);
        let lease_left_ms = if self.is_gone { 0 } else { over_us.saturating_sub(clock_us).div_ceil(1_000) };
        let silent_ms = if self.is_gone { u64::MAX } else { clock_us.saturating_sub(self.heard_us) / 1_000 };
        Observed { silent_ms, lease_left_ms, ..self.report.clone().unwrap_or_default() }
    }
}
