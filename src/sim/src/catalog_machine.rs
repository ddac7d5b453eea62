//! The catalog as a replicated state: operations that mostly make sense in the state that the proposer sees, from a small
//! world, so that they meet, conflict and depend on one another.

use crate::machine::Machine;
use catalog::{Entry, Guard, InstanceState, Newcomer, Op, State, TierSpec};
use consensus::Rng;
use model::{Column, ColumnType, Distribution, Durability, Engine, SchemaChange, Table, TableState, TierName, Value};
use replication::Kept;
use sharding::{BucketRange, Tenure};
use std::collections::{BTreeMap, BTreeSet};

const BUCKETS: u32 = 30;
const NAMES: u64 = 7;

/// The catalog of a pretended cluster.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    state: State,
}

impl Machine for Catalog {
    fn command(&self, rng: &mut Rng, id: u64) -> Vec<u8> {
        let op = match self.state.cluster {
            None => bootstrap(),
            Some(_) => self.op(rng, id),
        };
        let guard = if rng.chance(1, 4) { Guard::Catalog(self.state.version) } else { Guard::None };
        // Nothing that is made here fails to encode; if it did, every instance would find the same bytes meaningless.
        Entry::guarded(op, guard).to_bytes().unwrap_or_else(|_| b"unencodable".to_vec())
    }

    fn apply(&mut self, index: u64, command: &[u8]) {
        if let Ok(entry) = Entry::from_bytes(command) {
            self.state.apply(index, &entry);
        }
    }

    fn digest(&self) -> u64 {
        self.state.digest().map_or(u64::MAX, |digest| digest ^ self.state.version.rotate_left(32))
    }

    fn save(&self) -> Vec<u8> {
        self.state.to_bytes().unwrap_or_default()
    }

    fn load(bytes: &[u8]) -> Result<Self, String> {
        State::from_bytes(bytes).map(|state| Self { state }).map_err(|error| error.to_string())
    }
}

impl Catalog {
    pub fn state(&self) -> &State {
        &self.state
    }

    fn op(&self, rng: &mut Rng, id: u64) -> Op {
        match rng.range(0, 10) {
            0..=3 => self.membership(rng, id),
            4..=5 => self.mastership(rng),
            6..=7 => self.schema(rng),
            8 => self.placement(rng),
            _ => settings(rng),
        }
    }

    fn membership(&self, rng: &mut Rng, id: u64) -> Op {
        let instances: Vec<_> = self.state.topology.instances.values().collect();
        let known = rng.pick(&instances).map(|instance| (instance.name.clone(), instance.incarnation));
        let states = [InstanceState::Online, InstanceState::Online, InstanceState::Offline, InstanceState::Expelled];
        match (rng.range(0, 6), known) {
            (0..=1, Some((instance, incarnation))) => {
                let state = rng.pick(&states).copied().unwrap_or(InstanceState::Online);
                Op::SetInstanceState { instance, incarnation, state }
            }
            (2, Some((instance, incarnation))) => {
                Op::UpdateAddress { instance, incarnation, address: format!("10.0.0.1:{}", 3000 + id % 1000) }
            }
            (3, Some((instance, _))) if rng.chance(1, 4) => Op::Expel { instance },
            _ => {
                let instance = newcomer(rng.range(1, NAMES + 1));
                Op::Join { instance, tier: "default".into(), replaces: None }
            }
        }
    }

    fn mastership(&self, rng: &mut Rng) -> Op {
        let topology = &self.state.topology;
        let replicasets: Vec<_> = topology.replicasets.values().collect();
        let Some(chosen) = rng.pick(&replicasets) else { return bootstrap() };
        let members: Vec<_> = topology.members(&chosen.name).map(|member| member.name.clone()).collect();
        let (replicaset, term) = (chosen.name.clone(), chosen.master_term);
        match rng.range(0, 4) {
            0 => Op::SetMaster { replicaset, term: term + 1, master: None, kept: None },
            1 => {
                let clock = [(1, rng.range(0, 100))].into_iter().collect();
                let kept = Some(Kept::new(rng.range(1, 4) as u32, clock));
                Op::SetMaster { replicaset, term: term + rng.range(0, 2), master: rng.pick(&members).cloned(), kept }
            }
            2 if rng.chance(1, 2) && !members.is_empty() => {
                let to = rng.pick(&members).cloned().unwrap_or_else(|| "nobody".into());
                Op::HandOver { replicaset, to }
            }
            2 => Op::SetWeight { replicaset, weight: rng.range(0, 3) as u32 },
            _ => {
                let mut in_sync: BTreeSet<_> = members.into_iter().filter(|_| rng.chance(2, 3)).collect();
                in_sync.extend(chosen.master.clone());
                let version = |name| topology.instances.get(name).map_or(0, |instance| instance.version);
                let promised = in_sync.iter().map(|name| (name.clone(), version(name))).collect();
                Op::SetInSync { replicaset, term, in_sync, promised }
            }
        }
    }

    fn schema(&self, rng: &mut Rng) -> Op {
        let name = format!("t{}", rng.range(0, 4));
        match (&self.state.schema.pending, rng.range(0, 6)) {
            (Some(pending), 0..=3) => Op::SchemaCommit { id: pending.id },
            (Some(pending), 4) => Op::SchemaAbort { id: pending.id, reason: "the simulator wants it so".into() },
            (_, 0) => {
                Op::SchemaPrepare { change: SchemaChange::DropTable { table: name, cascade: false }, timeout_ms: 0 }
            }
            (_, 1) => Op::SchemaPrepare { change: SchemaChange::Truncate { table: name }, timeout_ms: 0 },
            _ => {
                let table = table(&name, rng.chance(1, 3));
                Op::SchemaPrepare { change: SchemaChange::CreateTable { table }, timeout_ms: 1000 }
            }
        }
    }

    fn placement(&self, rng: &mut Rng) -> Op {
        let (topology, placement) = (&self.state.topology, &self.state.placement);
        let tier: TierName = "default".into();
        let replicasets: Vec<_> = topology.replicasets.keys().cloned().collect();
        let Some(to) = rng.pick(&replicasets).cloned() else { return bootstrap() };
        let moves: Vec<_> = placement.moves.keys().copied().collect();
        if let Some(id) = rng.pick(&moves).copied().filter(|_| rng.chance(2, 3)) {
            let tenures: Vec<Tenure> = replicasets.iter().filter_map(|name| topology.tenure(name)).collect();
            return match (rng.range(0, 4), rng.pick(&tenures).cloned(), rng.pick(&tenures).cloned()) {
                (0, _, _) => Op::MoveAbort { id, reason: "the simulator wants it so".into() },
                (1, _, _) => Op::MoveDone { id },
                (_, Some(source), Some(destination)) => Op::MoveFinish { id, source, destination },
                _ => Op::MoveDone { id },
            };
        }
        let first = rng.range(1, u64::from(BUCKETS)) as u32;
        match placement.map(&tier).and_then(|map| map.owner(first)).cloned() {
            Some(from) => Op::MoveStart { tier, buckets: BucketRange::new(first, first), from, to },
            None => Op::AssignBuckets { tier, owners: vec![(BucketRange::new(1, BUCKETS), to)] },
        }
    }
}

fn settings(rng: &mut Rng) -> Op {
    let name = rng.pick(&["min_in_sync", "balance", "nonsense"]).copied().unwrap_or_default();
    Op::PutSetting { name: name.into(), value: Value::Integer(rng.range(0, 3) as i64) }
}

fn bootstrap() -> Op {
    Op::Bootstrap {
        cluster: "simulated".into(),
        id: "3a1f0c52-9c3e-4c0f-8b8e-000000000001".into(),
        instance: newcomer(1),
        tier: TierSpec { name: "default".into(), replication_factor: 2, bucket_count: BUCKETS, can_vote: true },
        settings: BTreeMap::new(),
    }
}

fn newcomer(number: u64) -> Newcomer {
    Newcomer {
        name: format!("i{number}").into(),
        uuid: format!("00000000-0000-0000-0000-{number:012x}"),
        address: format!("127.0.0.1:{}", 3300 + number),
        failure_domain: BTreeMap::from([("dc".to_owned(), format!("dc{}", number % 3))]),
        lost_power: false,
    }
}

/// A table of two columns.
pub fn table(name: &str, is_global: bool) -> Table {
    let column = |name: &str, ty| Column::new(name, ty, false);
    let sharded = Distribution::Sharded { key: vec![0], tier: "default".into() };
    Table {
        id: 0,
        name: name.into(),
        version: 0,
        engine: Engine::Memtx,
        distribution: if is_global { Distribution::Global } else { sharded },
        columns: vec![column("id", ColumnType::BigInt), column("note", ColumnType::Text)],
        primary_key: vec![0],
        indexes: vec![],
        state: TableState::Preparing,
        checks: vec![],
        durability: Durability::Replicated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands that are all refused would prove nothing.
    #[test]
    fn most_parts_of_the_catalog_come_to_life() {
        let (mut machine, mut rng) = (Catalog::default(), Rng::new(1));
        let (mut tables, mut moves, mut masters) = (0, 0, BTreeSet::new());
        for index in 1..=3000 {
            let command = machine.command(&mut rng, index);
            machine.apply(index, &command);
            tables = tables.max(machine.state.schema.tables.len());
            moves = moves.max(machine.state.placement.moves.len());
            masters
                .extend(machine.state.topology.replicasets.values().filter_map(|replicaset| replicaset.master.clone()));
        }
        assert!(machine.state.version > 500, "{}", machine.state.version);
        assert!(machine.state.topology.instances.len() > 3 && masters.len() > 1, "{masters:?}");
        assert!(tables > 1 && moves > 0, "{tables} tables, {moves} moves");
        assert_eq!(Catalog::load(&machine.save()).map(|loaded| loaded.digest()), Ok(machine.digest()));
    }
}
