//! Every way that a move can go: all interleavings of messages (lost, repeated, late), log entries, writes, restarts of
//! either side, within small bounds.
//!
//! In each state reached:
//! - never two sides take writes;
//! - whoever serves reads has every write that was made;
//! - when both sides are up and have applied the log, one of them serves reads;
//! - from every state the move can still come to its end.

use sharding::moves::{
    Answer, Destination, DestinationCommand, MovePhase, MoveView, Pull, Pulled, Source, SourceCommand, Tenure,
};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Two rows: versions, 0 for a row that is not there.
type Rows = [u8; 2];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Entry {
    Start,
    /// A side's instance started again.
    Rejoin {
        is_source: bool,
    },
    Finish {
        source: Tenure,
        destination: Tenure,
    },
    Abort,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Pull(Pull),
    /// The answer with the rows that were scanned or changed: (row, version).
    Pulled(Pulled<u8>, Vec<(u8, u8)>),
    AskRelease {
        finish_index: u64,
    },
    Released,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Proposal {
    Finish { source: Tenure, destination: Tenure },
    Done,
}

/// One side: what is on disk, and the machine while the process is up and has applied its own tenure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Side<M> {
    rows: Rows,
    applied: usize,
    is_up: bool,
    machine: Option<M>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    log: Vec<Entry>,
    a: Side<Source<u8, u8>>,
    b: Side<Destination>,
    net: BTreeSet<Message>,
    proposals: BTreeSet<Proposal>,
    /// What the destination is about to store.
    storing: Option<(u64, Vec<(u8, u8)>)>,
    wiping: bool,
    deleting: bool,
    /// The source's last slice.
    slice: Option<Message>,
    /// What readers must find.
    truth: Rows,
    bounds: Bounds,
}

/// What may still happen, so that there is an end of states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Bounds {
    writes: u8,
    crashes: u8,
    /// Messages delivered twice, and requests sent again without need.
    repeats: u8,
    losses: u8,
    aborts: u8,
    give_ups: u8,
}

fn tenure(name: &str, incarnation: u64) -> Tenure {
    Tenure { instance: name.into(), incarnation, master_term: 1 }
}

/// The catalog as of the first `applied` entries.
fn view(log: &[Entry]) -> MoveView {
    let mut view = MoveView {
        index: 0,
        phase: None,
        moved: false,
        source: Some(tenure("a", 1)),
        destination: Some(tenure("b", 1)),
    };
    for (at, entry) in log.iter().enumerate() {
        view.index = at as u64 + 1;
        match entry {
            Entry::Start => view.phase = Some(MovePhase::Copying),
            Entry::Rejoin { is_source: true } => view.source.iter_mut().for_each(|t| t.incarnation += 1),
            Entry::Rejoin { is_source: false } => view.destination.iter_mut().for_each(|t| t.incarnation += 1),
            Entry::Finish { source, destination } => {
                let holds = view.source.as_ref() == Some(source) && view.destination.as_ref() == Some(destination);
                if view.phase == Some(MovePhase::Copying) && holds {
                    view.phase = Some(MovePhase::Finished);
                    view.moved = true;
                }
            }
            Entry::Abort if view.phase == Some(MovePhase::Copying) => view.phase = Some(MovePhase::Aborted),
            Entry::Abort => {}
            Entry::Done if view.phase != Some(MovePhase::Copying) => view.phase = None,
            Entry::Done => {}
        }
    }
    view
}

impl World {
    fn new(bounds: Bounds) -> Self {
        Self {
            log: vec![Entry::Start],
            a: Side { rows: [1, 1], applied: 0, is_up: true, machine: None },
            b: Side { rows: [0, 0], applied: 0, is_up: true, machine: None },
            net: BTreeSet::new(),
            proposals: BTreeSet::new(),
            storing: None,
            wiping: false,
            deleting: false,
            slice: None,
            truth: [1, 1],
            bounds,
        }
    }

    fn a_view(&self) -> MoveView {
        view(&self.log[..self.a.applied])
    }

    fn send(&mut self, message: Message) {
        self.net.insert(message);
    }

    fn source_commands(&mut self, commands: Vec<SourceCommand>) {
        for command in commands {
            match command {
                SourceCommand::Release => self.send(Message::Released),
                SourceCommand::DeleteCopy => self.deleting = true,
                SourceCommand::ProposeDone => _ = self.proposals.insert(Proposal::Done),
            }
        }
    }

    fn destination_command(&mut self, command: Option<DestinationCommand>) {
        match command {
            Some(DestinationCommand::Wipe) => (self.wiping, self.storing) = (true, None),
            Some(DestinationCommand::Pull(pull)) => self.send(Message::Pull(pull)),
            Some(DestinationCommand::ProposeFinish { source, destination }) => {
                self.proposals.insert(Proposal::Finish { source, destination });
            }
            Some(DestinationCommand::AskRelease { finish_index }) => self.send(Message::AskRelease { finish_index }),
            Some(DestinationCommand::ProposeDone) => _ = self.proposals.insert(Proposal::Done),
            Some(DestinationCommand::Store { .. }) | None => {}
        }
    }

    /// All worlds that can come next.
    fn successors(&self) -> Vec<World> {
        let mut next = vec![];
        let mut then = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            if world != *self {
                next.push(world);
            }
        };
        for message in &self.net {
            then(&|w| {
                w.net.remove(message);
                w.deliver(message);
            });
            if self.bounds.repeats > 0 {
                then(&|w| {
                    w.bounds.repeats -= 1;
                    w.deliver(message);
                });
            }
            if self.bounds.losses > 0 {
                then(&|w| {
                    w.bounds.losses -= 1;
                    w.net.remove(message);
                });
            }
        }
        for proposal in &self.proposals {
            then(&|w| {
                w.proposals.remove(proposal);
                w.log.push(match proposal {
                    Proposal::Finish { source, destination } => {
                        Entry::Finish { source: source.clone(), destination: destination.clone() }
                    }
                    Proposal::Done => Entry::Done,
                });
                w.drop_void_entry();
            });
        }
        // Entry by entry, or all that there is by a snapshot.
        then(&|w| w.apply_at_a(w.a.applied + 1));
        then(&|w| w.apply_at_b(w.b.applied + 1));
        then(&|w| w.apply_at_a(w.log.len()));
        then(&|w| w.apply_at_b(w.log.len()));
        then(&World::act_at_a);
        then(&World::act_at_b);
        for key in 0..2 {
            then(&|w| w.write(key, 0));
            then(&|w| w.write(key, 1));
        }
        if self.bounds.crashes > 0 {
            then(&World::crash_a);
            then(&World::crash_b);
        }
        then(&World::restart);
        if self.bounds.aborts > 0 && view(&self.log).phase == Some(MovePhase::Copying) {
            then(&|w| {
                w.bounds.aborts -= 1;
                w.log.push(Entry::Abort);
            });
        }
        if self.bounds.give_ups > 0 {
            then(&|w| {
                w.bounds.give_ups -= 1;
                w.a.machine.iter_mut().for_each(Source::give_up_copy);
            });
        }
        next
    }

    /// Entries that change nothing only make the log longer.
    fn drop_void_entry(&mut self) {
        let (before, after) = (view(&self.log[..self.log.len() - 1]), view(&self.log));
        if before.phase == after.phase {
            self.log.pop();
        }
    }

    fn deliver(&mut self, message: &Message) {
        match message {
            Message::Pull(pull) => {
                let (view, rows) = (self.a_view(), self.a.rows);
                let Some(source) = self.a.machine.as_mut().filter(|_| self.a.is_up) else { return };
                let mut scanned = None;
                // One row a slice, one changed key a slice.
                let answer = source.pull(&view, pull, 1, |cursor| {
                    let row = cursor.map_or(0, |at| at + 1);
                    scanned = Some(row);
                    (row < 1).then_some(row)
                });
                let pulled = match answer {
                    Answer::Nothing => return,
                    Answer::SendAgain => self.slice.clone().expect("a slice that was sent"),
                    Answer::Send(pulled) => {
                        let changed = match &pulled {
                            Pulled::Slice { changed, .. } => changed.as_slice(),
                            _ => &[],
                        };
                        let keys = scanned.iter().chain(changed);
                        let sent = keys.map(|key| (*key, rows[usize::from(*key)])).collect();
                        Message::Pulled(pulled, sent)
                    }
                };
                if let Message::Pulled(Pulled::Slice { .. }, _) = pulled {
                    self.slice = Some(pulled.clone());
                }
                self.send(pulled);
            }
            Message::Pulled(answer, rows) => {
                let Some(destination) = self.b.machine.as_mut() else { return };
                let command = destination.answered(answer);
                if let Some(DestinationCommand::Store { number }) = command {
                    self.storing = Some((number, rows.clone()));
                }
                self.destination_command(command);
            }
            Message::AskRelease { finish_index } => {
                let view = self.a_view();
                if self.a.machine.as_ref().is_some_and(|source| source.may_release(&view, *finish_index)) {
                    self.send(Message::Released);
                }
            }
            Message::Released => self.b.machine.iter_mut().for_each(Destination::released),
        }
    }

    fn apply_at_a(&mut self, to: usize) {
        if !self.a.is_up || self.a.applied == self.log.len() {
            return;
        }
        self.a.applied = to;
        let view = self.a_view();
        let begins = self.a.applied >= self.last_rejoin(true);
        let commands = match &mut self.a.machine {
            Some(source) => source.applied(&view),
            // It begins when it has applied its own tenure, which is the last that it began.
            None if begins => {
                let (source, commands) = Source::new(view.source.clone().unwrap(), &view);
                self.a.machine = Some(source);
                commands
            }
            None => vec![],
        };
        self.source_commands(commands);
    }

    fn apply_at_b(&mut self, to: usize) {
        if !self.b.is_up || self.b.applied == self.log.len() {
            return;
        }
        self.b.applied = to;
        let view = view(&self.log[..self.b.applied]);
        let begins = self.b.applied >= self.last_rejoin(false);
        let command = match &mut self.b.machine {
            Some(destination) => destination.applied(&view),
            None if begins => {
                let (destination, command) = Destination::new(view.destination.clone().unwrap(), &view);
                self.b.machine = Some(destination);
                command
            }
            None => None,
        };
        self.destination_command(command);
    }

    fn last_rejoin(&self, source: bool) -> usize {
        let own = |entry: &Entry| *entry == Entry::Rejoin { is_source: source } || *entry == Entry::Start;
        self.log.iter().rposition(own).map_or(0, |at| at + 1)
    }

    /// The source's own work.
    fn act_at_a(&mut self) {
        if self.deleting && self.a.is_up {
            (self.deleting, self.a.rows) = (false, [0, 0]);
        }
        // Proposes again what may have been lost.
        if let Some(source) = self.a.machine.as_ref().filter(|_| !self.deleting) {
            let commands = source.deleted();
            self.source_commands(commands);
        }
    }

    /// The destination's own work, or what it does when it has waited too long.
    fn act_at_b(&mut self) {
        let Some(destination) = &mut self.b.machine else { return };
        let command = if self.wiping {
            self.wiping = false;
            self.b.rows = [0, 0];
            destination.wiped()
        } else if let Some((number, rows)) = self.storing.take() {
            rows.iter().for_each(|(key, version)| self.b.rows[usize::from(*key)] = *version);
            destination.stored(number)
        } else if !self.a.is_up && destination.reads() {
            // The source is down, and its lease over.
            destination.released();
            None
        } else if self.net.is_empty() && self.proposals.is_empty() {
            // What it waits for was lost, or could not be answered.
            destination.again()
        } else if self.bounds.repeats > 0 {
            self.bounds.repeats -= 1;
            destination.again()
        } else {
            None
        };
        self.destination_command(command);
    }

    /// A client changes a row (or deletes it) wherever that is taken.
    fn write(&mut self, key: u8, change: u8) {
        if self.bounds.writes == 0 {
            return;
        }
        let at = usize::from(key);
        let version = if change == 0 { 0 } else { 5 - self.bounds.writes };
        if let Some(source) = self.a.machine.as_mut().filter(|source| source.writes()) {
            self.a.rows[at] = version;
            source.wrote(key);
        } else if self.b.machine.as_ref().is_some_and(Destination::writes) {
            self.b.rows[at] = version;
        } else {
            return;
        }
        self.truth[at] = version;
        self.bounds.writes -= 1;
    }

    fn crash_a(&mut self) {
        if self.a.is_up {
            self.bounds.crashes -= 1;
            (self.a.is_up, self.a.machine, self.deleting, self.slice) = (false, None, false, None);
        }
    }

    fn crash_b(&mut self) {
        if self.b.is_up {
            self.bounds.crashes -= 1;
            (self.b.is_up, self.b.machine, self.wiping, self.storing) = (false, None, false, None);
        }
    }

    /// Whoever is down comes back: its next incarnation goes through the log.
    fn restart(&mut self) {
        if !self.a.is_up {
            self.a.is_up = true;
            self.log.push(Entry::Rejoin { is_source: true });
        } else if !self.b.is_up {
            self.b.is_up = true;
            self.log.push(Entry::Rejoin { is_source: false });
        }
    }

    /// What must hold in every state.
    fn check(&self) -> Result<(), &'static str> {
        let (a, b) = (self.a.machine.as_ref(), self.b.machine.as_ref());
        let (a_reads, b_reads) = (a.is_some_and(Source::reads), b.is_some_and(Destination::reads));
        if a.is_some_and(Source::writes) && b.is_some_and(Destination::writes) {
            return Err("both sides take writes");
        }
        if a_reads && self.a.rows != self.truth {
            return Err("the source serves rows that are not what was written");
        }
        if b_reads && self.b.rows != self.truth {
            return Err("the destination serves rows that are not what was written");
        }
        let in_touch =
            a.is_some() && b.is_some() && self.a.applied == self.log.len() && self.b.applied == self.log.len();
        if in_touch && !a_reads && !b_reads {
            return Err("nobody serves reads");
        }
        Ok(())
    }

    /// The move is over, one way or the other, and the owner serves all.
    fn is_over(&self) -> bool {
        let in_touch = self.a.applied == self.log.len() && self.b.applied == self.log.len();
        let writes = self.a.machine.as_ref().is_some_and(Source::writes)
            || self.b.machine.as_ref().is_some_and(Destination::writes);
        in_touch && view(&self.log).phase.is_none() && writes
    }
}

/// Two hashes of a state, which stand for it: the states themselves would not fit in memory.
fn fingerprint(world: &World) -> (u64, u64) {
    let hash = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, world).hash(&mut hasher);
        hasher.finish()
    };
    (hash(0), hash(1))
}

/// Visits every state; answers how many there are and how many ends.
fn explore(start: &World) -> (usize, usize) {
    let mut numbers: HashMap<(u64, u64), u32> = HashMap::from([(fingerprint(start), 0)]);
    // For each state those that lead to it, the first of them the one that it was found from.
    let mut before: Vec<Vec<u32>> = vec![vec![]];
    let mut ends: Vec<u32> = vec![];
    let mut queue = VecDeque::from([start.clone()]);
    for number in 0.. {
        let Some(world) = queue.pop_front() else { break };
        if let Err(broken) = world.check() {
            panic!("{broken}:\n{}", path(start, &numbers, &before, number));
        }
        if world.is_over() {
            ends.push(number);
        }
        for next in world.successors() {
            let fresh = numbers.len() as u32;
            let to = *numbers.entry(fingerprint(&next)).or_insert(fresh);
            if to == fresh {
                before.push(vec![]);
                queue.push_back(next);
            }
            before[to as usize].push(number);
        }
    }
    let mut can_end = vec![false; before.len()];
    let mut reached = ends.clone();
    while let Some(number) = reached.pop() {
        if !std::mem::replace(&mut can_end[number as usize], true) {
            reached.extend(&before[number as usize]);
        }
    }
    if let Some(stuck) = can_end.iter().position(|ends| !ends) {
        panic!("the move can not end:\n{}", path(start, &numbers, &before, stuck as u32));
    }
    (before.len(), ends.len())
}

/// How a state came about, found again from the start.
fn path(start: &World, numbers: &HashMap<(u64, u64), u32>, before: &[Vec<u32>], to: u32) -> String {
    let mut way = vec![to];
    while let Some(from) = before[way[way.len() - 1] as usize].first() {
        way.push(*from);
    }
    let mut world = start.clone();
    let mut steps = vec![];
    for number in way.into_iter().rev() {
        if number != 0 {
            let reached = |next: &World| numbers.get(&fingerprint(next)) == Some(&number);
            world = world.successors().into_iter().find(reached).expect("the way was gone before");
        }
        steps.push(format!("{world:?}"));
    }
    steps.join("\n\n")
}

#[test]
fn whatever_happens_one_side_serves_and_never_two_write() {
    let none = Bounds::default();
    for bounds in [
        Bounds { writes: 2, repeats: 1, losses: 1, ..none },
        Bounds { writes: 1, crashes: 1, repeats: 1, ..none },
        Bounds { writes: 1, crashes: 1, losses: 1, ..none },
        Bounds { writes: 1, aborts: 1, repeats: 1, ..none },
        Bounds { crashes: 2, ..none },
        Bounds { writes: 1, crashes: 1, aborts: 1, ..none },
        Bounds { writes: 1, repeats: 1, losses: 1, give_ups: 1, ..none },
    ] {
        let (states, ends) = explore(&World::new(bounds));
        assert!(states > 1000 && ends > 10, "{bounds:?}: {states} states, {ends} ends");
    }
}
