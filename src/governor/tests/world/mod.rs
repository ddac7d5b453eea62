//! A cluster that does at once what the governor says.
#![allow(dead_code)] // Each test file uses its part.

use catalog::{Entry, InstanceState, Newcomer, Op, Outcome, State, TierSpec};
use governor::{Action, Fenced, Follows, InStep, Observed, Raft, SchemaReport, Step, View};
use model::{
    Column, ColumnType, Distribution, Durability, Engine, InstanceName, SchemaChange, Table, TableState, Value,
};
use replication::{Kept, Vclock};
use sharding::MovePhase;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;

/// Steps after which a plan that does not come to rest is a failure.
const STEPS_MAX: usize = 300;

type Answer<T = ()> = Result<T, Box<dyn Error>>;

#[derive(Default)]
pub struct World {
    pub state: State,
    pub raft: Raft,
    observed: BTreeMap<InstanceName, Observed>,
    /// What instances will say that a new leader has not heard yet.
    unheard: BTreeMap<InstanceName, Observed>,
    alive: BTreeSet<InstanceName>,
    /// How many rows each instance has, all written by member 1.
    pub positions: BTreeMap<InstanceName, u64>,
    /// The last term in which each instance followed a master or was one.
    seen: BTreeMap<InstanceName, u64>,
    /// What each instance answers to schema changes instead of doing them.
    pub refusals: BTreeMap<InstanceName, String>,
    /// Members that follow and acknowledge nothing.
    pub stuck: BTreeSet<InstanceName>,
    /// Of whom the leader has but their last report.
    pub muted: BTreeSet<InstanceName>,
    /// Moves start and do not finish.
    pub moves_held: bool,
    pending_ms: u64,
    moves_ms: BTreeMap<u64, u64>,
}

impl World {
    pub fn bootstrap(&mut self, name: &str, dc: &str, replication_factor: u32) -> Answer {
        self.propose(Op::Bootstrap {
            cluster: "scene".into(),
            id: "b1a5e5c0-0000-4000-8000-000000000001".into(),
            instance: newcomer(name, dc),
            tier: TierSpec { name: "default".into(), replication_factor, bucket_count: 3000, can_vote: true },
            settings: BTreeMap::new(),
        })?;
        self.raft = Raft { leader: 1, voters: BTreeSet::from([1]), ..Raft::default() };
        self.appear(name);
        Ok(())
    }

    /// Joins an instance; answers its replicaset.
    pub fn join(&mut self, name: &str, dc: &str, tier: &str) -> Answer<String> {
        self.propose(Op::Join { instance: newcomer(name, dc), tier: tier.into(), replaces: None })?;
        self.appear(name);
        Ok(self.state.topology.instance(&name.into())?.replicaset.to_string())
    }

    /// A fresh process, which follows nobody.
    fn appear(&mut self, name: &str) {
        let name = InstanceName::from(name);
        let Some(instance) = self.state.topology.instances.get(&name) else { return };
        let incarnation = instance.incarnation;
        self.alive.insert(name.clone());
        self.unheard.remove(&name);
        let follows = Some(Follows::default());
        self.observed
            .insert(name, Observed { incarnation: Some(incarnation), ready: true, follows, ..Observed::default() });
    }

    /// An instance with a tail has thrown its data away and joins with none.
    pub fn wipe(&mut self, name: &str) -> Answer {
        let known = self.state.topology.instance(&name.into())?;
        let (old, dc) = (known.uuid.clone(), known.failure_domain.get("dc").cloned().unwrap_or_default());
        let tier = known.tier.clone();
        let anew = format!("{}{}", &old[..old.len() - 12], format_args!("{:012x}", known.raft_id + 0xa000));
        let instance = Newcomer { uuid: anew, ..newcomer(name, &dc) };
        self.propose(Op::Join { instance, tier, replaces: Some(old) })?;
        let (term, rows) = self.master_of(&name.into());
        self.seen.insert(name.into(), term);
        self.positions.insert(name.into(), rows);
        self.appear(name);
        Ok(())
    }

    /// A master writes so many rows; those that follow it get all but a few of them.
    pub fn write(&mut self, name: &str, rows: u64) {
        let (name, topology) = (InstanceName::from(name), &self.state.topology);
        let Some(instance) = topology.instances.get(&name) else { return };
        let is_master = |r: &&catalog::Replicaset| r.master.as_ref() == Some(&name);
        let Some(replicaset) = topology.replicasets.get(&instance.replicaset).filter(is_master) else { return };
        if !self.alive.contains(&name) {
            return;
        }
        let written = self.positions.entry(name.clone()).or_default();
        *written += rows;
        let written = *written;
        for member in topology.members(&replicaset.name).filter(|member| self.alive.contains(&member.name)) {
            let follows = self.observed.get(&member.name).and_then(|o| o.follows.as_ref());
            if follows.is_some_and(|f| f.term == replicaset.master_term && f.peers.contains(&instance.address)) {
                let has = self.positions.entry(member.name.clone()).or_default();
                *has = (*has).max(written.saturating_sub(rows % 4));
            }
        }
    }

    /// Live instances with a tail that do not vote: they throw their data away.
    pub fn strays(&mut self) -> Vec<String> {
        self.observe_themselves();
        let topology = &self.state.topology;
        let is_stray = |name: &&InstanceName| self.observed.get(*name).is_some_and(|o| o.stray);
        let votes =
            |name: &InstanceName| topology.instances.get(name).is_some_and(|i| self.raft.voters.contains(&i.raft_id));
        let strays = self.alive.iter().filter(is_stray).filter(|name| !votes(name));
        strays.map(ToString::to_string).collect()
    }

    /// The term of an instance's replicaset, and how many rows its master has.
    fn master_of(&self, name: &InstanceName) -> (u64, u64) {
        let topology = &self.state.topology;
        let replicaset = topology.instances.get(name).and_then(|i| topology.replicasets.get(&i.replicaset));
        let rows = replicaset.and_then(|r| self.positions.get(r.master.as_ref()?));
        (replicaset.map_or(0, |r| r.master_term), rows.copied().unwrap_or(0))
    }

    fn clock(&self, name: &InstanceName) -> Vclock {
        [(1, self.positions.get(name).copied().unwrap_or(0))].into_iter().collect()
    }

    /// What every live instance sees of itself.
    fn observe_themselves(&mut self) {
        let topology = &self.state.topology;
        for name in self.alive.iter().filter(|name| !self.muted.contains(*name)) {
            let Some(instance) = topology.instances.get(name) else { continue };
            let Some(replicaset) = topology.replicasets.get(&instance.replicaset) else { continue };
            let seen = self.seen.entry(name.clone()).or_default();
            if replicaset.master.as_ref() == Some(name) {
                *seen = replicaset.master_term;
            }
            let rows = self.positions.get(name).copied().unwrap_or(0);
            let stray = replicaset.history.stray(*seen, &[(1, rows)].into_iter().collect()).is_some();
            if let Some(observed) = self.observed.get_mut(name) {
                observed.seen = topology.part_version(instance);
                observed.stray = stray;
            }
        }
    }

    pub fn leads(&self, name: &str) -> bool {
        self.state.topology.instance_by_raft_id(self.raft.leader).is_some_and(|leader| leader.name.as_str() == name)
    }

    /// Another leader takes office: it has heard nobody yet.
    pub fn take_office(&mut self, name: &str) -> Answer {
        self.raft.leader = self.state.topology.instance(&name.into())?.raft_id;
        self.unheard.append(&mut self.observed);
        let nothing = |name: &InstanceName| (name.clone(), Observed::default());
        self.observed = self.unheard.keys().map(nothing).collect();
        Ok(())
    }

    /// The leader hears of an instance for the first time.
    pub fn answer(&mut self, name: &str) {
        if let Some((name, observed)) = self.unheard.remove_entry(&InstanceName::from(name)) {
            self.observed.insert(name, observed);
        }
    }

    pub fn kill(&mut self, name: &str) {
        self.alive.remove(&InstanceName::from(name));
    }

    pub fn restart(&mut self, name: &str) -> Answer {
        let known = self.state.topology.instance(&name.into())?;
        let dc = known.failure_domain.get("dc").cloned().unwrap_or_default();
        let tier = known.tier.to_string();
        self.join(name, &dc, &tier).map(|_| ())
    }

    pub fn pass(&mut self, ms: u64) {
        self.pending_ms += ms;
        self.state.placement.moves.keys().for_each(|id| *self.moves_ms.entry(*id).or_default() += ms);
        for (name, observed) in &mut self.observed {
            observed.silent_ms = if self.alive.contains(name) { 0 } else { observed.silent_ms + ms };
        }
    }

    pub fn view(&mut self) -> View<'_> {
        self.observe_themselves();
        self.observe_masters();
        View {
            state: &self.state,
            raft: self.raft.clone(),
            instances: self.observed.clone(),
            pending_ms: self.pending_ms,
            moves_ms: self.moves_ms.clone(),
            busy: BTreeSet::new(),
        }
    }

    /// Masters find all live replicas in step that follow them and nobody else.
    fn observe_masters(&mut self) {
        for replicaset in self.state.topology.replicasets.values() {
            let members = || self.state.topology.members(&replicaset.name);
            let Some(master) = members().find(|member| replicaset.master.as_ref() == Some(&member.name)) else {
                continue;
            };
            let term = replicaset.master_term;
            let star = Some(Follows { term, peers: BTreeSet::from([master.address.clone()]) });
            let connected = |name: &InstanceName| {
                let follows = self.observed.get(name).is_some_and(|o| o.follows == star);
                self.alive.contains(name) && (*name == master.name || follows)
            };
            // Whoever is in sync is waited for in any case.
            let waits_for = |name: &InstanceName| !self.stuck.contains(name) || replicaset.in_sync.contains(name);
            let followers = members().filter(|member| connected(&member.name) && waits_for(&member.name));
            let in_step = InStep { term, members: followers.map(|m| (m.name.clone(), m.version)).collect() };
            if connected(&master.name) && !self.muted.contains(&master.name) {
                let observed = self.observed.entry(master.name.clone()).or_default();
                observed.in_step = Some(in_step);
                observed.stuck = replicaset.in_sync.intersection(&self.stuck).cloned().collect();
            }
        }
    }

    fn propose(&mut self, op: Op) -> Answer {
        self.apply(&Entry::new(op)).map_err(|error| error.into())
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        match self.state.apply(self.state.index + 1, entry) {
            Outcome::Applied { changes, .. } if changes.is_empty() => Err("nothing changed".into()),
            Outcome::Applied { .. } => Ok(()),
            Outcome::Conflict(error) => Err(format!("conflict: {error}")),
            Outcome::Refused(error) => Err(format!("refused: {error}")),
        }
    }

    /// A user's request.
    pub fn ask(&mut self, op: Op, out: &mut String) -> Answer {
        self.pending_ms = 0;
        if let Err(error) = self.propose(op) {
            writeln!(out, "{error}")?;
        }
        Ok(())
    }

    pub fn carry_out(&mut self, action: Action, out: &mut String) -> Answer {
        match action.step {
            // Every step must be one that the catalog accepts: the governor sees all that the catalog checks.
            Step::Propose(entry) => self.apply(&entry)?,
            Step::ChangeMembership { voters, learners } => self.raft = Raft { voters, learners, ..self.raft.clone() },
            Step::TransferLeadership { to } => self.raft.leader = to,
            Step::ConfigureReplication { instance, term, peers, .. } => {
                let (_, rows) = self.master_of(&instance);
                self.seen.insert(instance.clone(), term);
                let behind = self.positions.entry(instance.clone()).or_default();
                *behind = (*behind).max(rows);
                self.report(&instance, |o| o.follows = Some(Follows { term, peers }));
            }
            Step::Fence { term, instances, reach, .. } => {
                for instance in instances {
                    if let Some(reach) = &reach {
                        self.positions.insert(instance.clone(), reach.get(1));
                    }
                    let kept = Kept::new(100, self.clock(&instance));
                    self.report(&instance, |o| o.fenced = Some(Fenced { term, kept }));
                }
            }
            Step::ApplySchema { id, instances } => {
                for instance in instances {
                    let error = self.refusals.get(&instance).cloned();
                    self.report(&instance, |o| o.schema = Some(SchemaReport { id, error }));
                }
            }
        }
        if !self.moves_held {
            self.finish_moves(out)?;
        }
        // Whoever does not answer is found silent before the next plan.
        self.pass(600);
        Ok(())
    }

    /// Plans and carries out until there is nothing to do.
    pub fn run_plans(&mut self, steps: Option<usize>, out: &mut String) -> Result<(), Box<dyn Error>> {
        for _ in 0..steps.unwrap_or(STEPS_MAX) {
            let Some(action) = governor::plan(&self.view()) else { return Ok(()) };
            writeln!(out, "{}: {}", action.rule, action.step)?;
            self.carry_out(action, out)?;
        }
        if steps.is_none() {
            return Err(format!("no rest after {STEPS_MAX} steps:\n{out}").into());
        }
        Ok(())
    }

    fn report(&mut self, instance: &InstanceName, change: impl FnOnce(&mut Observed)) {
        if let Some(observed) = self.observed.get_mut(instance).filter(|_| self.alive.contains(instance)) {
            change(observed);
        }
    }

    pub fn finish_moves(&mut self, out: &mut String) -> Answer {
        let moves: Vec<_> = self.state.placement.moves.values().cloned().collect();
        for record in moves {
            let topology = &self.state.topology;
            if record.phase == MovePhase::Copying {
                let (Some(source), Some(destination)) = (topology.tenure(&record.from), topology.tenure(&record.to))
                else {
                    continue; // One side has no master just now.
                };
                self.propose(Op::MoveFinish { id: record.id, source, destination })?;
                writeln!(out, "  moved {} to {}, epoch {}", record.buckets, record.to, record.epoch)?;
            }
            self.propose(Op::MoveDone { id: record.id })?;
        }
        Ok(())
    }

    pub fn show(&self, out: &mut String) -> Answer {
        let topology = &self.state.topology;
        let voters = &self.raft.voters;
        for i in topology.instances.values() {
            let vote = if voters.contains(&i.raft_id) { "voter" } else { "learner" };
            let vote = if i.state == InstanceState::Expelled { "out" } else { vote };
            let leads = if i.raft_id == self.raft.leader { ", leader" } else { "" };
            writeln!(out, "{} {} {} {}, {vote}{leads}", i.name, i.state.name(), i.incarnation, i.replicaset)?;
        }
        for r in topology.replicasets.values() {
            let master = r.master.as_ref().map_or("none", InstanceName::as_str);
            let in_sync: Vec<&str> = r.in_sync.iter().map(InstanceName::as_str).collect();
            writeln!(
                out,
                "{} {:?}: master {master} in term {}, in sync {}",
                r.name,
                r.state,
                r.master_term,
                in_sync.join(" ")
            )?;
        }
        for (tier, entry) in &self.state.placement.maps {
            let ranges = entry.map.ranges().iter().map(|r| format!(" {} {} @{}", r.buckets, r.replicaset, r.epoch));
            writeln!(out, "{tier}:{}", ranges.collect::<Vec<_>>().join(","))?;
        }
        for table in self.state.schema.tables.values() {
            writeln!(out, "table {} {} {:?}", table.id, table.name, table.state)?;
        }
        Ok(())
    }
}

fn newcomer(name: &str, dc: &str) -> Newcomer {
    // The UUID comes from the name, so a restart has the same one.
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    Newcomer {
        name: name.into(),
        uuid: format!("{digits:0>32}"),
        address: format!("{name}:3301"),
        failure_domain: (!dc.is_empty()).then(|| ("dc".to_owned(), dc.to_owned())).into_iter().collect(),
        lost_power: false,
    }
}

pub fn expel(name: &str) -> Op {
    Op::Expel { instance: name.into() }
}

pub fn hand_over(replicaset: &str, to: &str) -> Op {
    Op::HandOver { replicaset: replicaset.into(), to: to.into() }
}

pub fn weight(replicaset: &str, weight: u32) -> Op {
    Op::SetWeight { replicaset: replicaset.into(), weight }
}

pub fn setting(name: &str, value: i64) -> Op {
    Op::PutSetting { name: name.into(), value: Value::Integer(value) }
}

pub fn add_tier(name: &str, replication_factor: u32) -> Op {
    Op::AddTier { tier: TierSpec { name: name.into(), replication_factor, bucket_count: 100, can_vote: false } }
}

pub fn create_table(name: &str) -> Op {
    let id = Column::new("id", ColumnType::BigInt, false);
    let table = Table {
        id: 0,
        name: name.into(),
        version: 0,
        engine: Engine::Memtx,
        distribution: Distribution::Sharded { key: vec![0], tier: "default".into() },
        columns: vec![id],
        primary_key: vec![0],
        indexes: vec![],
        state: TableState::Preparing,
        checks: vec![],
        durability: Durability::Replicated,
    };
    Op::SchemaPrepare { change: SchemaChange::CreateTable { table }, timeout_ms: 0 }
}

pub fn drop_table(name: &str) -> Op {
    Op::SchemaPrepare { change: SchemaChange::DropTable { table: name.into(), cascade: false }, timeout_ms: 0 }
}
