//! An instance as a member of its replicaset: what it reports, whom it follows, when it takes over, and when it throws its
//! data away. The module's `facts`, `lineage`, `mastership` and `lease` do the same.

use super::acks::LINK_US;
use super::journal::Transaction;
use super::letter::{CallId, Letter};
use super::node::{Fencing, Process, Run, Then, number_of};
use super::store::Change;
use super::world::World;
use crate::invariants::Verdict;
use crate::scenario::Defect;
use catalog::{InstanceState, Setting};
use governor::{Fenced, Follows, InStep, Observed, SchemaReport};
use model::{InstanceName, ReplicasetName};
use replication::{Kept, Vclock, lease};
use std::collections::BTreeSet;

/// The longest that an answer waits for news.
const PING_US: u64 = 100_000;
/// How long a member may take to reach what the old master has.
const REACH_US: u64 = 500_000;

impl World {
    /// The leader asks for a report.
    pub fn asked(&mut self, number: u64, from: u64, (call, stamp_us, lease_us): (CallId, u64, u64)) {
        let (now_us, is_me) = (self.now_us, number == from);
        let Some(process) = self.process(number) else { return };
        if !is_me {
            process.lease_end_us = process.lease_end_us.max(lease::end(stamp_us, lease_us));
        }
        process.held.insert(from, (call, now_us));
        self.tell(number);
    }

    /// Answers the questions that wait, when there is news or they have waited for long enough.
    pub fn tell(&mut self, number: u64) {
        let (now_us, clock_us) = (self.now_us, self.clock_of(number));
        let Some(process) = self.process(number) else { return };
        if process.held.is_empty() {
            return;
        }
        let report = process.report(now_us);
        let told = &mut process.told;
        let is_answered = |from: &u64, (_, since_us): &mut (CallId, u64)| {
            told.insert(*from, report.clone()).as_ref() != Some(&report) || now_us >= *since_us + PING_US
        };
        let answered: Vec<(u64, (CallId, u64))> = process.held.extract_if(.., is_answered).collect();
        process.was_ready |= report.ready && !answered.is_empty();
        for (from, (call, _)) in answered {
            let report = Box::new(report.clone());
            self.send(number, from, Letter::Report { call, report, stamp_us: clock_us });
        }
    }

    /// The catalog changed on this instance.
    pub fn on_change(&mut self, number: u64) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        process.acks.on_change((&process.name, process.store.number), &process.state);
        if process.master_term().is_none() {
            process.is_writable = false;
        }
        let seen = process.store.seen;
        let is_past = process.replicaset().is_some_and(|replicaset| replicaset.history.is_past(seen));
        if is_past && process.incarnation > 0 {
            self.look_for_tail(number);
        }
        self.take_over(number);
        self.follow_moves(number)?;
        self.place_newcomers(number);
        self.tell(number);
        self.answer_clients(number)?;
        self.plan(number)
    }

    /// Whether this instance's rows are of its replicaset's history; a stray one is known to be one from then on.
    fn look_for_tail(&mut self, number: u64) -> bool {
        let is_blind = self.options.defect == Some(Defect::ForgetsCuts);
        let Some(process) = self.process(number) else { return false };
        let is_master = process.replicaset().is_some_and(|r| r.master.as_ref() == Some(&process.name));
        let stray = process.replicaset().and_then(|r| r.history.stray(process.store.seen, &process.store.clock));
        let Some(stray) = stray.filter(|_| !is_master && !is_blind) else { return !process.is_stray };
        if !process.is_stray {
            process.is_stray = true;
            process.follow_nobody(0);
            self.trace.say(self.now_us, || format!("i{number} is stray: {stray}"));
        }
        false
    }

    /// A stray instance throws its data away as soon as nobody needs it and it has no vote. In a life that was ready it
    /// may be about to get one: then it begins another first.
    pub fn begin_anew_if_possible(&mut self, number: u64) -> Verdict {
        let is_trusting = self.options.defect == Some(Defect::WipesAtOnce);
        let Some(process) = self.process(number).filter(|process| process.is_stray) else { return Ok(()) };
        let is_needed = process.replicaset().is_none_or(|replicaset| {
            replicaset.master.as_ref() == Some(&process.name) || replicaset.in_sync.iter().eq([&process.name])
        });
        let others = process.state.topology.instances.values();
        let is_alone = !others.into_iter().any(|other| other.is_online() && other.name != process.name);
        let counts = process.record().is_none_or(|r| r.is_online() || r.incarnation != process.incarnation);
        if (counts && !is_trusting) || is_needed || is_alone || process.raft.membership().is_voter(process.raft_id) {
            return Ok(());
        }
        let was_ready = process.was_ready;
        let Some(node) = self.nodes.get_mut(&number) else { return Ok(()) };
        if was_ready && !is_trusting {
            self.trace.say(self.now_us, || format!("i{number} begins another life as a stray"));
            node.run = Run::Down;
            node.disk.crash(0, self.now_us)?;
            return self.start(number);
        }
        self.trace.say(self.now_us, || format!("i{number} throws its data away"));
        self.wipes += 1;
        let old = node.uuid();
        node.identity.life += 1;
        node.identity.replaces = Some(old);
        node.identity.raft_id = None;
        node.disk = super::journal::Journal::default();
        node.run = Run::Down;
        self.start(number)
    }

    /// As the master of a new term: follows nobody, notes the term, then takes writes.
    fn take_over(&mut self, number: u64) {
        let Some(process) = self.process(number) else { return };
        let Some(term) = process.master_term().filter(|_| !process.is_writable && !process.is_changing) else { return };
        process.is_changing = true;
        process.follow_nobody(term);
        let seen = Some(term).filter(|term| *term > process.store.seen);
        self.write(number, Transaction { raft: None, rows: vec![], seen, then: Then::Led { term } });
    }

    pub fn led(&mut self, number: u64, term: u64) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        process.is_changing = false;
        process.store.seen = process.store.seen.max(term);
        process.is_writable = process.master_term().is_some();
        if process.is_writable {
            // Whoever has this row has all that the term began with: a read waits for it.
            self.write_rows(number, vec![Change::Term(term)], Then::Written);
            self.changes_of_master += 1;
            self.trace.say(self.now_us, || format!("i{number} takes writes as the master of term {term}"));
        }
        self.on_change(number)
    }

    /// Has this instance stop following anybody, in the name of a term without a master.
    pub fn fence(&mut self, number: u64, replicaset: &ReplicasetName, term: u64, reach: Option<Vclock>) -> Verdict {
        let now_us = self.now_us;
        let Some(process) = self.process(number).filter(|process| !process.is_changing) else { return Ok(()) };
        let is_due = process.state.topology.replicasets.get(replicaset);
        if !is_due.is_some_and(|replicaset| replicaset.master_term == term && replicaset.master.is_none()) {
            return Ok(());
        }
        process.is_changing = true;
        process.is_writable = false;
        process.fencing = Some(Fencing { term, reach: reach.unwrap_or_default(), until_us: now_us + REACH_US });
        self.go_on_fencing(number);
        Ok(())
    }

    /// Waits until the rows are here that the old master has, but not for long.
    pub fn go_on_fencing(&mut self, number: u64) {
        let now_us = self.now_us;
        let Some(process) = self.process(number) else { return };
        let is_due = |f: &mut Fencing| process.store.clock.covers(&f.reach) || now_us >= f.until_us;
        let Some(Fencing { term, .. }) = process.fencing.take_if(is_due) else { return };
        process.follow_nobody(term);
        self.write(number, Transaction { raft: None, rows: vec![], seen: None, then: Then::Fenced { term } });
    }

    /// Everything that was received before the fence is on disk.
    pub fn fenced(&mut self, number: u64, term: u64) -> Verdict {
        let is_of_history = self.look_for_tail(number);
        let Some(process) = self.process(number) else { return Ok(()) };
        process.is_changing = false;
        if is_of_history {
            let kept = Kept::new(process.store.number, process.store.clock.clone());
            process.fenced = Some(Fenced { term, kept });
        }
        self.on_change(number)
    }

    /// Has this instance follow these members, the master of a term.
    pub fn follow(&mut self, number: u64, replicaset: &ReplicasetName, follows: Follows) -> Verdict {
        let is_early = self.options.defect == Some(Defect::FollowsEarly);
        let Some(process) = self.process(number).filter(|process| !process.is_changing) else { return Ok(()) };
        let Some(record) = process.state.topology.replicasets.get(replicaset) else { return Ok(()) };
        let is_me = record.master.as_ref() == Some(&process.name);
        // What the term keeps is known when its master is.
        let is_known = record.master.is_some() || is_early;
        if record.master_term != follows.term || !is_known || is_me || process.follows == follows {
            return Ok(());
        }
        process.is_changing = true;
        process.follow_nobody(0);
        self.write(number, Transaction { raft: None, rows: vec![], seen: None, then: Then::Followed { follows } });
        Ok(())
    }

    /// Everything that was received from the old master is on disk.
    pub fn followed(&mut self, number: u64, follows: Follows) -> Verdict {
        let is_of_history = self.look_for_tail(number);
        let Some(process) = self.process(number) else { return Ok(()) };
        if !is_of_history {
            process.is_changing = false;
            return self.on_change(number);
        }
        let term = follows.term;
        let seen = Some(term).filter(|term| *term > process.store.seen);
        self.write(number, Transaction { raft: None, rows: vec![], seen, then: Then::Noted { follows, term } });
        Ok(())
    }

    pub fn noted(&mut self, number: u64, follows: Follows, term: u64) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        process.is_changing = false;
        process.store.seen = process.store.seen.max(term);
        process.follows = follows;
        self.pull(number);
        self.on_change(number)
    }

    /// Has this instance do, or wait for, the pending schema change.
    pub fn change_schema(&mut self, number: u64, id: u64) {
        let Some(process) = self.process(number) else { return };
        if process.state.schema.pending.as_ref().is_some_and(|pending| pending.id == id) {
            process.schema = Some(SchemaReport { id, error: None });
            self.tell(number);
        }
    }
}

impl Process {
    pub fn follow_nobody(&mut self, term: u64) {
        self.follows = Follows { term, peers: BTreeSet::new() };
        self.pull = None;
        self.heard_master_us = None;
    }

    /// The machine that this instance follows.
    pub fn followed(&self) -> Option<u64> {
        self.follows.peers.first().map(|peer| number_of(peer))
    }

    fn is_linked(&self, now_us: u64) -> bool {
        self.heard_master_us.is_some_and(|at_us| now_us < at_us + LINK_US)
    }

    fn report(&mut self, now_us: u64) -> Observed {
        let topology = &self.state.topology;
        let Some(record) = topology.instances.get(&self.name) else { return Observed::default() };
        let Some(replicaset) = topology.replicasets.get(&record.replicaset) else { return Observed::default() };
        let is_master = replicaset.master.as_ref() == Some(&self.name);
        let members = topology.members(&replicaset.name).filter(|member| member.is_online());
        let seen = |uuid: &str| self.acks.followers.get(uuid).is_some_and(|seen| now_us < seen.at_us + LINK_US);
        let followers: Vec<_> = members.filter(|member| seen(&member.uuid)).collect();
        let mine = (&self.store.clock, self.store.number);
        let in_step = is_master.then(|| InStep {
            term: replicaset.master_term,
            members: self.acks.promise(&self.state, &followers, mine, now_us),
        });
        let is_away = |name: &InstanceName| topology.instances.get(name).is_none_or(|master| !master.is_online());
        let follows = |name: &InstanceName| self.followed() == Some(number_of(name.as_str())) && self.is_linked(now_us);
        let master = replicaset.master.as_ref();
        let is_in_place = is_master || master.is_none_or(|master| is_away(master) || follows(master));
        let after_us = self.state.settings.count(Setting::OfflineAfterMs) as u64 * 1_000;
        let stuck = self.acks.stuck(&self.state, self.store.number, after_us, now_us);
        Observed {
            incarnation: Some(self.incarnation),
            silent_ms: 0,
            lease_left_ms: 0,
            seen: topology.part_version(record),
            ready: self.incarnation > 0 && is_in_place && !self.is_stray && record.state != InstanceState::Expelled,
            stray: self.is_stray,
            follows: Some(self.follows.clone()),
            schema: self.schema.clone(),
            fenced: self.fenced.clone(),
            stuck: if is_master { stuck } else { BTreeSet::new() },
            in_step,
        }
    }
}
