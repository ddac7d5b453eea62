//! What users and the operator do: reads and writes anywhere, changes of schema and settings, a master asked to hand over.

use super::acks::Waiting;
use super::node::{Asker, Node, Then};
use super::raft::Input;
use super::store::{Change, Key};
use super::terms::{BUCKETS, KEYS};
use super::world::World;
use crate::catalog_machine::table;
use crate::invariants::Verdict;
use crate::scenario::Defect;
use catalog::{Entry, Op};
use model::{BucketId, SchemaChange, Value};

pub fn bucket_of(key: Key) -> BucketId {
    (key % u64::from(BUCKETS)) as BucketId + 1
}

impl World {
    /// One client reads or writes one key, mostly at somebody who serves it.
    pub fn client(&mut self) -> Verdict {
        let key = self.rng.range(0, KEYS);
        let now_us = self.now_us;
        let is_awake = |node: &&Node| node.frozen_until_us <= now_us && node.process().is_some();
        let serving: Vec<u64> = self
            .nodes
            .values()
            .filter(is_awake)
            .filter(|node| self.serves(node, key))
            .map(|node| node.number)
            .collect();
        let Some(number) = self.rng.pick(&serving).copied() else {
            self.report.refused += 1;
            return Ok(());
        };
        let (is_write, floor, id) = (self.rng.chance(2, 3), self.promises.acknowledged.floor(key), self.calls + 1);
        self.calls = id;
        let is_careless = self.options.defect == Some(Defect::WritesWhileClosed);
        let Some(process) = self.process(number) else { return Ok(()) };
        let (reads, writes) = process.permits(key);
        let is_write = is_write && (writes || reads && is_careless);
        let (in_sync, min_in_sync) = process.acks.in_sync;
        if is_write && in_sync < min_in_sync {
            self.report.refused += 1;
            return Ok(());
        }
        if !is_write {
            let (list, target) = (process.store.list(key).to_vec(), process.store.written());
            process.acks.waiting.push_back(Waiting {
                target,
                key,
                list,
                floor,
                is_write,
                since_us: now_us,
                step: None,
            });
            return self.answer_clients(number);
        }
        let (mut list, target) = (process.store.list(key).to_vec(), process.store.written() + 1);
        list.push(id);
        process.moves.wrote(key);
        let waiting = Waiting { target, key, list, floor, is_write, since_us: now_us, step: None };
        self.write_rows(number, vec![Change::Append { key, id }], Then::Write(waiting));
        Ok(())
    }

    /// Whether an instance would read a key now.
    pub fn serves(&self, node: &Node, key: Key) -> bool {
        node.process().is_some_and(|process| process.serves(self.clock_of(node.number)) && process.permits(key).0)
    }

    /// Nobody is the master of what somebody else is the master of, and no bucket is active twice.
    pub fn check_masters(&mut self) -> Verdict {
        let (mut serving, mut writers) = (Vec::new(), Vec::new());
        for node in self.nodes.values() {
            let Some(process) = node.process() else { continue };
            if process.serves(self.clock_of(node.number))
                && let Some(replicaset) = process.replicaset()
            {
                serving.push((replicaset.name.clone(), node.number, replicaset.master_term));
                let taken = (0..KEYS).filter(|key| process.permits(*key).1);
                writers.extend(taken.map(|key| (bucket_of(key), node.number)));
            }
        }
        self.promises.one_owner.take(&writers)?;
        self.promises.one_master.serve(&serving)
    }

    /// The operator does something.
    pub fn operate(&mut self) -> Verdict {
        let Some(leader) = self.leader() else { return Ok(()) };
        let choice = self.rng.range(0, 6);
        let id = self.rng.draw() % 3;
        let Some(process) = self.process(leader) else { return Ok(()) };
        let topology = process.state.topology.clone();
        let op = match choice {
            0 => {
                let replicasets: Vec<_> = topology.replicasets.values().collect();
                let Some(replicaset) = self.rng.pick(&replicasets) else { return Ok(()) };
                let members: Vec<_> = replicaset.in_sync.iter().collect();
                let Some(to) = self.rng.pick(&members) else { return Ok(()) };
                Op::HandOver { replicaset: replicaset.name.clone(), to: (*to).clone() }
            }
            1..=2 => {
                let replicasets: Vec<_> = topology.replicasets.keys().collect();
                let Some(replicaset) = self.rng.pick(&replicasets) else { return Ok(()) };
                Op::SetWeight { replicaset: (*replicaset).clone(), weight: id as u32 }
            }
            3 => Op::PutSetting { name: "min_in_sync".into(), value: Value::Integer(1 + (id % 2) as i64) },
            4 => {
                let change = SchemaChange::DropTable { table: format!("t{id}"), cascade: false };
                Op::SchemaPrepare { change, timeout_ms: 2_000 }
            }
            _ => {
                let change = SchemaChange::CreateTable { table: table(&format!("t{id}"), id == 0) };
                Op::SchemaPrepare { change, timeout_ms: 2_000 }
            }
        };
        let entry = Entry::new(op).to_bytes().map_err(super::world::text)?;
        self.put(leader, Input::Propose { entry, asker: Asker::Nobody })
    }
}
