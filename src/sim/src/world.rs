//! The run: one queue of events in the order of a pretended clock, and what each of them does.

use crate::disk::Transaction;
use crate::instance::Instance;
use crate::invariants::{Invariants, Liveness, Verdict};
use crate::machine::Machine;
use crate::network::Network;
use crate::queue::Queue;
use crate::scenario::{Defect, Options, Scenario};
use crate::trace::Trace;
use consensus::{Log, Outgoing, Rng};
use model::RaftId;
use std::collections::BTreeMap;
use std::fmt;

/// How often the second phase looks whether the cluster has recovered.
const PROBE_US: u64 = 100_000;

/// What a run was like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Equal for equal runs.
    pub digest: u64,
    /// How much time went by on the pretended clock.
    pub virtual_us: u64,
    /// How long the cluster took to recover when the faults had stopped.
    pub recovery_us: u64,
    pub events: u64,
    pub entries: u64,
    pub elections: u64,
    pub writes: u64,
    pub reads: u64,
    pub crashes: u64,
    pub snapshots: u64,
    pub truncations: u64,
    pub member_changes: u64,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub now_us: u64,
    pub what: String,
    /// The end of the trace, when the run was traced.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}seed {} breaks at {} ms: {}", self.trace, self.seed, self.now_us / 1000, self.what)
    }
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub enum Event {
    Tick { raft_id: RaftId, start: u64 },
    Synced { raft_id: RaftId, start: u64 },
    Deliver { from: RaftId, message: Outgoing },
    Unreachable { raft_id: RaftId, to: RaftId },
    SnapshotFate { raft_id: RaftId, to: RaftId, is_sent: bool },
    Start { raft_id: RaftId },
    Fault,
    Client,
    Members,
    Heal,
    Probe,
}

impl Event {
    /// Whose process it happens to.
    fn raft_id(&self) -> Option<RaftId> {
        match self {
            Event::Tick { raft_id, .. }
            | Event::Synced { raft_id, .. }
            | Event::Unreachable { raft_id, .. }
            | Event::SnapshotFate { raft_id, .. } => Some(*raft_id),
            Event::Deliver { message, .. } => Some(message.to),
            _ => None,
        }
    }
}

pub struct World<M> {
    pub options: Options,
    pub scenario: Scenario,
    pub rng: Rng,
    pub now_us: u64,
    pub network: Network,
    pub instances: BTreeMap<RaftId, Instance<M>>,
    /// The instances that are to be members; the others are expelled and not started again.
    pub wanted: Vec<RaftId>,
    pub invariants: Invariants,
    pub trace: Trace,
    pub report: Report,
    pub next_id: u64,
    /// The write that shows that the cluster works again.
    pub probe: Option<u64>,
    pub is_probe_done: bool,
    healed: Option<Liveness>,
    queue: Queue<Event>,
}

/// Runs a seed to its end. Errors: the first promise that was broken.
pub fn run<M: Machine>(options: Options) -> Result<Report, Box<Failure>> {
    let mut world = World::<M>::new(options);
    world.live().map_err(|what| {
        Box::new(Failure { seed: options.seed, now_us: world.now_us, what, trace: world.trace.lines() })
    })?;
    let mut report = world.report;
    report.digest = world.trace.digest();
    report.virtual_us = world.now_us;
    report.entries = world.invariants.commit.last();
    report.elections = world.invariants.one_leader.elections();
    Ok(report)
}

impl<M: Machine> World<M> {
    fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let scenario = Scenario::draw(&mut rng);
        Self {
            network: Network::new(scenario.quality.clone()),
            trace: Trace::new(options.is_traced),
            options,
            scenario,
            rng,
            now_us: 0,
            instances: BTreeMap::new(),
            wanted: Vec::new(),
            invariants: Invariants::default(),
            report: Report::default(),
            next_id: 0,
            probe: None,
            is_probe_done: false,
            healed: None,
            queue: Queue::default(),
        }
    }

    pub fn schedule(&mut self, at_us: u64, event: Event) {
        self.queue.schedule(at_us, event);
    }

    fn live(&mut self) -> Verdict {
        self.found()?;
        while let Some((at_us, event)) = self.queue.next() {
            self.now_us = at_us;
            if let Some(until_us) = self.frozen_until(&event) {
                self.schedule(until_us, event);
                continue;
            }
            self.report.events += 1;
            if self.happen(event)? {
                return Ok(());
            }
        }
        Err("nothing happens any more".into())
    }

    /// The first instance bootstraps, the others are there to join.
    fn found(&mut self) -> Verdict {
        for _ in 0..self.scenario.instances {
            self.join()?;
        }
        if let Some(first) = self.instances.get_mut(&1) {
            let (_, persist) = Log::bootstrap(1);
            first.process = None;
            first.disk.image.write(&Transaction { persist, ..Transaction::default() })?;
        }
        self.start(1)?;
        self.schedule(self.scenario.faulty_us, Event::Heal);
        [Event::Fault, Event::Client, Event::Members].into_iter().for_each(|event| self.schedule(0, event));
        Ok(())
    }

    /// Frozen processes find everything when they wake up.
    fn frozen_until(&self, event: &Event) -> Option<u64> {
        let instance = self.instances.get(&event.raft_id()?)?;
        Some(instance.frozen_until_us).filter(|until_us| *until_us > self.now_us && instance.process.is_some())
    }

    fn is_current(&self, raft_id: RaftId, start: u64) -> bool {
        self.instances.get(&raft_id).is_some_and(|instance| instance.process.is_some() && instance.starts == start)
    }

    /// True when the run is over.
    fn happen(&mut self, event: Event) -> Result<bool, String> {
        match event {
            Event::Tick { raft_id, start } if self.is_current(raft_id, start) => self.tick(raft_id, start)?,
            Event::Synced { raft_id, start } if self.is_current(raft_id, start) => self.synced(raft_id)?,
            Event::Tick { .. } | Event::Synced { .. } => {}
            Event::Deliver { from, message } => self.deliver(from, message)?,
            Event::Unreachable { raft_id, to } => {
                self.process(raft_id).map_or(Ok(()), |process| process.node.unreachable(to)).map_err(text)?;
                self.drive(raft_id)?;
            }
            Event::SnapshotFate { raft_id, to, is_sent } => {
                let Some(process) = self.process(raft_id) else { return Ok(false) };
                match is_sent {
                    true => process.node.snapshot_finished(to),
                    false => process.node.snapshot_failed(to),
                }
                .map_err(text)?;
                self.drive(raft_id)?;
            }
            Event::Start { raft_id } => self.start(raft_id)?,
            Event::Heal => {
                self.healed = Some(Liveness::new(self.now_us));
                self.heal()?;
                self.schedule(self.now_us + PROBE_US, Event::Probe);
            }
            Event::Probe => return self.probe(),
            Event::Fault | Event::Client | Event::Members => self.again(event)?,
        }
        Ok(false)
    }

    fn tick(&mut self, raft_id: RaftId, start: u64) -> Verdict {
        let is_stopped = self.healed.is_some() && self.options.defect == Some(Defect::ClockStops);
        let tick_us = self.instances.get(&raft_id).map_or(0, |instance| instance.tick_us);
        self.schedule(self.now_us + tick_us, Event::Tick { raft_id, start });
        match self.process(raft_id) {
            Some(process) if !is_stopped => process.node.tick().map_err(text)?,
            _ => return Ok(()),
        }
        self.drive(raft_id)
    }

    /// What happens again and again until the faults are over.
    fn again(&mut self, event: Event) -> Verdict {
        if self.healed.is_some() {
            return Ok(());
        }
        let every_us = match event {
            Event::Fault => self.scenario.faults_every_us,
            Event::Client => self.scenario.clients_every_us,
            _ => self.scenario.members_every_us,
        };
        let next_us = self.now_us + self.rng.range(1, 2 * every_us);
        self.schedule(next_us, event.clone());
        match event {
            Event::Fault => self.fault(),
            Event::Client => self.client(),
            _ => self.change_members(),
        }
    }

    /// Looks whether the cluster has recovered; true when it has.
    fn probe(&mut self) -> Result<bool, String> {
        let missing = self.missing()?;
        let Some(healed) = &self.healed else { return Ok(false) };
        healed.recovers(self.now_us, missing.as_deref())?;
        if missing.is_some() {
            self.schedule(self.now_us + PROBE_US, Event::Probe);
            return Ok(false);
        }
        self.report.recovery_us = self.now_us - self.scenario.faulty_us;
        for raft_id in self.members() {
            let version = self.process(raft_id).map_or(0, |process| process.version);
            self.invariants.durability.ends_with(raft_id, version)?;
        }
        Ok(true)
    }

    /// What a recovered cluster would have that this one has not.
    fn missing(&mut self) -> Result<Option<String>, String> {
        let Some(leader) = self.leader() else { return Ok(Some("there is no leader".into())) };
        let probe = self.probe;
        if !self.is_probe_done {
            // A write that was lost with its leader is not the end: another follows.
            let is_waiting = self.process(leader).is_some_and(|process| {
                process.writes.values().any(|write| Some(write.id) == probe && write.term == process.node.term())
            });
            if !is_waiting && let Some(id) = self.propose(leader)? {
                self.probe = Some(id);
            }
            return Ok(Some("no write is committed".into()));
        }
        let Some(process) = self.process(leader) else { return Ok(Some("the leader is gone".into())) };
        if process.node.membership().is_joint() {
            return Ok(Some("a change of members is not over".into()));
        }
        let (last, digest) = (process.node.status().last_index, process.machine.digest());
        for raft_id in self.members() {
            let Some(process) = self.process(raft_id) else { return Ok(Some(format!("{raft_id} does not run"))) };
            if process.node.applied() != last || process.machine.digest() != digest {
                return Ok(Some(format!("{raft_id} is at {} of {last}", process.node.applied())));
            }
            if !process.reads.is_empty() {
                return Ok(Some(format!("{} reads of {raft_id} wait", process.reads.len())));
            }
        }
        Ok(None)
    }

    /// The members as the leader has them.
    fn members(&self) -> Vec<RaftId> {
        let leader = self.leader().and_then(|leader| self.instances.get(&leader)?.process.as_ref());
        leader.map_or(Vec::new(), |process| {
            let membership = process.node.membership();
            membership.voters.iter().chain(&membership.learners).copied().collect()
        })
    }
}

fn text(error: model::Error) -> String {
    error.to_string()
}
