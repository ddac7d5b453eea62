//! Buckets that change hands: the sharding room's two state machines on the masters of both sides, as the module drives
//! them. Rows that they store or delete wait for the members in sync like any others.

use super::acks::Waiting;
use super::clients::bucket_of;
use super::journal::Transaction;
use super::letter::Letter;
use super::node::{Asker, Process, Then, number_of};
use super::raft::Input;
use super::store::{Change, Key, WriteId};
use super::terms::KEYS;
use super::world::World;
use crate::invariants::Verdict;
use catalog::{Entry, Move, MoveId, Op, State};
use sharding::BucketRange;
use sharding::moves::{
    Answer, Destination, DestinationCommand, MoveView, Pull, Pulled, Source, SourceCommand, SourceState, Tenure,
};
use std::collections::BTreeMap;

/// Keys that changed, in one slice.
const CHANGED_MAX: usize = 2;

/// Keys with their lists, or None where there is nothing.
pub type Rows = Vec<(Key, Option<Vec<WriteId>>)>;

/// What was waited for on the members in sync.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Wiped,
    Stored(u64),
    Deleted,
}

/// A move out of here.
pub struct Leaving {
    tenure: Tenure,
    record: Move,
    machine: Source<Key, Key>,
    latest: Option<(Pulled<Key>, Rows)>,
}

/// A move to here.
pub struct Arriving {
    tenure: Tenure,
    record: Move,
    machine: Destination,
    is_busy: bool,
}

#[derive(Default)]
pub struct Moves {
    pub leaving: BTreeMap<MoveId, Leaving>,
    pub arriving: BTreeMap<MoveId, Arriving>,
}

impl Moves {
    /// Whether a bucket's key may be read, and written, where the catalog has a move of it.
    fn permits(&self, record: &Move, process: &Process) -> (bool, bool) {
        let home = process.record().map(|record| &record.replicaset);
        if home == Some(&record.from) {
            let leaving = self.leaving.get(&record.id);
            return leaving.map_or((false, false), |one| (one.machine.reads(), one.machine.writes()));
        }
        let arriving = self.arriving.get(&record.id).filter(|_| home == Some(&record.to));
        arriving.map_or((false, false), |one| (one.machine.reads(), one.machine.writes()))
    }

    /// A client wrote a key.
    pub fn wrote(&mut self, key: Key) {
        for one in self.leaving.values_mut().filter(|one| one.record.buckets.contains(bucket_of(key))) {
            if one.machine.writes() {
                one.machine.wrote(key);
            }
        }
    }
}

impl Process {
    /// Whether a key may be read, and written, here, if this instance serves at all.
    pub fn permits(&self, key: Key) -> (bool, bool) {
        let tier = "default".into();
        let bucket = bucket_of(key);
        let mut moves = self.state.placement.moves.values();
        if let Some(record) = moves.find(|record| record.tier == tier && record.buckets.contains(bucket)) {
            return self.moves.permits(record, self);
        }
        let owner = self.state.placement.map(&tier).and_then(|map| map.owner(bucket));
        let owns = self.record().is_some_and(|record| owner == Some(&record.replicaset));
        (owns, owns)
    }

    fn tenure(&self) -> Option<Tenure> {
        let tenure = self.state.topology.tenure(&self.record()?.replicaset)?;
        (tenure.instance == self.name && tenure.incarnation == self.incarnation).then_some(tenure)
    }
}

/// What the catalog says about a move.
fn view(state: &State, record: &Move) -> MoveView {
    MoveView {
        index: state.index,
        phase: state.placement.moves.get(&record.id).map(|record| record.phase),
        moved: state.placement.map(&record.tier).is_some_and(|map| map.owns(&record.to, record.buckets)),
        source: state.topology.tenure(&record.from),
        destination: state.topology.tenure(&record.to),
    }
}

fn keys_of(buckets: BucketRange) -> impl Iterator<Item = Key> {
    (0..KEYS).filter(move |key| buckets.contains(bucket_of(*key)))
}

impl World {
    /// The catalog changed on this instance.
    pub fn follow_moves(&mut self, number: u64) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        let Some(me) = process.tenure() else {
            process.moves = Moves::default();
            return Ok(());
        };
        let state = process.state.clone();
        let home = process.record().map(|record| record.replicaset.clone());
        let Moves { leaving, arriving } = &mut process.moves;
        leaving.retain(|_, one| one.tenure == me);
        arriving.retain(|id, one| one.tenure == me && state.placement.moves.contains_key(id));
        let (mut deletes, mut commands) = (Vec::new(), Vec::new());
        for record in state.placement.moves.values() {
            let seen = view(&state, record);
            if home.as_ref() == Some(&record.from) && !leaving.contains_key(&record.id) {
                let (machine, orders) = Source::new(me.clone(), &seen);
                deletes.extend(orders.contains(&SourceCommand::DeleteCopy).then_some(record.id));
                let (tenure, record) = (me.clone(), record.clone());
                leaving.insert(record.id, Leaving { tenure, record, machine, latest: None });
            }
            if home.as_ref() == Some(&record.to) && !arriving.contains_key(&record.id) {
                let (machine, command) = Destination::new(me.clone(), &seen);
                let (tenure, record) = (me.clone(), record.clone());
                commands.push((record.id, command));
                arriving.insert(record.id, Arriving { tenure, record, machine, is_busy: false });
            }
        }
        for one in leaving.values_mut() {
            let orders = one.machine.applied(&view(&state, &one.record));
            deletes.extend(orders.contains(&SourceCommand::DeleteCopy).then_some(one.record.id));
        }
        leaving.retain(|id, _| state.placement.moves.contains_key(id));
        for one in arriving.values_mut() {
            commands.push((one.record.id, one.machine.applied(&view(&state, &one.record))));
        }
        deletes.into_iter().for_each(|id| self.delete_copy(number, id));
        commands.into_iter().try_for_each(|(id, command)| self.carry_move_out(number, id, command))
    }

    /// What may have been lost is asked once more.
    pub fn move_on(&mut self, number: u64) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        let idle = process.moves.arriving.values().filter(|one| !one.is_busy);
        let again: Vec<_> = idle.map(|one| (one.record.id, one.machine.again())).collect();
        let done = process.moves.leaving.values().filter(|one| one.machine.state() == SourceState::Moved);
        let done: Vec<MoveId> = done.map(|one| one.record.id).collect();
        again.into_iter().try_for_each(|(id, command)| self.carry_move_out(number, id, command))?;
        done.into_iter().for_each(|id| self.delete_copy(number, id));
        Ok(())
    }

    fn delete_copy(&mut self, number: u64, id: MoveId) {
        let Some(one) = self.process(number).and_then(|process| process.moves.leaving.get(&id)) else { return };
        let buckets = one.record.buckets;
        self.change_rows(number, id, Step::Deleted, keys_of(buckets).map(|key| (key, None)).collect());
    }

    /// Writes rows of a move, and waits for the members in sync.
    fn change_rows(&mut self, number: u64, id: MoveId, step: Step, rows: Rows) {
        let now_us = self.now_us;
        let Some(process) = self.process(number) else { return };
        let Some(tenure) = process.tenure() else { return };
        let target = process.store.written() + rows.len() as u64;
        let changes = rows.into_iter().map(|(key, list)| match list {
            Some(list) => Change::Put { key, list },
            None => Change::Delete { key },
        });
        let changes: Vec<Change> = changes.collect();
        let step = Some((id, step, tenure));
        let waiting = Waiting { target, key: 0, list: vec![], floor: 0, is_write: false, since_us: now_us, step };
        if changes.is_empty() {
            self.write(number, Transaction { raft: None, rows: vec![], seen: None, then: Then::Write(waiting) });
        } else {
            self.write_rows(number, changes, Then::Write(waiting));
        }
    }

    /// The rows of a step are on all members in sync.
    pub fn step_is_safe(&mut self, number: u64, id: MoveId, step: Step, tenure: &Tenure) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        if process.tenure().as_ref() != Some(tenure) {
            return Ok(());
        }
        if let Step::Deleted = step {
            let orders = process.moves.leaving.get(&id).map_or(vec![], |one| one.machine.deleted());
            let is_due = orders.contains(&SourceCommand::ProposeDone);
            return if is_due { self.propose_move(number, Op::MoveDone { id }) } else { Ok(()) };
        }
        let Some(one) = process.moves.arriving.get_mut(&id) else { return Ok(()) };
        one.is_busy = false;
        let command = match step {
            Step::Wiped => one.machine.wiped(),
            Step::Stored(slice) => one.machine.stored(slice),
            Step::Deleted => None,
        };
        self.carry_move_out(number, id, command)
    }

    fn carry_move_out(&mut self, number: u64, id: MoveId, command: Option<DestinationCommand>) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        let state = &process.state;
        let Some(one) = process.moves.arriving.get_mut(&id) else { return Ok(()) };
        let source = state.topology.tenure(&one.record.from).map(|source| number_of(source.instance.as_str()));
        let buckets = one.record.buckets;
        match command {
            Some(DestinationCommand::Wipe) if !one.is_busy => {
                one.is_busy = true;
                self.change_rows(number, id, Step::Wiped, keys_of(buckets).map(|key| (key, None)).collect());
            }
            Some(DestinationCommand::Pull(pull)) => {
                source.into_iter().for_each(|to| self.send(number, to, Letter::MovePull { id, pull: pull.clone() }));
            }
            Some(DestinationCommand::AskRelease { finish_index }) => {
                source.into_iter().for_each(|to| self.send(number, to, Letter::AskRelease { id, finish_index }));
            }
            Some(DestinationCommand::ProposeFinish { source, destination }) => {
                return self.propose_move(number, Op::MoveFinish { id, source, destination });
            }
            Some(DestinationCommand::ProposeDone) => return self.propose_move(number, Op::MoveDone { id }),
            Some(DestinationCommand::Wipe | DestinationCommand::Store { .. }) | None => {}
        }
        Ok(())
    }

    fn propose_move(&mut self, number: u64, op: Op) -> Verdict {
        let entry = Entry::new(op).to_bytes().map_err(super::world::text)?;
        let Some(process) = self.process(number) else { return Ok(()) };
        let Some(leader) = process.raft.leader() else { return Ok(()) };
        if leader == process.raft_id {
            return self.put(number, Input::Propose { entry, asker: Asker::Nobody });
        }
        let known = process.state.topology.instance_by_raft_id(leader).map(|leader| number_of(leader.name.as_str()));
        known.into_iter().for_each(|to| self.send(number, to, Letter::Propose { call: 0, entry: entry.clone() }));
        Ok(())
    }

    /// The destination asks for the next slice.
    pub fn move_pulled(&mut self, number: u64, from: u64, id: MoveId, pull: &Pull) {
        let Some(process) = self.process(number) else { return };
        let super::node::Process { moves, state, store, .. } = process;
        let Some(one) = moves.leaving.get_mut(&id) else { return };
        let seen = view(state, &one.record);
        let keys: Vec<Key> = keys_of(one.record.buckets).collect();
        let mut rows: Rows = Vec::new();
        let row = |key: Key| (key, store.lists.get(&key).cloned());
        let answer = one.machine.pull(&seen, pull, CHANGED_MAX, |reached| {
            let next = keys.iter().copied().find(|key| reached.is_none_or(|reached| key > reached));
            rows.extend(next.map(row));
            next.filter(|next| keys.last() != Some(next))
        });
        let (pulled, rows) = match answer {
            Answer::Send(pulled) => {
                if let Pulled::Slice { changed, .. } = &pulled {
                    rows.extend(changed.iter().copied().map(row));
                    one.latest = Some((pulled.clone(), rows.clone()));
                }
                (pulled, rows)
            }
            Answer::SendAgain => match one.latest.clone() {
                Some(latest) => latest,
                None => return,
            },
            Answer::Nothing => return,
        };
        self.send(number, from, Letter::MovePulled { id, pulled, rows });
    }

    /// A slice arrived.
    pub fn move_answered(&mut self, number: u64, id: MoveId, pulled: &Pulled<Key>, rows: Rows) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        let Some(one) = process.moves.arriving.get_mut(&id) else { return Ok(()) };
        match one.machine.answered(pulled) {
            Some(DestinationCommand::Store { number: slice }) => {
                one.is_busy = true;
                self.change_rows(number, id, Step::Stored(slice), rows);
                Ok(())
            }
            command => self.carry_move_out(number, id, command),
        }
    }

    /// The destination asks whether this side serves the buckets no more.
    pub fn release_asked(&mut self, number: u64, from: u64, id: MoveId, finish_index: u64) {
        let Some(process) = self.process(number) else { return };
        let is_released = match process.moves.leaving.get(&id) {
            Some(one) => one.machine.may_release(&view(&process.state, &one.record), finish_index),
            None => process.state.index >= finish_index,
        };
        if is_released {
            self.send(number, from, Letter::Released { id });
        }
    }

    pub fn released(&mut self, number: u64, id: MoveId) {
        let Some(one) = self.process(number).and_then(|process| process.moves.arriving.get_mut(&id)) else { return };
        if !one.machine.writes() && one.machine.reads() {
            one.machine.released();
            self.report.moves += 1;
        }
    }
}
