//! What a master waits for before it answers: the members in sync, and the followers that will be counted in. The module
//! does the same in its own `acks`, over the host's relays.

use super::moves::Step;
use super::store::{Key, WriteId};
use super::world::World;
use crate::invariants::Verdict;
use crate::scenario::Defect;
use catalog::{Instance, MoveId, Setting, State};
use model::InstanceName;
use replication::{Follower, Promises, Vclock};
use sharding::moves::Tenure;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A follower that has not asked for rows for so long is not connected.
pub const LINK_US: u64 = 1_000_000;

/// A client's read or write that waits until all that it saw can not be lost.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub target: u64,
    pub key: Key,
    /// What the client sees when it is answered, and how much had been shown to anybody when it asked.
    pub list: Vec<WriteId>,
    pub floor: usize,
    pub is_write: bool,
    pub since_us: u64,
    /// A step of a move of buckets waits, not a client.
    pub step: Option<(MoveId, Step, Tenure)>,
}

/// Where a follower was when it last asked for rows.
#[derive(Clone, Debug)]
pub struct Seen {
    pub clock: Vclock,
    pub at_us: u64,
    /// It waits for rows: who, and under which call.
    pub waits: Option<(u64, u64)>,
}

#[derive(Default)]
pub struct Acks {
    pub required: BTreeSet<InstanceName>,
    pub promised: Promises<InstanceName>,
    pub waiting: VecDeque<Waiting>,
    pub is_deposed: bool,
    /// As such: how many of its rows all members in sync had when their master took over.
    pub shared: u64,
    /// How many members are in sync, and how many have to be.
    pub in_sync: (usize, usize),
    /// By UUID.
    pub followers: BTreeMap<String, Seen>,
    /// How many of its own rows this instance has on disk.
    pub durable: u64,
}

impl Acks {
    /// Takes over what the catalog says.
    pub fn on_change(&mut self, (me, number): (&InstanceName, u32), state: &State) {
        let Some(record) = state.topology.instances.get(me) else { return };
        let Some(replicaset) = state.topology.replicasets.get(&record.replicaset) else { return };
        self.in_sync = (replicaset.in_sync.len(), state.settings.count(Setting::MinInSync));
        let is_master = replicaset.master.as_ref() == Some(me);
        self.is_deposed = !is_master && replicaset.master.is_some();
        if !is_master {
            self.promised.clear();
        }
        if self.is_deposed {
            let shared = replicaset.history.last().map_or(0, |cut| cut.kept.shared.get(number));
            self.shared = shared;
            self.waiting.retain(|waiting| waiting.target <= shared);
        }
        self.promised.retain(|name, version| {
            let holds = |instance: &Instance| instance.is_online() && instance.version == version;
            !replicaset.in_sync.contains(name) && state.topology.instances.get(name).is_some_and(holds)
        });
        self.required = replicaset.in_sync.clone();
        self.required.extend(self.promised.names().cloned());
        self.required.remove(me);
    }

    /// Which of these followers can be counted in. `mine` is this instance's clock, and `number` its own.
    pub fn promise(
        &mut self,
        state: &State,
        followers: &[&Instance],
        (mine, number): (&Vclock, u32),
        now_us: u64,
    ) -> BTreeMap<InstanceName, u64> {
        let as_seen = |follower: &&Instance| Follower {
            name: follower.name.clone(),
            version: follower.version,
            position: Some(self.position(state, &follower.name, number, now_us)),
        };
        let seen: Vec<Follower<InstanceName>> = followers.iter().map(as_seen).collect();
        self.promised.give(&seen, self.durable, |name| self.required.contains(name));
        self.required.extend(self.promised.names().cloned());
        let keeps_up = |follower: &&&Instance| {
            let position = self.position(state, &follower.name, number, now_us);
            let is_beyond = self.followers.get(&follower.uuid).is_some_and(|seen| !mine.covers(&seen.clock));
            self.required.contains(&follower.name) && self.promised.is_kept_up(&follower.name, position) && !is_beyond
        };
        followers.iter().filter(keeps_up).map(|follower| (follower.name.clone(), follower.version)).collect()
    }

    fn position(&self, state: &State, name: &InstanceName, number: u32, now_us: u64) -> u64 {
        let Some(instance) = state.topology.instances.get(name) else { return 0 };
        let is_connected = |seen: &&Seen| now_us.saturating_sub(seen.at_us) < LINK_US;
        self.followers.get(&instance.uuid).filter(is_connected).map_or(0, |seen| seen.clock.get(number))
    }

    /// How many rows of this instance all have that are waited for.
    fn acknowledged(&self, state: &State, number: u32, now_us: u64) -> u64 {
        if self.is_deposed {
            return self.shared;
        }
        let positions = self.required.iter().map(|name| self.position(state, name, number, now_us));
        positions.min().unwrap_or(u64::MAX).min(self.durable)
    }

    /// Members in sync that the oldest write has waited for too long.
    pub fn stuck(&self, state: &State, number: u32, after_us: u64, now_us: u64) -> BTreeSet<InstanceName> {
        let Some(oldest) = self.waiting.front().filter(|waiting| now_us - waiting.since_us >= after_us) else {
            return BTreeSet::new();
        };
        let lacks = |name: &&InstanceName| self.position(state, name, number, now_us) < oldest.target;
        self.required.iter().filter(lacks).cloned().collect()
    }
}

impl World {
    /// Answers the clients whose rows are where they have to be.
    pub fn answer_clients(&mut self, number: u64) -> Verdict {
        let (now_us, is_hasty) = (self.now_us, self.options.defect == Some(Defect::AcknowledgesAlone));
        let Some(process) = self.process(number) else { return Ok(()) };
        let timeout_us = process.state.settings.count(Setting::AckTimeoutMs) as u64 * 1_000;
        let acknowledged = match is_hasty {
            true => process.acks.durable,
            false => process.acks.acknowledged(&process.state, process.store.number, now_us),
        };
        let mut answered = Vec::new();
        let (in_sync, min_in_sync) = process.acks.in_sync;
        let is_reached =
            |waiting: &Waiting| waiting.target <= acknowledged && !(waiting.is_write && in_sync < min_in_sync);
        while let Some(first) = process.acks.waiting.front() {
            let may_wait = first.step.is_some() || now_us - first.since_us < timeout_us;
            if !is_reached(first) && may_wait {
                break;
            }
            answered.extend(process.acks.waiting.pop_front().filter(is_reached));
        }
        for Waiting { key, list, floor, is_write, step, .. } in answered {
            if let Some((id, step, tenure)) = step {
                self.step_is_safe(number, id, step, &tenure)?;
                continue;
            }
            self.trace.say(self.now_us, || {
                format!("i{number} shows key {key} with {} writes, the last {:?}", list.len(), list.last())
            });
            self.report.writes += u64::from(is_write);
            self.report.reads += u64::from(!is_write);
            self.promises.acknowledged.shows(key, floor, &list)?;
            if self.is_healed() && is_write {
                self.written_since_heal.insert(key);
            }
        }
        Ok(())
    }
}
