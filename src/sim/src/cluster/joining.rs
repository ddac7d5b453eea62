//! How a process without data gets its place: it asks for it, copies what the master has, and begins as a member.

use super::letter::{CallId, Letter, Place};
use super::node::{Asker, Joining, Process, Run};
use super::raft::Input;
use super::store::Store;
use super::world::World;
use crate::invariants::Verdict;
use crate::scenario::Defect;
use catalog::{Entry, InstanceState, Op, State};
use consensus::{Config, Log, Node as Raft};
use governor::Follows;
use model::InstanceName;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A newcomer that was not answered for so long asks somebody else.
const JOIN_US: u64 = 3_000_000;
/// An instance that could not tell the cluster in this time that it is here ends, and is started again.
const ANNOUNCE_US: u64 = 10_000_000;

impl World {
    /// A process starts on what is left.
    pub fn start(&mut self, number: u64) -> Verdict {
        let (seed, now_us) = (self.rng.draw(), self.now_us);
        let Some(node) = self.nodes.get_mut(&number).filter(|node| !node.is_up()) else { return Ok(()) };
        node.starts += 1;
        node.frozen_until_us = 0;
        self.promises.accuracy.disturbed(number, now_us);
        let is_member = node.identity.raft_id.is_some() && node.disk.image.store.number > 0;
        match is_member {
            true => self.start_member(number, seed)?,
            false => node.run = Run::Joining(Joining::default()),
        }
        let start = self.nodes.get(&number).map_or(0, |node| node.starts);
        self.begin_ticking(number, start, now_us);
        Ok(())
    }

    fn start_member(&mut self, number: u64, seed: u64) -> Verdict {
        let terms = self.terms.clone();
        let Some(node) = self.nodes.get_mut(&number) else { return Ok(()) };
        let Some(raft_id) = node.identity.raft_id else { return Ok(()) };
        let image = &node.disk.image;
        let log =
            Log::restore(image.raft.rows.values().cloned(), image.raft.state.clone()).map_err(super::world::text)?;
        let (commit_seen, state) = (log.applied(), image.raft.machine.state().clone());
        let config = Config { snapshot_ticks: 40, ..Config::new(raft_id, seed) };
        let config = Config { message_bytes_max: terms.message_bytes_max, ..config };
        let raft = Raft::new(config, log).map_err(super::world::text)?;
        let store = image.store.clone();
        let mut process = Process {
            raft,
            raft_id,
            uuid: node.uuid(),
            name: super::node::name_of(number),
            inbox: VecDeque::new(),
            is_writing: false,
            commit_seen,
            proposals: BTreeMap::new(),
            incarnation: 0,
            is_newcomer: false,
            is_founder: number == 1 && node.identity.life == 0 && state.cluster.is_none(),
            announced: None,
            is_writable: false,
            lease_end_us: 0,
            follows: Follows::default(),
            fenced: None,
            schema: None,
            is_stray: false,
            is_changing: false,
            fencing: None,
            pull: None,
            heard_master_us: None,
            acks: super::acks::Acks { durable: store.written(), ..Default::default() },
            moves: super::moves::Moves::default(),
            told: BTreeMap::new(),
            was_ready: false,
            held: BTreeMap::new(),
            placing: Vec::new(),
            office: None,
            state,
            store,
        };
        process.acks.on_change((&process.name, process.store.number), &process.state);
        let (applied, digest) = (process.raft.applied(), super::raft::digest(&process.state)?);
        node.run = Run::Member(Box::new(process));
        self.trace.say(self.now_us, || format!("i{number} starts at {applied} with Raft id {raft_id}"));
        self.promises.durability.restarts_with(raft_id, applied)?;
        self.promises.agreement.starts_at(raft_id, applied, digest)
    }

    /// What a process without data does again and again.
    pub fn ask_to_join(&mut self, number: u64) {
        let now_us = self.now_us;
        let others: Vec<u64> =
            self.nodes.values().filter(|node| node.process().is_some()).map(|node| node.number).collect();
        let Some(member) = self.rng.pick(&others).copied() else { return };
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let (instance, replaces) = (node.newcomer(), node.identity.replaces.clone());
        let Run::Joining(joining) = &mut node.run else { return };
        if joining.call > 0 && now_us < joining.since_us + JOIN_US {
            return;
        }
        self.calls += 1;
        let call = self.calls;
        *joining = Joining { call, since_us: now_us, is_copying: false };
        let op = Op::Join { instance, tier: "default".into(), replaces };
        let Ok(entry) = Entry::new(op).to_bytes() else { return };
        self.send(number, member, Letter::Join { call, from: number, entry });
    }

    /// A newcomer wants in: the leader sees to it.
    pub fn join(&mut self, number: u64, (call, from, entry): (CallId, u64, Vec<u8>)) -> Verdict {
        let Some(process) = self.process(number) else { return Ok(()) };
        match process.raft.leader() {
            Some(leader) if leader == process.raft_id => {
                let asker = Asker::Newcomer { to: from, call, name: super::node::name_of(from) };
                self.put(number, Input::Propose { entry, asker })
            }
            Some(leader) => {
                let known = process.state.topology.instance_by_raft_id(leader);
                let Some(leader) = known.map(|leader| super::node::number_of(leader.name.as_str())) else {
                    return Ok(());
                };
                self.send(number, leader, Letter::Join { call, from, entry });
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Answers newcomers whose replicasets have a master by now, or that are the first there.
    pub fn place_newcomers(&mut self, number: u64) {
        let Some(process) = self.process(number) else { return };
        let mut letters = Vec::new();
        let state = process.state.clone();
        process.placing.retain(|(to, call, name, index)| {
            let Some(place) = place(&state, name, *index) else { return true };
            letters.push((*to, Letter::Placed { call: *call, place }));
            false
        });
        for (to, letter) in letters {
            self.send(number, to, letter);
        }
    }

    /// The newcomer hears where it belongs.
    pub fn placed(&mut self, number: u64, call: CallId, place: Place) -> Verdict {
        let next = self.calls + 1;
        let now_us = self.now_us;
        let Some(node) = self.nodes.get_mut(&number) else { return Ok(()) };
        let uuid = node.uuid();
        let Run::Joining(joining) = &mut node.run else { return Ok(()) };
        if joining.call != call || joining.is_copying {
            return Ok(());
        }
        let (donor, index) = (place.donor, place.index);
        node.identity.raft_id = Some(place.raft_id);
        *joining = Joining { call: next, since_us: now_us, is_copying: true };
        self.calls = next;
        self.joined_in.insert(number, place.term);
        match donor {
            Some(donor) => self.send(number, donor, Letter::Copy { call: next, uuid, index }),
            None => return self.become_member(number, Store::first(&uuid), Follows::default()),
        }
        Ok(())
    }

    /// The copy has arrived.
    pub fn took_copy(&mut self, number: u64, from: u64, call: CallId, store: Store) -> Verdict {
        let Some(node) = self.nodes.get(&number) else { return Ok(()) };
        if !matches!(&node.run, Run::Joining(joining) if joining.is_copying && joining.call == call) {
            return Ok(());
        }
        let term = self.joined_in.get(&number).copied().unwrap_or(0);
        let follows = Follows { term, peers: BTreeSet::from([super::node::address_of(from)]) };
        self.become_member(number, Store { seen: term, ..store }, follows)
    }

    fn become_member(&mut self, number: u64, store: Store, follows: Follows) -> Verdict {
        let seed = self.rng.draw();
        let Some(node) = self.nodes.get_mut(&number) else { return Ok(()) };
        node.identity.replaces = None;
        node.disk.image.store = store;
        self.start_member(number, seed)?;
        if let Some(process) = self.process(number) {
            process.follows = follows;
            process.is_newcomer = true;
        }
        self.pull(number);
        Ok(())
    }

    /// Tells the cluster that this process is here, under a new incarnation where it was here before.
    pub fn announce(&mut self, number: u64) -> Verdict {
        let (now_us, next) = (self.now_us, self.calls + 1);
        let forgets = self.options.defect == Some(Defect::ForgetsEarlierLives);
        let adopts = self.options.defect != Some(Defect::KeepsIncarnation);
        let Some(node) = self.nodes.get_mut(&number) else { return Ok(()) };
        let newcomer = node.newcomer();
        let Some(process) = node.process_mut() else { return Ok(()) };
        if process.is_founder && process.state.cluster.is_none() {
            return self.found(number, newcomer);
        }
        let Some(record) = process.record().filter(|record| record.uuid == process.uuid) else { return Ok(()) };
        // What a later life knows of itself may be old: that it was counted as one that is joining.
        let is_newcomer = (process.is_newcomer || forgets) && record.state == InstanceState::Joining;
        let (is_first, incarnation) = (is_newcomer || process.is_founder, record.incarnation);
        if process.incarnation > 0 {
            // A request of an earlier attempt, long on its way, has counted this life once more.
            if adopts && process.incarnation != incarnation {
                process.incarnation = incarnation;
                return self.on_change(number);
            }
            return Ok(());
        }
        match process.announced {
            None if is_first => {
                process.incarnation = incarnation;
                self.on_change(number)
            }
            None => {
                let op = Op::Join { instance: newcomer, tier: "default".into(), replaces: None };
                let entry = Entry::new(op).to_bytes().map_err(super::world::text)?;
                let leader = process.raft.leader();
                let is_me = leader == Some(process.raft_id);
                let known = leader.and_then(|leader| process.state.topology.instance_by_raft_id(leader));
                let Some(leader) = known.map(|leader| super::node::number_of(leader.name.as_str())) else {
                    return Ok(());
                };
                process.announced = Some((now_us, next, None));
                self.calls = next;
                match is_me {
                    true => self.put(number, Input::Propose { entry, asker: Asker::Announcement }),
                    false => {
                        self.send(number, leader, Letter::Propose { call: next, entry });
                        Ok(())
                    }
                }
            }
            Some((_, _, Some(index))) if process.raft.applied() >= index => {
                process.incarnation = incarnation;
                self.on_change(number)
            }
            Some((at_us, _, _)) if now_us > at_us + ANNOUNCE_US => self.end(number),
            Some(_) => Ok(()),
        }
    }

    /// The first entry of the log.
    fn found(&mut self, number: u64, instance: catalog::Newcomer) -> Verdict {
        let (tier, settings) = (self.terms.tier.clone(), self.terms.settings.clone());
        let Some(process) = self.process(number).filter(|process| process.proposals.is_empty()) else { return Ok(()) };
        if process.raft.leader().is_none() {
            return self.put(number, Input::Campaign);
        }
        let id = "3a1f0c52-9c3e-4c0f-8b8e-000000000001".to_owned();
        let op = Op::Bootstrap { cluster: "simulated".into(), id, instance, tier, settings };
        let entry = Entry::new(op).to_bytes().map_err(super::world::text)?;
        self.put(number, Input::Propose { entry, asker: Asker::Nobody })
    }
}

/// What the newcomer is told; None while it has to wait for a master to copy.
fn place(state: &State, name: &InstanceName, index: u64) -> Option<Place> {
    let place = state.topology.place(name)?;
    let donor = place.donor.map(|donor| super::node::number_of(donor.name.as_str()));
    Some(Place { raft_id: place.instance.raft_id, donor, term: place.replicaset.master_term, index })
}
