//! The fiber that drives the Raft node: the only one that touches it.
//!
//! Others leave what they want in the inbox and wake it: messages of peers, proposals, reads. It steps the node, writes
//! what a `Ready` says and applies what is committed in one box transaction, sends the messages before or after as
//! the node demands, and wakes those who wait for an outcome.
//!
//! While the disk takes no writes the node stands still, to its peers a silent one: they elect another leader, and what is
//! asked of it here is refused. It goes on where it stood with the first write that succeeds.

use crate::host::{Deadline, Event, Parked, clock, failpoint, fiber};
use crate::raft::disk;
use crate::raft::machine::{Applied, Machine};
use crate::raft::transport::Transport;
use crate::storage::room;
use crate::{node, start};
use boot::Address;
use catalog::{Instance, InstanceState, Outcome};
use consensus::{Node, Outgoing, Position, Ready, Role, Status};
use model::{Code, Error, InstanceName, RaftId, Result};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// The length of a tick: with `consensus::Config::new`, elections start after 0.5 to 1 s of silence.
const TICK_S: f64 = 0.05;
/// After a longer pause of the whole process no more than this many ticks are made up for.
const TICKS_LATE_MAX: u32 = 2;
/// The log is compacted when it holds this many bytes or entries beyond the snapshot.
const LOG_BYTES_MAX: u64 = 16 << 20;
const LOG_ENTRIES_MAX: u64 = 10_000;
/// What peers may leave in the inbox before more of it is dropped; Raft sends again.
const INBOX_MAX: usize = 10_000;
/// Entries that a log takes also when memory is short.
const SMALL_ENTRY_BYTES: usize = 16 << 10;
/// The pause before a write that the disk did not take is tried again, at first and at most. Nothing tells of space.
const STALL_FIRST_S: f64 = 0.05;
const STALL_MAX_S: f64 = 1.0;

/// What other fibers want of the node.
enum Input {
    Message(Vec<u8>),
    Propose { entry: Vec<u8>, reply: Rc<Slot<Committed>> },
    Members { voters: Vec<RaftId>, learners: Vec<RaftId>, reply: Rc<Slot<()>> },
    Read { reply: Rc<Slot<u64>> },
    Unreachable(RaftId),
    SnapshotSent { to: RaftId, ok: bool },
    TransferLeader(RaftId),
    LeaderGone(RaftId),
    Campaign,
    Recover { lost: BTreeSet<InstanceName>, term: u64, reply: Rc<Slot<()>> },
}

/// A proposal that made it into the log, and what came of it.
#[derive(Clone, Debug)]
pub struct Committed {
    pub index: u64,
    pub outcome: Outcome,
    /// What a write to a global table answered.
    pub rows: Option<Result<Vec<u8>>>,
}

/// A place for one result that one fiber waits for.
pub struct Slot<T> {
    value: RefCell<Option<Result<T>>>,
    ready: Event,
}

impl<T> Slot<T> {
    fn new() -> Result<Rc<Self>> {
        Ok(Rc::new(Self { value: RefCell::new(None), ready: Event::new()? }))
    }

    fn set(&self, value: Result<T>) {
        *self.value.borrow_mut() = Some(value);
        self.ready.notify_all();
    }

    /// Waits for the result; None when the deadline passes first.
    fn wait(&self, deadline: Deadline) -> Option<Result<T>> {
        loop {
            if let Some(value) = self.value.borrow_mut().take() {
                return Some(value);
            }
            if self.ready.wait(deadline) != Parked::Woken {
                return self.value.borrow_mut().take();
            }
        }
    }
}

/// How many snapshots of the cluster's state went out and came in since the process started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshots {
    /// Received whole by the other side.
    pub sent: u64,
    pub installed: u64,
}

/// The node's surroundings, shared by its fiber and all others.
pub struct Runtime {
    inbox: RefCell<VecDeque<Input>>,
    wakeup: Event,
    status: RefCell<Status>,
    /// Fires when the leader, the role, the members or the applied index change.
    pub changed: Event,
    applied: Cell<u64>,
    snapshots: Cell<Snapshots>,
    /// Set while the node does not go on, for ever or until the disk takes writes: the reason, for everybody who asks.
    stopped: RefCell<Option<Error>>,
}

impl Runtime {
    /// Starts the fiber.
    pub fn start(node: Node, machine: Machine, transport: Rc<dyn Transport>) -> Result<Rc<Self>> {
        let runtime = Rc::new(Self {
            inbox: RefCell::new(VecDeque::new()),
            wakeup: Event::new()?,
            status: RefCell::new(node.status()),
            changed: Event::new()?,
            applied: Cell::new(machine.applied()),
            snapshots: Cell::default(),
            stopped: RefCell::new(None),
        });
        let driver = Driver {
            runtime: Rc::clone(&runtime),
            node,
            machine,
            transport,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            snapshot_index: 0,
        };
        fiber::spawn("pico_raft", move || driver.run())?;
        Ok(runtime)
    }

    /// How the node stood after its last step.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub fn is_leader(&self) -> bool {
        self.status.borrow().role == Role::Leader
    }

    pub fn leader(&self) -> Option<RaftId> {
        self.status.borrow().leader
    }

    /// The last entry whose effects are in this instance's state.
    pub fn applied(&self) -> u64 {
        self.applied.get()
    }

    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.get()
    }

    /// A message of a peer arrived.
    pub fn step(&self, message: Vec<u8>) {
        if self.inbox.borrow().len() < INBOX_MAX && self.stopped.borrow().is_none() {
            self.push(Input::Message(message));
        }
    }

    /// Appends an entry to the log, if this node leads, and waits until it is applied here.
    ///
    /// Errors: `NoLeader` when it does not lead or lost the entry to another leader, `Storage` when its disk takes no writes:
    /// nothing happened. `LimitExceeded` for an entry that no instance's log takes, and `Storage` for a large one while memory is
    /// short here. `Unknown` when the deadline passed first.
    pub fn propose(&self, entry: Vec<u8>, deadline: Deadline) -> Result<Committed> {
        self.check_running()?;
        check_size(entry.len())?;
        let reply = Slot::new()?;
        self.push(Input::Propose { entry, reply: Rc::clone(&reply) });
        self.outcome(&reply, deadline)
    }

    /// Changes voters and learners; returns once the change is in the log.
    pub fn change_members(&self, voters: Vec<RaftId>, learners: Vec<RaftId>, deadline: Deadline) -> Result<()> {
        self.check_running()?;
        let reply = Slot::new()?;
        self.push(Input::Members { voters, learners, reply: Rc::clone(&reply) });
        self.outcome(&reply, deadline)
    }

    /// Waits until this instance has applied everything that was committed before the call.
    ///
    /// Errors: `NoLeader` when no majority answers in time; `Storage` when this instance's disk takes no writes.
    pub fn catch_up(&self, deadline: Deadline) -> Result<()> {
        self.check_running()?;
        let reply = Slot::new()?;
        self.push(Input::Read { reply: Rc::clone(&reply) });
        match reply.wait(deadline) {
            Some(result) => result.map(|_| ()),
            None => Err(self.no_leader()),
        }
    }

    /// Waits until the entry is applied here. Answers whether it was in time.
    pub fn wait_applied(&self, index: u64, deadline: Deadline) -> bool {
        while self.applied.get() < index {
            if self.changed.wait(deadline) != Parked::Woken {
                return self.applied.get() >= index;
            }
        }
        true
    }

    pub fn unreachable(&self, raft_id: RaftId) {
        self.push(Input::Unreachable(raft_id));
    }

    pub fn snapshot_sent(&self, to: RaftId, ok: bool) {
        let Snapshots { sent, installed } = self.snapshots.get();
        self.snapshots.set(Snapshots { sent: sent + u64::from(ok), installed });
        self.push(Input::SnapshotSent { to, ok });
    }

    pub fn transfer_leader(&self, to: RaftId) {
        self.push(Input::TransferLeader(to));
    }

    /// The leader's process has ended.
    pub fn leader_is_gone(&self, raft_id: RaftId) {
        self.push(Input::LeaderGone(raft_id));
    }

    /// Stands for election without waiting for the silence to last.
    pub fn campaign(&self) {
        self.push(Input::Campaign);
    }

    /// Has this instance's log begin anew without the instances that are lost, in a term that none of the others has seen.
    /// The node does not go on then: the process has to begin again.
    ///
    /// Errors: what the catalog refuses, and the disk; nothing has changed then.
    pub fn recover(&self, lost: BTreeSet<InstanceName>, term: u64, deadline: Deadline) -> Result<()> {
        self.check_running()?;
        let reply = Slot::new()?;
        self.push(Input::Recover { lost, term, reply: Rc::clone(&reply) });
        self.outcome(&reply, deadline)
    }

    fn push(&self, input: Input) {
        self.inbox.borrow_mut().push_back(input);
        self.wakeup.notify_all();
    }

    /// Errors: why the node does not go on.
    pub fn check_running(&self) -> Result<()> {
        self.stopped.borrow().as_ref().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn outcome<T>(&self, reply: &Slot<T>, deadline: Deadline) -> Result<T> {
        reply.wait(deadline).unwrap_or_else(|| {
            Err(Error::new(
                Code::Unknown,
                "it is not known whether the change was made: no majority confirmed it in time",
            )
            .with_hint("look at the state of the cluster before trying again"))
        })
    }

    fn no_leader(&self) -> Error {
        Error::new(Code::NoLeader, "the cluster has no Raft leader that a majority follows")
            .with_hint("check that most voters run and reach one another: picodata.status()")
    }
}

/// What can not be written here would stop this instance, and all others that it was sent to.
fn check_size(bytes: usize) -> Result<()> {
    if bytes > disk::ENTRY_BYTES_MAX {
        let max_kib = disk::ENTRY_BYTES_MAX >> 10;
        let message =
            format!("a change of {bytes} bytes is more than one entry of the cluster's log takes, {max_kib} KiB");
        let hint = "write fewer or shorter rows of a global table at once, or make the table sharded";
        return Err(Error::new(Code::LimitExceeded, message).with_hint(hint));
    }
    if bytes > SMALL_ENTRY_BYTES { room::check(bytes) } else { Ok(()) }
}

/// What the fiber owns.
struct Driver {
    runtime: Rc<Runtime>,
    node: Node,
    machine: Machine,
    transport: Rc<dyn Transport>,
    /// Proposals in the log by index, with the term they were made in.
    proposals: BTreeMap<u64, (u64, Rc<Slot<Committed>>)>,
    reads: BTreeMap<u64, Rc<Slot<u64>>>,
    next_read: u64,
    /// The entry that the catalog's snapshot on disk stands at.
    snapshot_index: u64,
}

impl Driver {
    fn run(mut self) {
        self.snapshot_index = self.machine.snapshot_index();
        let result = self.drive();
        let error = match result {
            Ok(()) => Error::new(Code::NotReady, "the instance is stopping"),
            Err(error) => {
                log::error!("raft stopped: {error}");
                error
            }
        };
        self.refuse(&error);
    }

    /// The node does not go on: tells everybody who waits or will ask, and that it leads nobody.
    fn refuse(&mut self, error: &Error) {
        *self.runtime.stopped.borrow_mut() = Some(error.clone());
        for (_, (_, slot)) in std::mem::take(&mut self.proposals) {
            let message = format!("it is not known whether the change will be made: {}", error.message);
            slot.set(Err(Error::new(Code::Unknown, message)));
        }
        for (_, slot) in std::mem::take(&mut self.reads) {
            slot.set(Err(error.clone()));
        }
        let inputs = std::mem::take(&mut *self.runtime.inbox.borrow_mut());
        let kept = inputs.into_iter().filter_map(|input| match input {
            Input::Message(_) => None,
            Input::Propose { reply, .. } => {
                reply.set(Err(error.clone()));
                None
            }
            Input::Members { reply, .. } => {
                reply.set(Err(error.clone()));
                None
            }
            Input::Read { reply } => {
                reply.set(Err(error.clone()));
                None
            }
            Input::Recover { reply, .. } => {
                reply.set(Err(error.clone()));
                None
            }
            other => Some(other),
        });
        self.runtime.inbox.borrow_mut().extend(kept);
        self.tell(Status { leader: None, role: Role::Follower, ..self.node.status() });
    }

    fn drive(&mut self) -> Result<()> {
        let mut next_tick_s = clock::now_s() + TICK_S;
        loop {
            if self.runtime.inbox.borrow().is_empty() && !self.node.has_ready() {
                let left_ms = ((next_tick_s - clock::now_s()) * 1e3).max(1.0);
                self.runtime.wakeup.wait(Deadline::after_ms(left_ms as u64));
            }
            if fiber::is_cancelled() {
                return Ok(());
            }
            let late_ticks = ((clock::now_s() - next_tick_s) / TICK_S).floor() + 1.0;
            if late_ticks >= 1.0 {
                for _ in 0..(late_ticks as u32).min(TICKS_LATE_MAX) {
                    self.node.tick()?;
                }
                next_tick_s += late_ticks * TICK_S;
            }
            let inputs = std::mem::take(&mut *self.runtime.inbox.borrow_mut());
            for input in inputs {
                self.take(input)?;
            }
            while self.node.has_ready() {
                let ready = self.node.ready()?;
                self.handle(ready)?;
            }
            self.publish();
            self.compact()?;
        }
    }

    fn take(&mut self, input: Input) -> Result<()> {
        match input {
            Input::Message(bytes) => {
                if let Err(error) = self.node.step(&bytes) {
                    if error.code == Code::Internal {
                        return Err(error);
                    }
                    log::warn!("raft: a message was refused: {error}");
                    if error.code == Code::Corrupted {
                        begin_without_log();
                    }
                }
            }
            Input::Propose { entry, reply } => match self.node.propose(entry, Vec::new()) {
                Ok(Position { index, term }) => {
                    failpoint::reach("raft.proposed");
                    self.proposals.insert(index, (term, reply));
                }
                Err(error) => reply.set(Err(error)),
            },
            Input::Members { voters, learners, reply } => {
                reply.set(self.node.propose_members(&voters, &learners, Vec::new()).map(|_| ()));
            }
            Input::Read { reply } => {
                self.next_read += 1;
                match self.node.read_index(self.next_read) {
                    Ok(()) => {
                        self.reads.insert(self.next_read, reply);
                    }
                    Err(error) => reply.set(Err(error)),
                }
            }
            Input::Unreachable(raft_id) => self.node.unreachable(raft_id)?,
            Input::SnapshotSent { to, ok: true } => self.node.snapshot_finished(to)?,
            Input::SnapshotSent { to, ok: false } => self.node.snapshot_failed(to)?,
            Input::TransferLeader(to) => {
                if let Err(error) = self.node.transfer_leader(to) {
                    log::warn!("raft: leadership stays: {error}");
                }
            }
            Input::LeaderGone(raft_id) => {
                log::info!("raft: the leader {raft_id} has ended");
                self.node.leader_is_gone(raft_id)?;
            }
            Input::Recover { lost, term, reply } => {
                let result = self.recover(lost, term);
                let is_done = result.is_ok();
                reply.set(result);
                if is_done {
                    return Err(Error::new(
                        Code::NotReady,
                        "the instance begins again as the first of those that are left",
                    ));
                }
            }
            Input::Campaign => {
                if let Err(error) = self.node.campaign() {
                    log::info!("raft: no election: {error}");
                }
            }
        }
        Ok(())
    }

    /// Takes all of this log for committed, and begins another behind it.
    fn recover(&mut self, lost: BTreeSet<InstanceName>, term: u64) -> Result<()> {
        let status = self.node.status();
        let rest = self.node.rest();
        let position = Position { index: status.last_index + 1, term: term.max(status.term + 1) };
        self.machine.prepare(None, &rest)?;
        self.machine.recover(&rest, position, lost, status.raft_id)
    }

    /// Does what the node wants done, in the order that it demands.
    fn handle(&mut self, mut ready: Ready) -> Result<()> {
        self.send(std::mem::take(&mut ready.messages));
        if let Some((leader, role, term)) = ready.leadership {
            log::info!("raft: {role:?} in term {term}, the leader is {leader:?}");
        }
        let applied = self.write(&ready)?;
        self.node.persisted(ready.number)?;
        failpoint::reach("raft.written");
        self.send(ready.messages_after);
        if let Some(snapshot) = &ready.snapshot {
            self.snapshot_index = snapshot.position.index;
            let Snapshots { sent, installed } = self.runtime.snapshots();
            self.runtime.snapshots.set(Snapshots { sent, installed: installed + 1 });
        }
        self.runtime.applied.set(self.machine.applied());
        // Who is answered may look at what was confirmed.
        self.publish();
        self.answer(applied);
        for read in ready.reads {
            if let Some(slot) = self.reads.remove(&read) {
                slot.set(Ok(self.machine.applied()));
            }
        }
        if ready.snapshot_wanted {
            let (index, data) = self.machine.snapshot()?;
            self.node.provide_snapshot(index, data)?;
            failpoint::reach("snapshot.provided");
        }
        Ok(())
    }

    /// Writes and applies what a `Ready` says, at once or when the disk takes it.
    fn write(&mut self, ready: &Ready) -> Result<Vec<Applied>> {
        let mut pause_s = STALL_FIRST_S;
        loop {
            let prepared = self.machine.prepare(ready.snapshot.as_ref(), &ready.committed);
            let result =
                prepared.and_then(|()| self.machine.write(&ready.persist, ready.snapshot.as_ref(), &ready.committed));
            match result {
                Err(error) if error.code == Code::Storage && !fiber::is_cancelled() => self.stall(&error),
                result => {
                    if self.runtime.stopped.take().is_some() {
                        log::info!("raft: the disk takes writes again");
                        self.publish();
                    }
                    return result;
                }
            }
            fiber::sleep(pause_s);
            pause_s = (pause_s * 2.0).min(STALL_MAX_S);
        }
    }

    /// The disk does not take what has to be written.
    fn stall(&mut self, cause: &Error) {
        if self.runtime.stopped.borrow().is_none() {
            log::error!("raft: stands still until the disk takes writes: {cause}");
        }
        let message = format!("this instance can not write the cluster's log: {}", cause.message);
        let hint = "it goes on by itself when there is room again on the disk of its data_dir, and in memtx_memory";
        self.refuse(&Error::new(Code::Storage, message).with_hint(hint));
    }

    fn send(&self, messages: Vec<Outgoing>) {
        for message in messages {
            self.transport.send(message.to, message.bytes, message.is_snapshot);
        }
    }

    /// Wakes the proposers of what was applied; a proposal whose place another leader's entry took is lost.
    fn answer(&mut self, applied: Vec<Applied>) {
        for Applied { position, outcome, rows } in applied {
            let Some((term, slot)) = self.proposals.remove(&position.index) else { continue };
            slot.set(match outcome {
                Some(outcome) if term == position.term => Ok(Committed { index: position.index, outcome, rows }),
                _ => Err(Error::new(Code::NoLeader, "another Raft leader took over before the change was made")),
            });
        }
    }

    fn publish(&mut self) {
        self.tell(self.node.status());
    }

    fn tell(&self, status: Status) {
        let changed = *self.runtime.status.borrow() != status;
        if changed {
            *self.runtime.status.borrow_mut() = status;
            self.runtime.changed.notify_all();
        }
    }

    /// Bounds the log: writes the catalog's snapshot, then forgets the entries before it.
    fn compact(&mut self) -> Result<()> {
        let status = self.runtime.status.borrow();
        let entries = status.applied.saturating_sub(self.snapshot_index);
        let is_due =
            entries >= LOG_ENTRIES_MAX || (status.log_bytes >= LOG_BYTES_MAX && entries > LOG_ENTRIES_MAX / 100);
        drop(status);
        if !is_due {
            return Ok(());
        }
        match self.machine.write_snapshot() {
            Ok(index) => self.snapshot_index = index,
            // A longer log does no harm; the next entries try again.
            Err(error) if error.code == Code::Storage => {
                log::warn!("raft: the log is not compacted: {error}");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.node.compact(self.snapshot_index)?;
        failpoint::reach("compact.done");
        Ok(())
    }
}

/// The leader counts on entries that this instance has acknowledged and lost, or has lost some that were committed here. The
/// instance keeps its rows, and takes part in Raft as somebody else. What keeps it from that is tried again with the leader's
/// next message.
fn begin_without_log() {
    let Ok(node) = node::get() else { return };
    let state = node.state();
    let is_other = |other: &&Instance| other.name != node.me.name && other.state != InstanceState::Expelled;
    let others = state.topology.instances.values().filter(is_other);
    let others: BTreeSet<Address> = others.filter_map(|other| other.address.parse().ok()).collect();
    if others.is_empty() {
        return;
    }
    log::warn!("picodata: instance {} begins again without its Raft log, under another number", node.me.name);
    if let Err(error) = start::start_without_log(others) {
        log::error!("picodata: this instance can not begin again: {error}");
    }
}
