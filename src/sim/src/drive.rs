//! What a driver of the consensus room does, as the module does it in a fiber: carry out each `Ready`, and report.

use crate::disk::Transaction;
use crate::instance::{Instance, Process, Syncing};
use crate::invariants::Verdict;
use crate::machine::Machine;
use crate::scenario::Defect;
use crate::world::{Event, World};
use consensus::{Committed, Outgoing, Payload, Ready, Role, Snapshot, describe};
use model::{Code, RaftId};

impl<M: Machine> World<M> {
    /// Carries out all that the instance's node wants done now.
    pub fn drive(&mut self, raft_id: RaftId) -> Verdict {
        loop {
            let Some(process) = self.process(raft_id) else { return Ok(()) };
            if !process.node.has_ready() {
                return Ok(());
            }
            let ready = process.node.ready().map_err(|error| format!("{raft_id}: {error}"))?;
            self.carry_out(raft_id, ready)?;
        }
    }

    fn carry_out(&mut self, raft_id: RaftId, mut ready: Ready) -> Verdict {
        self.observe(raft_id, &ready)?;
        let has_writes = ready.has_writes();
        self.send(raft_id, std::mem::take(&mut ready.messages));
        if self.options.defect == Some(Defect::SendsBeforeDurable) {
            self.send(raft_id, std::mem::take(&mut ready.messages_after));
        }
        let mut transaction = Transaction::default();
        if let Some(snapshot) = ready.snapshot.take() {
            transaction.snapshot = Some(self.load(raft_id, snapshot)?);
        }
        for entry in std::mem::take(&mut ready.committed) {
            self.apply(raft_id, entry, &mut transaction)?;
        }
        for context in std::mem::take(&mut ready.reads) {
            self.answer_read(raft_id, context)?;
        }
        transaction.persist = std::mem::take(&mut ready.persist);
        self.write(raft_id, ready, transaction, has_writes);
        Ok(())
    }

    /// Tells the invariants what the node believes.
    fn observe(&mut self, raft_id: RaftId, ready: &Ready) -> Verdict {
        // Only a leader's messages leave before the disk has what they say.
        if !ready.messages.is_empty() {
            let term = self.process(raft_id).map_or(0, |process| process.node.term());
            self.leads(raft_id, term)?;
        }
        self.report.truncations += u64::from(ready.persist.truncate_from.is_some_and(|index| index > 0));
        self.report.member_changes += u64::from(ready.membership.is_some());
        let Some(process) = self.instances.get_mut(&raft_id).and_then(|instance| instance.process.as_mut()) else {
            return Ok(());
        };
        for index in process.commit_seen + 1..=process.node.commit() {
            if let Some(position) = process.node.position(index) {
                self.invariants.commit.committed(raft_id, position)?;
            }
        }
        process.commit_seen = process.node.commit();
        Ok(())
    }

    /// The instance leads, and others may know.
    fn leads(&mut self, raft_id: RaftId, term: u64) -> Verdict {
        let start = self.instances.get(&raft_id).map_or(0, |instance| instance.starts);
        self.invariants.one_leader.leads(raft_id, start, term)
    }

    fn load(&mut self, raft_id: RaftId, snapshot: Snapshot) -> Result<(Vec<u8>, u64), String> {
        let (version, bytes) = snapshot.data.split_first_chunk().ok_or("a snapshot is cut short")?;
        let version = u64::from_be_bytes(*version);
        let machine = M::load(bytes)?;
        let index = snapshot.position.index;
        self.invariants.agreement.starts_at(raft_id, index, machine.digest())?;
        self.report.snapshots += 1;
        self.trace.say(self.now_us, || format!("{raft_id} loads the snapshot of {index}"));
        let bytes = bytes.to_vec();
        if let Some(process) = self.process(raft_id) {
            process.machine = machine;
            process.version = version;
            // What became of writes that the snapshot covers, nobody can tell.
            process.writes = process.writes.split_off(&(index + 1));
        }
        Ok((bytes, version))
    }

    fn apply(&mut self, raft_id: RaftId, entry: Committed, transaction: &mut Transaction) -> Verdict {
        let defect = self.options.defect;
        let Some(process) = self.instances.get_mut(&raft_id).and_then(|instance| instance.process.as_mut()) else {
            return Ok(());
        };
        if let Payload::Data { data, .. } = entry.payload {
            let index = entry.position.index;
            let is_wrong = defect == Some(Defect::AppliesDifferently) && raft_id == 2 && index.is_multiple_of(50);
            process.machine.apply(index, if is_wrong { b"here only" } else { &data });
            process.version += 1;
            transaction.commands.push((index, data));
        }
        self.invariants.agreement.applies(raft_id, entry.position, process.machine.digest())?;
        let Some(write) = process.writes.remove(&entry.position.index) else { return Ok(()) };
        if write.term == entry.position.term {
            let place = process.version - 1;
            self.invariants.linearizable.writes(write.floor, place)?;
            self.invariants.durability.acknowledges(place);
            self.report.writes += 1;
            self.is_probe_done |= self.probe == Some(write.id);
        }
        Ok(())
    }

    fn answer_read(&mut self, raft_id: RaftId, context: u64) -> Verdict {
        let Some(process) = self.instances.get_mut(&raft_id).and_then(|instance| instance.process.as_mut()) else {
            return Ok(());
        };
        let Some(floor) = process.reads.remove(&context) else {
            return Err(format!("{raft_id} answers read {context}, which nobody asked"));
        };
        self.report.reads += 1;
        self.invariants.linearizable.reads(floor, process.version)
    }

    /// What needs no disk still waits for what was written before.
    fn write(&mut self, raft_id: RaftId, ready: Ready, transaction: Transaction, has_writes: bool) {
        let factor = if self.rng.chance(self.scenario.disk_stall_permille, 1000) { 20 } else { 1 };
        let latency_us = self.rng.range(10, self.scenario.disk_latency_max_us) * factor * u64::from(has_writes);
        let now_us = self.now_us;
        let Some(instance) = self.instances.get_mut(&raft_id) else { return };
        let durable_us = instance.disk.write(transaction, now_us, latency_us);
        let start = instance.starts;
        if let Some(process) = &mut instance.process {
            process.syncing.push_back(Syncing {
                number: ready.number,
                messages: ready.messages_after,
                is_snapshot_wanted: ready.snapshot_wanted,
                leads: ready.leadership.filter(|(_, role, _)| *role == Role::Leader).map(|(_, _, term)| term),
            });
        }
        self.schedule(durable_us, Event::Synced { raft_id, start });
    }

    /// The oldest write of the instance is durable.
    pub fn synced(&mut self, raft_id: RaftId) -> Verdict {
        let Some(instance) = self.instances.get_mut(&raft_id) else { return Ok(()) };
        instance.disk.sync()?;
        let Instance { process: Some(process), disk, .. } = instance else { return Ok(()) };
        let Some(syncing) = process.syncing.pop_front() else { return Err("the disk is ahead of its process".into()) };
        process.node.persisted(syncing.number).map_err(|error| error.to_string())?;
        let applied = process.node.applied();
        self.invariants.durability.made_durable(raft_id, applied);
        if syncing.is_snapshot_wanted && applied > 0 {
            let mut data = disk.image.version.to_be_bytes().to_vec();
            data.extend(disk.image.machine.save());
            process.node.provide_snapshot(applied, data).map_err(|error| error.to_string())?;
        }
        if disk.image.rows.len() as u64 > self.scenario.log_entries_max {
            let keep = self.scenario.log_entries_max / 2;
            process.node.compact(applied.saturating_sub(keep)).map_err(|error| error.to_string())?;
        }
        if let Some(term) = syncing.leads {
            self.leads(raft_id, term)?;
        }
        self.send(raft_id, syncing.messages);
        self.drive(raft_id)
    }

    fn send(&mut self, from: RaftId, messages: Vec<Outgoing>) {
        for message in messages {
            let to = message.to;
            let arrivals = self.network.arrivals(&mut self.rng, from, to, self.now_us);
            self.trace.say(self.now_us, || format!("{} {}", describe(&message.bytes), fate(&arrivals, self.now_us)));
            if arrivals.is_empty() && self.rng.chance(1, 2) {
                self.report_loss(from, &message);
            }
            for at_us in arrivals {
                self.schedule(at_us, Event::Deliver { from, message: message.clone() });
            }
        }
    }

    /// A transport may know that a message was lost, and may not.
    fn report_loss(&mut self, from: RaftId, message: &Outgoing) {
        let event = match message.is_snapshot {
            true => Event::SnapshotFate { raft_id: from, to: message.to, is_sent: false },
            false => Event::Unreachable { raft_id: from, to: message.to },
        };
        self.schedule(self.now_us + 1000, event);
    }

    /// A message arrives at whoever runs there now.
    pub fn deliver(&mut self, from: RaftId, message: Outgoing) -> Verdict {
        let to = message.to;
        self.trace.note(self.now_us, to, &message.bytes);
        self.trace.say(self.now_us, || format!("arrives {}", describe(&message.bytes)));
        if message.is_snapshot && self.rng.chance(1, 2) {
            self.schedule(self.now_us + 1000, Event::SnapshotFate { raft_id: from, to, is_sent: true });
        }
        let Some(process) = self.process(to) else { return Ok(()) };
        match process.node.step(&message.bytes) {
            Ok(()) => self.drive(to),
            // A read that reaches a node after it ceased to lead is asked again.
            Err(error) if error.message.ends_with("it is a read for the leader") => Ok(()),
            Err(error) if error.code == Code::Corrupted => Err(format!("durability: {to}: {error}")),
            Err(error) => Err(format!("{to} refuses {}: {error}", describe(&message.bytes))),
        }
    }

    pub fn process(&mut self, raft_id: RaftId) -> Option<&mut Process<M>> {
        self.instances.get_mut(&raft_id)?.process.as_mut()
    }
}

fn fate(arrivals: &[u64], now_us: u64) -> String {
    match arrivals {
        [] => "is lost".to_owned(),
        _ => format!("takes {:?} us", arrivals.iter().map(|at_us| at_us - now_us).collect::<Vec<_>>()),
    }
}
