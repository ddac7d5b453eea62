//! Rows on their way: a follower asks its master for what it lacks, which acknowledges what it has; the master answers when
//! it has something on disk.

use super::acks::Seen;
use super::journal::Transaction;
use super::letter::{CallId, Letter};
use super::node::Then;
use super::store::{Change, Row};
use super::world::World;
use crate::invariants::Verdict;
use replication::Vclock;

/// Rows in one answer.
const ROWS_MAX: usize = 20;
/// A question that was not answered for so long is asked again.
const PULL_US: u64 = 300_000;

impl World {
    /// Asks the master for the next rows.
    pub fn pull(&mut self, number: u64) {
        let (now_us, call) = (self.now_us, self.calls + 1);
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let (uuid, clock) = (node.uuid(), node.disk.image.store.clock.clone());
        let Some(process) = node.process_mut() else { return };
        let Some(master) = process.followed() else { return };
        process.pull = Some((call, now_us));
        self.calls = call;
        self.send(number, master, Letter::Pull { call, uuid, clock });
    }

    /// Asks again where an answer was lost.
    pub fn pull_again(&mut self, number: u64) {
        let now_us = self.now_us;
        let Some(process) = self.process(number) else { return };
        if process.followed().is_some() && process.pull.is_none_or(|(_, at_us)| now_us > at_us + PULL_US) {
            self.pull(number);
        }
    }

    /// A follower asks. Whoever is no member here is turned away.
    pub fn pulled(&mut self, number: u64, from: u64, (call, uuid, clock): (CallId, String, Vclock)) -> Verdict {
        let now_us = self.now_us;
        let Some(process) = self.process(number) else { return Ok(()) };
        if !process.store.members.values().any(|member| *member == uuid) {
            return Ok(());
        }
        process.acks.followers.insert(uuid, Seen { clock, at_us: now_us, waits: Some((from, call)) });
        self.feed(number, false);
        self.answer_clients(number)
    }

    /// Sends followers that wait what they lack; all of them get an answer when `is_beat`.
    pub fn feed(&mut self, number: u64, is_beat: bool) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let super::node::Run::Member(process) = &mut node.run else { return };
        let mut answers = Vec::new();
        for seen in process.acks.followers.values_mut() {
            let Some((to, call)) = seen.waits else { continue };
            let rows = node.disk.image.store.beyond(&seen.clock, ROWS_MAX);
            if !rows.is_empty() || is_beat {
                seen.waits = None;
                answers.push((to, Letter::Rows { call, rows }));
            }
        }
        for (to, letter) in answers {
            self.send(number, to, letter);
        }
    }

    /// Rows arrived.
    pub fn received(&mut self, number: u64, call: CallId, rows: Vec<Row>) {
        let now_us = self.now_us;
        let Some(process) = self.process(number) else { return };
        if process.pull.is_none_or(|(pull, _)| pull != call) {
            return;
        }
        process.heard_master_us = Some(now_us);
        process.pull = Some((0, now_us));
        let clock = process.store.clock.clone();
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.lsn > clock.get(row.number)).collect();
        rows.iter().for_each(|row| process.store.apply(row));
        self.write(number, Transaction { raft: None, rows, seen: None, then: Then::Pulled });
        self.go_on_fencing(number);
    }

    /// Rows of this instance's own are written: to memory now, to disk soon.
    pub fn write_rows(&mut self, number: u64, changes: Vec<Change>, then: Then) -> Option<u64> {
        let process = self.process(number)?;
        let mut rows = Vec::new();
        for change in changes {
            let row = process.store.make(change);
            process.store.apply(&row);
            rows.push(row);
        }
        let target = process.store.written();
        self.write(number, Transaction { raft: None, rows, seen: None, then });
        Some(target)
    }

    /// A newcomer asks for everything. Only a master may give it a number, after it has heard of it.
    pub fn copy(&mut self, number: u64, to: u64, (call, uuid, index): (CallId, String, u64)) {
        let Some(process) = self.process(number).filter(|process| process.is_writable) else { return };
        if process.raft.applied() < index || process.master_term().is_none() {
            return;
        }
        let Some(record) = process.record() else { return };
        let known: Vec<&str> =
            process.state.topology.members(&record.replicaset).map(|member| member.uuid.as_str()).collect();
        if !known.contains(&uuid.as_str()) {
            return;
        }
        // The number of a member that has left, or thrown its data away, is given back.
        let mut members = process.store.members.clone();
        let gone = members.extract_if(.., |_, member| !known.contains(&member.as_str()) || *member == uuid);
        let mut changes: Vec<Change> = gone.map(|(number, _)| Change::Member { number, uuid: None }).collect();
        let free = (1..).find(|number| !members.contains_key(number)).unwrap_or(u32::MAX);
        changes.push(Change::Member { number: free, uuid: Some(uuid.clone()) });
        self.write_rows(number, changes, Then::Copied { to, call, uuid });
    }

    /// The newcomer's number is on disk: it gets the copy.
    pub fn copied(&mut self, number: u64, to: u64, call: CallId, uuid: &str) {
        let Some(node) = self.nodes.get(&number) else { return };
        let mut store = node.disk.image.store.clone();
        let found = store.members.iter().find(|(_, member)| *member == uuid).map(|(number, _)| *number);
        let Some(own) = found else { return };
        store.number = own;
        self.send(number, to, Letter::Copied { call, store: Box::new(store) });
    }
}
