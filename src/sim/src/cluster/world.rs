//! The run: one queue of events in the order of the pretended clock, and the ways of letters between machines.

use super::journal::Transaction;
use super::letter::Letter;
use super::node::{Clock, Identity, Node, Process, Run, Then};
use super::raft::Input;
use super::store::{Key, Store};
use super::terms::Terms;
use crate::invariants::{
    Accuracy, Acknowledged, Agreement, Commit, Durability, InSync, Liveness, OneLeader, OneMaster, OneOwner, Verdict,
};
use crate::network::Network;
use crate::queue::Queue;
use crate::scenario::{Defect, Options};
use crate::trace::Trace;
use crate::world::Failure;
use consensus::{Log, Rng};
use governor::Follows;
use std::collections::{BTreeMap, BTreeSet};

/// How often everybody looks after what has no event.
pub const BEAT_US: u64 = 50_000;
/// How often the second phase looks whether the cluster has recovered.
const PROBE_US: u64 = 200_000;

/// What a run was like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Equal for equal runs.
    pub digest: u64,
    pub virtual_us: u64,
    pub recovery_us: u64,
    pub events: u64,
    pub entries: u64,
    pub elections: u64,
    pub writes: u64,
    pub reads: u64,
    pub refused: u64,
    pub crashes: u64,
    pub snapshots: u64,
    pub member_changes: u64,
    /// Times that somebody began to take writes as the master of a term.
    pub masters: u64,
    /// Instances that had a tail, and threw their data away.
    pub wipes: u64,
    /// Moves of buckets that came to their end.
    pub moves: u64,
}

#[derive(Clone, Debug)]
pub enum Event {
    Tick {
        number: u64,
        start: u64,
    },
    Beat {
        number: u64,
        start: u64,
    },
    Synced {
        number: u64,
        start: u64,
    },
    Input {
        number: u64,
        start: u64,
        input: Input,
    },
    /// A letter arrives, on a connection with that start of the process there; Raft's messages find any.
    Deliver {
        from: u64,
        to: u64,
        start: Option<u64>,
        letter: Letter,
    },
    Start {
        number: u64,
    },
    Fault,
    Client,
    Operator,
    Heal,
    Probe,
}

impl Event {
    /// Whose process it happens to.
    fn number(&self) -> Option<u64> {
        match self {
            Event::Tick { number, .. }
            | Event::Beat { number, .. }
            | Event::Synced { number, .. }
            | Event::Input { number, .. } => Some(*number),
            Event::Deliver { to, .. } => Some(*to),
            _ => None,
        }
    }
}

/// All promises of a run that are checked step by step.
#[derive(Default)]
pub struct Promises {
    pub one_leader: OneLeader,
    pub commit: Commit,
    pub agreement: Agreement,
    pub durability: Durability,
    pub one_master: OneMaster,
    pub one_owner: OneOwner,
    pub in_sync: InSync,
    pub acknowledged: Acknowledged,
    pub accuracy: Accuracy,
}

pub struct World {
    pub options: Options,
    pub terms: Terms,
    pub rng: Rng,
    pub now_us: u64,
    pub network: Network,
    pub nodes: BTreeMap<u64, Node>,
    pub promises: Promises,
    pub trace: Trace,
    pub report: Report,
    pub queue: Queue<Event>,
    /// The numbers of requests, writes and rounds given out.
    pub calls: u64,
    pub changes_of_master: u64,
    pub wipes: u64,
    /// How often each rule of the governor had something done.
    pub steps: BTreeMap<&'static str, u64>,
    /// The terms of the masters that newcomers copy.
    pub joined_in: BTreeMap<u64, u64>,
    /// Keys of which a write was acknowledged since the faults stopped.
    pub written_since_heal: BTreeSet<Key>,
    pub healed: Option<Liveness>,
}

/// Runs a seed to its end. Errors: the first promise that was broken.
pub fn run(options: Options) -> Result<Report, Box<Failure>> {
    let mut world = World::new(options);
    world.live().map_err(|what| {
        Box::new(Failure { seed: options.seed, now_us: world.now_us, what, trace: world.trace.lines() })
    })?;
    let mut report = world.report;
    report.digest = world.trace.digest();
    report.virtual_us = world.now_us;
    report.entries = world.promises.commit.last();
    report.elections = world.promises.one_leader.elections();
    report.masters = world.changes_of_master;
    report.wipes = world.wipes;
    Ok(report)
}

impl World {
    fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let terms = Terms::draw(&mut rng);
        Self {
            network: Network::new(terms.quality.clone()),
            trace: Trace::new(options.is_traced),
            options,
            terms,
            rng,
            now_us: 0,
            nodes: BTreeMap::new(),
            promises: Promises::default(),
            report: Report::default(),
            queue: Queue::default(),
            calls: 0,
            changes_of_master: 0,
            wipes: 0,
            steps: BTreeMap::new(),
            joined_in: BTreeMap::new(),
            written_since_heal: BTreeSet::new(),
            healed: None,
        }
    }

    fn live(&mut self) -> Verdict {
        self.found_cluster()?;
        while let Some((at_us, event)) = self.queue.next() {
            self.now_us = at_us;
            if let Some(until_us) = self.frozen_until(&event) {
                self.queue.schedule(until_us, event);
                continue;
            }
            self.report.events += 1;
            if self.happen(event)? {
                return Ok(());
            }
        }
        Err("nothing happens any more".into())
    }

    /// The first instance bootstraps, the others ask to join.
    fn found_cluster(&mut self) -> Verdict {
        for number in 1..=self.terms.nodes {
            let clock =
                Clock { ahead_us: self.rng.range(1, 1_000_000_000), rate_ppm: self.rng.range(985_000, 1_015_000) };
            let node = Node {
                number,
                identity: Identity { life: 0, replaces: None, raft_id: None },
                disk: super::journal::Journal::default(),
                run: Run::Down,
                starts: 0,
                frozen_until_us: 0,
                tick_us: self.rng.range(45_000, 55_000),
                clock,
            };
            self.nodes.insert(number, node);
        }
        if let Some(first) = self.nodes.get_mut(&1) {
            let (_, persist) = Log::bootstrap(1);
            first.identity.raft_id = Some(1);
            let store = Store::first(&first.uuid());
            let image = &mut first.disk.image;
            image.store = store;
            image.raft.write(&crate::disk::Transaction { persist, ..Default::default() })?;
        }
        for number in 1..=self.terms.nodes {
            self.start(number)?;
        }
        self.queue.schedule(self.terms.faulty_us, Event::Heal);
        [Event::Fault, Event::Client, Event::Operator].into_iter().for_each(|e| self.queue.schedule(2_000_000, e));
        Ok(())
    }

    pub fn begin_ticking(&mut self, number: u64, start: u64, now_us: u64) {
        let tick_us = self.nodes.get(&number).map_or(0, |node| node.tick_us);
        self.queue.schedule(now_us + tick_us, Event::Tick { number, start });
        self.queue.schedule(now_us + 1_000, Event::Beat { number, start });
    }

    /// Frozen processes find everything when they wake up.
    fn frozen_until(&self, event: &Event) -> Option<u64> {
        let node = self.nodes.get(&event.number()?)?;
        Some(node.frozen_until_us).filter(|until_us| *until_us > self.now_us && node.is_up())
    }

    pub fn is_healed(&self) -> bool {
        self.healed.is_some()
    }

    fn is_current(&self, number: u64, start: u64) -> bool {
        self.nodes.get(&number).is_some_and(|node| node.is_up() && node.starts == start)
    }

    /// True when the run is over.
    fn happen(&mut self, event: Event) -> Result<bool, String> {
        match event {
            Event::Tick { number, start } if self.is_current(number, start) => {
                let tick_us = self.nodes.get(&number).map_or(0, |node| node.tick_us);
                self.queue.schedule(self.now_us + tick_us, Event::Tick { number, start });
                self.put(number, Input::Tick)?;
            }
            Event::Beat { number, start } if self.is_current(number, start) => self.beat(number, start)?,
            Event::Synced { number, start } if self.is_current(number, start) => self.synced(number)?,
            Event::Input { number, start, input } if self.is_current(number, start) => self.put(number, input)?,
            Event::Tick { .. } | Event::Beat { .. } | Event::Synced { .. } | Event::Input { .. } => {}
            Event::Deliver { from, to, start, letter } => self.deliver(from, to, start, letter)?,
            Event::Start { number } => self.start(number)?,
            Event::Heal => {
                self.healed = Some(Liveness::within(self.now_us, super::recovery::RECOVERY_MAX_US));
                self.heal()?;
                self.queue.schedule(self.now_us + PROBE_US, Event::Probe);
            }
            Event::Probe => {
                let is_over = self.probe()?;
                if !is_over {
                    self.queue.schedule(self.now_us + PROBE_US, Event::Probe);
                }
                return Ok(is_over);
            }
            Event::Fault | Event::Client | Event::Operator => self.again(event)?,
        }
        Ok(false)
    }

    /// What happens again and again; clients go on when the faults have stopped.
    fn again(&mut self, event: Event) -> Verdict {
        let every_us = match event {
            Event::Fault => self.terms.faults_every_us,
            Event::Client => self.terms.clients_every_us,
            _ => self.terms.operator_every_us,
        };
        let is_client = matches!(event, Event::Client);
        if self.is_healed() && (!is_client || self.is_resting()) {
            return Ok(());
        }
        self.queue.schedule(self.now_us + self.rng.range(1, 2 * every_us), event.clone());
        match event {
            Event::Fault => self.fault(),
            Event::Client => self.client(),
            _ => self.operate(),
        }
    }

    /// What an instance looks after all the while.
    fn beat(&mut self, number: u64, start: u64) -> Verdict {
        self.queue.schedule(self.now_us + BEAT_US, Event::Beat { number, start });
        if matches!(self.nodes.get(&number).map(|node| &node.run), Some(Run::Joining(_))) {
            self.ask_to_join(number);
            return Ok(());
        }
        self.announce(number)?;
        self.go_on_fencing(number);
        self.pull_again(number);
        self.feed(number, true);
        self.tell(number);
        self.place_newcomers(number);
        self.answer_clients(number)?;
        self.govern(number)?;
        self.move_on(number)?;
        self.check_masters()?;
        self.begin_anew_if_possible(number)
    }

    /// The oldest write of the instance is on disk.
    fn synced(&mut self, number: u64) -> Verdict {
        let Some(node) = self.nodes.get_mut(&number) else { return Ok(()) };
        let then = node.disk.sync()?;
        let durable = node.disk.image.store.written();
        let Some(process) = node.process_mut() else { return Ok(()) };
        process.acks.durable = durable;
        match then {
            Then::Raft(written) => {
                self.raft_written(number, *written)?;
                self.drive(number)?;
            }
            Then::Write(mut waiting) => {
                waiting.target = waiting.target.max(1);
                if !process.acks.is_deposed {
                    process.acks.waiting.push_back(waiting);
                }
            }
            Then::Pulled => self.pull(number),
            Then::Written => {}
            Then::Copied { to, call, uuid } => self.copied(number, to, call, &uuid),
            Then::Fenced { term } => self.fenced(number, term)?,
            Then::Followed { follows } => self.followed(number, follows)?,
            Then::Noted { follows, term } => self.noted(number, follows, term)?,
            Then::Led { term } => self.led(number, term)?,
        }
        self.feed(number, false);
        self.answer_clients(number)
    }

    /// Starts a write to the disk of a machine.
    pub fn write(&mut self, number: u64, transaction: Transaction<Then>) {
        let factor = if self.rng.chance(self.terms.disk_stall_permille, 1000) { 20 } else { 1 };
        let latency_us = self.rng.range(10, self.terms.disk_latency_max_us.max(11)) * factor;
        let now_us = self.now_us;
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let (durable_us, start) = (node.disk.write(transaction, now_us, latency_us), node.starts);
        self.queue.schedule(durable_us, Event::Synced { number, start });
    }

    pub fn send(&mut self, from: u64, to: u64, letter: Letter) {
        self.send_out(from, to, letter);
    }

    /// Sends a letter; whether it will arrive.
    pub fn send_out(&mut self, from: u64, to: u64, letter: Letter) -> bool {
        let is_raft = matches!(letter, Letter::Raft { .. });
        let start = self.nodes.get(&to).map(|node| node.starts).filter(|_| !is_raft);
        let mut arrivals = match from == to {
            true => vec![self.now_us + 1],
            false => self.network.arrivals(&mut self.rng, from, to, self.now_us),
        };
        if !letter.may_be_doubled() {
            arrivals.truncate(1);
        }
        let is_sent = !arrivals.is_empty();
        for at_us in arrivals {
            self.queue.schedule(at_us, Event::Deliver { from, to, start, letter: letter.clone() });
        }
        is_sent
    }

    fn deliver(&mut self, from: u64, to: u64, start: Option<u64>, letter: Letter) -> Verdict {
        self.trace.note(self.now_us, to, &[letter.kind(), from as u8]);
        let Some(node) = self.nodes.get_mut(&to) else { return Ok(()) };
        if let Letter::Placed { call, place } = letter {
            return self.placed(to, call, place);
        }
        if let Letter::Copied { call, store } = letter {
            return self.took_copy(to, from, call, *store);
        }
        let is_current = start.is_none_or(|start| start == node.starts);
        if node.process().is_none() || !is_current {
            // Nobody listens, or not whom the connection was to: who asks is told.
            if let Letter::Ask { call, .. } = letter
                && !node.is_up()
            {
                self.send(to, from, Letter::Refused { call });
            }
            return Ok(());
        }
        self.open(from, to, letter)
    }

    /// A member reads a letter.
    fn open(&mut self, from: u64, to: u64, letter: Letter) -> Verdict {
        match letter {
            // Whoever lives there now may have another number: it threw away what the message is about.
            Letter::Raft { to: raft_id, .. } if self.process(to).is_none_or(|process| process.raft_id != raft_id) => {
                Ok(())
            }
            Letter::Raft { bytes, is_snapshot, .. } => {
                if is_snapshot && self.rng.chance(1, 2) {
                    let raft_id = self.nodes.get(&to).and_then(|node| node.identity.raft_id).unwrap_or(0);
                    let start = self.nodes.get(&from).map_or(0, |node| node.starts);
                    let input = Input::SnapshotFate { to: raft_id, is_sent: true };
                    self.queue.schedule(self.now_us + 1_000, Event::Input { number: from, start, input });
                }
                self.put(to, Input::Message(bytes))
            }
            Letter::Ask { call, stamp_us, lease_us } => {
                self.asked(to, from, (call, stamp_us, lease_us));
                Ok(())
            }
            Letter::Report { call, report, stamp_us } => {
                self.reported(to, from, call, (*report, stamp_us))?;
                self.plan(to)
            }
            Letter::Refused { call } => {
                self.refused(to, from, call);
                self.plan(to)
            }
            Letter::Fence { replicaset, term, reach } => self.fence(to, &replicaset, term, reach),
            Letter::Follow { replicaset, term, peers } => self.follow(to, &replicaset, Follows { term, peers }),
            Letter::Schema { id } => {
                self.change_schema(to, id);
                Ok(())
            }
            Letter::Propose { call, entry } => {
                let asker = super::node::Asker::Other { to: from, call };
                self.put(to, Input::Propose { entry, asker })
            }
            Letter::Proposed { call, index } => {
                let Some(process) = self.process(to) else { return Ok(()) };
                if let Some((at_us, asked, None)) = process.announced
                    && asked == call
                {
                    // Nothing happened: it is asked again.
                    process.announced = index.map(|index| (at_us, asked, Some(index)));
                }
                Ok(())
            }
            Letter::Join { call, from, entry } => self.join(to, (call, from, entry)),
            Letter::Copy { call, uuid, index } => {
                self.copy(to, from, (call, uuid, index));
                Ok(())
            }
            Letter::Pull { call, uuid, clock } => self.pulled(to, from, (call, uuid, clock)),
            Letter::Rows { call, rows } => {
                self.received(to, call, rows);
                Ok(())
            }
            Letter::MovePull { id, pull } => {
                self.move_pulled(to, from, id, &pull);
                Ok(())
            }
            Letter::MovePulled { id, pulled, rows } => self.move_answered(to, id, &pulled, rows),
            Letter::AskRelease { id, finish_index } => {
                self.release_asked(to, from, id, finish_index);
                Ok(())
            }
            Letter::Released { id } => {
                self.released(to, id);
                Ok(())
            }
            Letter::Placed { .. } | Letter::Copied { .. } => Ok(()),
        }
    }

    pub fn process(&mut self, number: u64) -> Option<&mut Process> {
        self.nodes.get_mut(&number)?.process_mut()
    }

    pub fn clock_of(&self, number: u64) -> u64 {
        let leaps = self.options.defect == Some(Defect::ClockLeaps) && number.is_multiple_of(2);
        // Once a second the clock is two seconds ahead for a moment.
        let leap_us = if leaps && (self.now_us / 500_000).is_multiple_of(2) { 2_000_000 } else { 0 };
        self.nodes.get(&number).map_or(0, |node| node.clock.at(self.now_us)) + leap_us
    }
}

pub fn text(error: model::Error) -> String {
    error.to_string()
}
