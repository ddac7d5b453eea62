//! What holds for every log: the same log gives the same state, a snapshot and the rest of the log give it too, nothing
//! panics, and the parts of the state fit together after every entry.

use crate::*;
use model::{Column, ColumnType, Distribution, Engine, Index, SchemaChange, Table, TableState, Value};
use model::{InstanceName, ReplicasetName, TierName};
use proptest::prelude::*;
use sharding::{BucketRange, Tenure};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn newcomer(n: u8, data: u8, domain: &str) -> Newcomer {
    Newcomer {
        name: format!("i{n}").into(),
        uuid: format!("00000000-0000-0000-0000-0000000{data:02x}{n:03x}"),
        address: format!("127.0.0.1:{}", 3300 + u16::from(n)),
        failure_domain: BTreeMap::from([("dc".to_owned(), domain.to_owned())]),
    }
}

pub(crate) fn tier(name: &str, replication_factor: u32) -> TierSpec {
    TierSpec { name: name.into(), replication_factor, bucket_count: 30, can_vote: true }
}

pub(crate) fn bootstrap(replication_factor: u32) -> Op {
    Op::Bootstrap {
        cluster: "test".into(),
        id: "3a1f0c52-9c3e-4c0f-8b8e-000000000001".into(),
        instance: newcomer(1, 0, "a"),
        tier: tier("default", replication_factor),
        settings: BTreeMap::new(),
    }
}

pub(crate) fn table(name: &str, global: bool) -> Table {
    let column = |name: &str, ty| Column { name: name.into(), ty, nullable: false, default: None };
    let sharded = Distribution::Sharded { key: vec![0], tier: "default".into() };
    Table {
        id: 0,
        name: name.into(),
        version: 0,
        engine: Engine::Memtx,
        distribution: if global { Distribution::Global } else { sharded },
        columns: vec![column("id", ColumnType::BigInt), column("note", ColumnType::Text)],
        primary_key: vec![0],
        indexes: vec![],
        state: TableState::Preparing,
    }
}

/// Picks from what is there, or names something that is not.
fn pick<T: Clone>(items: impl Iterator<Item = T>, n: u8, other: T) -> T {
    let items: Vec<T> = items.collect();
    items.get(usize::from(n) % (items.len() + 1)).cloned().unwrap_or(other)
}

/// An operation from four random bytes, mostly one that makes sense in this state.
fn op_for(state: &State, [kind, a, b, c]: [u8; 4]) -> Op {
    let topology = &state.topology;
    let instance: InstanceName = pick(topology.instances.keys().cloned(), a, "nobody".into());
    let incarnation = topology.instances.get(&instance).map_or(0, |i| i.incarnation) + u64::from(b % 8 == 0);
    let replicaset: ReplicasetName = pick(topology.replicasets.keys().cloned(), a, "nowhere".into());
    let term = topology.replicasets.get(&replicaset).map_or(0, |r| r.master_term);
    let member = |n: u8| pick(topology.members(&replicaset).map(|i| i.name.clone()), n, "nobody".into());
    let tier_name: TierName = pick(topology.tiers.keys().cloned(), c, "none".into());
    let table_name = format!("t{}", a % 3);
    let move_id = pick(state.placement.moves.keys().copied(), a, 99);
    match kind % 28 {
        0 => bootstrap(2),
        1..=4 => Op::Join {
            instance: newcomer(a % 8, u8::from(b % 16 == 0), ["a", "b", "c"][usize::from(c % 3)]),
            tier: if b % 16 == 1 { tier_name } else { "default".into() },
        },
        5 | 6 => {
            let state = [InstanceState::Online, InstanceState::Offline, InstanceState::Expelled][usize::from(c % 3)];
            Op::SetInstanceState { instance, incarnation, state }
        }
        7 => Op::UpdateAddress { instance, incarnation, address: format!("h:{c}") },
        8 if c % 4 == 0 => Op::Expel { instance },
        8 => Op::SetWeight { replicaset, weight: 1 },
        9 | 10 => {
            let master = (c % 4 != 0).then(|| member(b));
            Op::SetMaster { replicaset, term: term + u64::from(c % 3), master }
        }
        11 | 12 => {
            let mut in_sync = BTreeSet::from([member(b), member(c)]);
            in_sync.extend(topology.replicasets.get(&replicaset).and_then(|r| r.master.clone()));
            Op::SetInSync { replicaset, term, in_sync }
        }
        13 => Op::SetWeight { replicaset, weight: u32::from(b % 3) },
        14 => Op::AddTier { tier: tier(["default", "hot", "bad name"][usize::from(a % 3)], u32::from(b % 4)) },
        15 => Op::PutSetting {
            name: ["min_in_sync", "nonsense"][usize::from(a % 2)].into(),
            value: Value::Integer(i64::from(b % 3)),
        },
        16 | 17 => Op::SchemaPrepare { change: schema_change(table_name, b, c), timeout_ms: u64::from(c) },
        18 => Op::SchemaCommit { id: state.schema.pending.as_ref().map_or(1, |p| p.id) },
        19 => Op::SchemaAbort { id: state.schema.pending.as_ref().map_or(1, |p| p.id), reason: "late".into() },
        20 => Op::AssignBuckets { tier: tier_name, owners: vec![(BucketRange::new(1, 30), replicaset)] },
        21..=23 => {
            let buckets = BucketRange::new(u32::from(b % 32), u32::from(b % 32) + u32::from(b / 32));
            let tier = if c % 8 == 0 { tier_name } else { "default".into() };
            let owner = state.placement.map(&tier).and_then(|map| map.owner(buckets.first).cloned());
            let masters = topology.replicasets.values().filter(|r| r.master.is_some()).map(|r| r.name.clone());
            Op::MoveStart { tier, buckets, from: owner.unwrap_or(replicaset), to: pick(masters, c, "nowhere".into()) }
        }
        24..=26 => {
            let tenure = |of: Option<&ReplicasetName>| {
                of.and_then(|r| topology.tenure(r)).unwrap_or(Tenure {
                    instance: "nobody".into(),
                    incarnation: 0,
                    master_term: 0,
                })
            };
            let record = state.placement.moves.get(&move_id);
            match c % 6 {
                0 => Op::MoveAbort { id: move_id, reason: "slow".into() },
                1 => Op::MoveDone { id: move_id },
                _ => Op::MoveFinish {
                    id: move_id,
                    source: tenure(record.map(|m| &m.from)),
                    destination: tenure(record.map(|m| &m.to)),
                },
            }
        }
        _ => {
            let table = pick(state.schema.tables.values().map(|t| (t.id, t.version)), a, (1, 1));
            Op::GlobalWrite { table: table.0, table_version: table.1 + u64::from(b % 8 == 0), changes: vec![a, b, c] }
        }
    }
}

fn schema_change(table_name: String, b: u8, c: u8) -> SchemaChange {
    let index = Index { id: 0, name: format!("x{}", c % 3), columns: vec![usize::from(c % 3)], unique: false };
    match b % 6 {
        0 | 1 => SchemaChange::CreateTable { table: table(&table_name, b.is_multiple_of(2)) },
        2 => SchemaChange::DropTable { table: table_name },
        3 => SchemaChange::CreateIndex { table: table_name, index },
        4 => SchemaChange::DropIndex { table: table_name, index: index.name },
        _ => SchemaChange::Truncate { table: table_name },
    }
}

/// Runs random operations on a fresh cluster; answers the log and the outcomes.
fn run(bytes: &[[u8; 4]]) -> (State, Vec<Entry>, Vec<Outcome>) {
    let mut state = State::default();
    let (mut log, mut outcomes) = (vec![], vec![]);
    for (at, four) in bytes.iter().enumerate() {
        let op = if at == 0 { bootstrap(2) } else { op_for(&state, *four) };
        let guard = match four[0] / 28 {
            0 => Guard::Catalog(state.version - u64::from(four[1] % 2).min(state.version)),
            1 => Guard::Part { part: Part::Schema, version: state.schema.version },
            _ => Guard::None,
        };
        let entry = Entry::guarded(op, guard);
        outcomes.push(state.apply(at as u64 + 1, &entry));
        if let Err(broken) = state.check() {
            panic!("{broken} after {:?}\n{state:#?}", entry.op);
        }
        log.push(entry);
    }
    (state, log, outcomes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn one_log_gives_one_state_through_any_snapshot(
        bytes in proptest::collection::vec(any::<[u8; 4]>(), 1..150),
        cut in any::<proptest::sample::Index>(),
    ) {
        let (state, log, outcomes) = run(&bytes);
        let cut = cut.index(log.len());
        let mut other = State::default();
        for (at, entry) in log.iter().enumerate() {
            if at == cut {
                other = State::from_bytes(&other.to_bytes().unwrap()).unwrap();
            }
            let decoded = Entry::from_bytes(&entry.to_bytes().unwrap()).unwrap();
            prop_assert_eq!(&decoded, entry);
            prop_assert_eq!(&other.apply(at as u64 + 1, &decoded), &outcomes[at]);
        }
        prop_assert_eq!(other.digest().unwrap(), state.digest().unwrap());
        prop_assert_eq!(&other, &state);
    }

    #[test]
    fn what_is_not_applied_changes_nothing(bytes in proptest::collection::vec(any::<[u8; 4]>(), 1..100)) {
        let mut state = State::default();
        for (at, four) in bytes.iter().enumerate() {
            let before = state.clone();
            let op = if at == 0 { bootstrap(2) } else { op_for(&state, *four) };
            let unchanged = match state.apply(at as u64 + 1, &Entry::new(op)) {
                Outcome::Applied { changes, .. } => changes.iter().all(|c| matches!(c, Change::GlobalRows(_))),
                Outcome::Conflict(_) | Outcome::Refused(_) => true,
            };
            if unchanged {
                prop_assert_eq!(state.digest().unwrap(), before.digest().unwrap());
            } else {
                prop_assert_eq!(state.version, before.version + 1);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_entry_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), flips in any::<[proptest::sample::Index; 3]>()) {
        let _ = Entry::from_bytes(&bytes);
        let _ = State::from_bytes(&bytes);
        let mut damaged = Entry::new(bootstrap(2)).to_bytes().unwrap();
        for flip in flips {
            let at = flip.index(damaged.len());
            damaged[at] = bytes.pop().unwrap_or(0);
        }
        if let Ok(entry) = Entry::from_bytes(&damaged) {
            State::default().apply(1, &entry);
        }
    }
}

/// The random logs are worth something: they make everything happen.
#[test]
fn random_logs_reach_every_operation() {
    let mut seen: BTreeMap<String, [u32; 2]> = BTreeMap::new();
    let mut seed: u64 = 1;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    for _ in 0..200 {
        let bytes: Vec<[u8; 4]> = (0..150).map(|_| (next() << 1 ^ next()).to_be_bytes()).collect();
        let (_, log, outcomes) = run(&bytes);
        for (entry, outcome) in log.iter().zip(outcomes) {
            let name = format!("{:?}", entry.op);
            let name = name.split([' ', '{']).next().unwrap_or_default().to_owned();
            let applied = matches!(outcome, Outcome::Applied { .. });
            seen.entry(name).or_default()[usize::from(applied)] += 1;
        }
    }
    assert_eq!(seen.len(), 19, "{seen:?}");
    assert!(seen.values().all(|[refused, applied]| *applied >= 5 && *refused >= 5), "{seen:?}");
}
