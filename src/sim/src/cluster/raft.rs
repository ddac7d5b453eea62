//! Raft and the catalog on one instance, driven as the module drives them: one transaction a `Ready`, during which the node
//! stands still; the catalog is published when it is on disk.

use super::journal::Transaction;
use super::letter::Letter;
use super::node::{Asker, Then, Written};
use super::world::{Event, World, text};
use crate::disk::Transaction as RaftTransaction;
use crate::invariants::Verdict;
use catalog::{Entry, Outcome, State};
use consensus::{Committed, Outgoing, Payload, Ready, Role, describe};
use model::{Code, RaftId};

/// What others want of the node.
#[derive(Clone, Debug)]
pub enum Input {
    Message(Vec<u8>),
    Tick,
    Propose { entry: Vec<u8>, asker: Asker },
    Members { voters: Vec<RaftId>, learners: Vec<RaftId> },
    Read(u64),
    Transfer(RaftId),
    Unreachable(RaftId),
    SnapshotFate { to: RaftId, is_sent: bool },
    Campaign,
}

impl World {
    pub fn put(&mut self, number: u64, input: Input) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        process.inbox.push_back(input);
        self.drive(number)
    }

    /// Carries out all that the node wants done, up to the next write.
    pub fn drive(&mut self, number: u64) -> Verdict {
        loop {
            let Some(process) = self.process(number).filter(|process| !process.is_writing) else { return Ok(()) };
            if let Some(input) = process.inbox.pop_front() {
                self.take(number, input)?;
                continue;
            }
            if !process.raft.has_ready() {
                return Ok(());
            }
            let ready = process.raft.ready().map_err(text)?;
            self.carry_out(number, ready)?;
        }
    }

    fn take(&mut self, number: u64, input: Input) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        let raft = &mut process.raft;
        match input {
            Input::Message(bytes) => match raft.step(&bytes) {
                Err(error) if error.code == Code::Corrupted => return Err(format!("durability: i{number}: {error}")),
                // A read that reaches a node after it ceased to lead is asked again.
                Err(error) if !error.message.ends_with("it is a read for the leader") => {
                    return Err(format!("i{number} refuses {}: {error}", describe(&bytes)));
                }
                _ => {}
            },
            Input::Tick => raft.tick().map_err(text)?,
            Input::Propose { entry, asker } => match raft.propose(entry, Vec::new()) {
                Ok(position) => {
                    let lost = process.proposals.insert(position.index, (position.term, asker));
                    return lost.map_or(Ok(()), |(_, asker)| self.answer_proposal(number, asker, None));
                }
                Err(_) => return self.answer_proposal(number, asker, None),
            },
            // Another change may be under way, or another leader: the governor plans again.
            Input::Members { voters, learners } => _ = raft.propose_members(&voters, &learners, Vec::new()),
            Input::Read(context) => _ = raft.read_index(context),
            Input::Transfer(to) => _ = raft.transfer_leader(to),
            Input::Unreachable(to) => raft.unreachable(to).map_err(text)?,
            Input::SnapshotFate { to, is_sent: true } => raft.snapshot_finished(to).map_err(text)?,
            Input::SnapshotFate { to, is_sent: false } => raft.snapshot_failed(to).map_err(text)?,
            Input::Campaign => _ = raft.campaign(),
        }
        Ok(())
    }

    fn carry_out(&mut self, number: u64, mut ready: Ready) -> Verdict {
        self.observe(number, &ready)?;
        self.post(number, std::mem::take(&mut ready.messages));
        let has_writes = ready.has_writes();
        let mut transaction = RaftTransaction::default();
        let snapshot = ready.snapshot.take().map(|snapshot| (snapshot.position.index, snapshot.data));
        transaction.snapshot = snapshot.as_ref().map(|(_, bytes)| (bytes.clone(), 0));
        transaction.commands = ready.committed.iter().filter_map(command).collect();
        transaction.persist = std::mem::take(&mut ready.persist);
        let written = Written {
            number: ready.number,
            messages: ready.messages_after,
            is_snapshot_wanted: ready.snapshot_wanted,
            leads: ready.leadership.filter(|(_, role, _)| *role == Role::Leader).map(|(_, _, term)| term),
            reads: ready.reads,
            snapshot,
            committed: ready.committed,
        };
        if !has_writes {
            return self.raft_written(number, written);
        }
        if let Some(process) = self.process(number) {
            process.is_writing = true;
        }
        let then = Then::Raft(Box::new(written));
        self.write(number, Transaction { raft: Some(transaction), rows: vec![], seen: None, then });
        Ok(())
    }

    /// Tells the invariants what the node believes.
    fn observe(&mut self, number: u64, ready: &Ready) -> Verdict {
        let Some(node) = self.nodes.get_mut(&number) else { return Ok(()) };
        let start = node.starts;
        let Some(process) = node.process_mut() else { return Ok(()) };
        let (raft_id, term) = (process.raft_id, process.raft.term());
        // Only a leader's messages leave before the disk has what they say.
        if !ready.messages.is_empty() {
            self.promises.one_leader.leads(raft_id, start, term)?;
        }
        let Some(process) = self.nodes.get_mut(&number).and_then(super::node::Node::process_mut) else { return Ok(()) };
        for index in process.commit_seen + 1..=process.raft.commit() {
            if let Some(position) = process.raft.position(index) {
                self.promises.commit.committed(raft_id, position)?;
            }
        }
        process.commit_seen = process.raft.commit();
        Ok(())
    }

    /// What a `Ready` wanted written is on disk.
    pub fn raft_written(&mut self, number: u64, written: Written) -> Verdict {
        let start = self.nodes.get(&number).map_or(0, |node| node.starts);
        let Some(process) = self.process(number) else { return Ok(()) };
        let raft_id = process.raft_id;
        process.is_writing = false;
        process.raft.persisted(written.number).map_err(text)?;
        let is_news = written.snapshot.is_some() || !written.committed.is_empty();
        if let Some((index, bytes)) = written.snapshot {
            self.load(number, index, &bytes)?;
        }
        for entry in written.committed {
            self.apply(number, entry)?;
        }
        let log_entries_max = self.terms.log_entries_max;
        let rows = self.nodes.get(&number).map_or(0, |node| node.disk.image.raft.rows.len() as u64);
        let Some(process) = self.process(number) else { return Ok(()) };
        let applied = process.raft.applied();
        if written.is_snapshot_wanted && applied > 0 {
            let bytes = process.state.to_bytes().map_err(text)?;
            process.raft.provide_snapshot(applied, bytes).map_err(text)?;
        }
        if rows > log_entries_max {
            process.raft.compact(applied.saturating_sub(log_entries_max / 2)).map_err(text)?;
        }
        self.promises.durability.made_durable(raft_id, applied);
        if let Some(term) = written.leads {
            self.promises.one_leader.leads(raft_id, start, term)?;
        }
        self.post(number, written.messages);
        for context in written.reads {
            self.round_confirmed(number, context);
        }
        if is_news {
            self.on_change(number)?;
        }
        Ok(())
    }

    fn load(&mut self, number: u64, index: u64, bytes: &[u8]) -> Verdict {
        let state = State::from_bytes(bytes).map_err(text)?;
        let digest = digest(&state)?;
        let Some(process) = self.process(number) else { return Ok(()) };
        let raft_id = process.raft_id;
        process.state = state;
        let lost = process.proposals.split_off(&(index + 1));
        let passed = std::mem::replace(&mut process.proposals, lost);
        self.report.snapshots += 1;
        self.promises.agreement.starts_at(raft_id, index, digest)?;
        // What became of them, nobody can tell: whoever waits finds out by itself.
        drop(passed);
        Ok(())
    }

    fn apply(&mut self, number: u64, entry: Committed) -> Verdict {
        let position = entry.position;
        let Some(process) = self.process(number) else { return Ok(()) };
        let raft_id = process.raft_id;
        let mut is_applied = false;
        if let Payload::Data { data, .. } = &entry.payload {
            let decoded = Entry::from_bytes(data).map_err(text)?;
            is_applied = matches!(process.state.apply(position.index, &decoded), Outcome::Applied { .. });
        }
        let digest = digest(&process.state)?;
        let asker = process.proposals.remove(&position.index);
        self.promises.agreement.applies(raft_id, position, digest)?;
        if is_applied {
            let topology = self.nodes.get(&number).and_then(|node| Some(&node.process()?.state.topology));
            topology.map_or(Ok(()), |topology| self.promises.in_sync.stands(topology))?;
        }
        let Some((term, asker)) = asker else { return Ok(()) };
        let index = Some(position.index).filter(|_| term == position.term && is_applied);
        self.answer_proposal(number, asker, index)
    }

    /// Tells whoever proposed something what came of it.
    fn answer_proposal(&mut self, number: u64, asker: Asker, index: Option<u64>) -> Verdict {
        match asker {
            Asker::Nobody => {}
            Asker::Governor { key } => self.step_ended(number, &key, index.is_some()),
            Asker::Other { to, call } => self.send(number, to, Letter::Proposed { call, index }),
            Asker::Newcomer { to, call, name } => {
                let Some((process, index)) = self.process(number).zip(index) else { return Ok(()) };
                process.placing.push((to, call, name, index));
            }
            Asker::Announcement => {
                let Some(process) = self.process(number) else { return Ok(()) };
                process.announced =
                    process.announced.take().zip(index).map(|((at, call, _), index)| (at, call, Some(index)));
            }
        }
        Ok(())
    }

    /// Sends Raft's messages to whoever has their numbers now.
    fn post(&mut self, number: u64, messages: Vec<Outgoing>) {
        for Outgoing { to, bytes, is_snapshot, .. } in messages {
            let target = self.nodes.values().find(|node| node.identity.raft_id == Some(to)).map(|node| node.number);
            let Some(target) = target else { continue };
            let is_lost = !self.send_out(number, target, Letter::Raft { to, bytes, is_snapshot });
            if is_lost && self.rng.chance(1, 2) {
                let input = match is_snapshot {
                    true => Input::SnapshotFate { to, is_sent: false },
                    false => Input::Unreachable(to),
                };
                let start = self.nodes.get(&number).map_or(0, |node| node.starts);
                self.queue.schedule(self.now_us + 1_000, Event::Input { number, start, input });
            }
        }
    }
}

fn command(entry: &Committed) -> Option<(u64, Vec<u8>)> {
    match &entry.payload {
        Payload::Data { data, .. } => Some((entry.position.index, data.clone())),
        _ => None,
    }
}

pub fn digest(state: &State) -> Result<u64, String> {
    Ok(state.digest().map_err(text)? ^ state.version.rotate_left(32))
}
