//! What holds for every log: the same log gives the same state, a snapshot and the rest of the log give it too, nothing
//! panics, and the parts of the state fit together after every entry.

use crate::*;
use model::program::Step;
use model::{
    Alteration, Check, Code, Column, ColumnType, Distribution, Durability, Engine, Generated, Index, Program,
    SchemaChange, Sequence, Table, TableState, Value, View,
};
use model::{InstanceName, ReplicasetName, TierName};
use proptest::prelude::*;
use replication::Kept;
use sharding::{BucketRange, Tenure};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn newcomer(n: u8, data: u8, domain: &str) -> Newcomer {
    Newcomer {
        name: format!("i{n}").into(),
        uuid: format!("00000000-0000-0000-0000-0000000{data:02x}{n:03x}"),
        address: format!("127.0.0.1:{}", 3300 + u16::from(n)),
        failure_domain: BTreeMap::from([("dc".to_owned(), domain.to_owned())]),
        lost_power: false,
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
    let column = |name: &str, ty| Column::new(name, ty, false);
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
        checks: vec![],
        durability: Durability::Replicated,
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
        0 if c % 2 == 0 => {
            let known = topology.instances.get(&instance);
            let domain = known.and_then(|known| known.failure_domain.get("dc")).cloned().unwrap_or_default();
            let data = u8::from(b % 8 == 1);
            let number = instance.as_str().trim_start_matches('i').parse().unwrap_or(9);
            let forgets = known.map_or(1, |known| known.raft_id) + u64::from(b % 4 == 0);
            let instance = Newcomer { lost_power: true, ..newcomer(number, data, &domain) };
            Op::Renumber { instance, tier: "default".into(), forgets }
        }
        0 => bootstrap(2),
        1..=4 => Op::Join {
            instance: newcomer(a % 8, if b % 8 == 0 { c % 4 } else { 0 }, ["a", "b", "c"][usize::from(c % 3)]),
            tier: if b % 16 == 1 { tier_name } else { "default".into() },
            replaces: (b % 8 == 0).then(|| newcomer(a % 8, b / 8 % 4, "a").uuid),
        },
        5 | 6 => {
            let state = [InstanceState::Online, InstanceState::Offline, InstanceState::Expelled][usize::from(c % 3)];
            Op::SetInstanceState { instance, incarnation, state }
        }
        7 => Op::UpdateAddress { instance, incarnation, address: format!("h:{c}") },
        8 if c % 4 == 0 => Op::Expel { instance },
        8 => {
            let to = member(b);
            Op::HandOver { replicaset, to }
        }
        9 | 10 => {
            let master = (c % 4 != 0).then(|| member(b));
            let clock = [(1, u64::from(a)), (2, u64::from(b))].into_iter().collect();
            let kept = (c % 5 != 0).then(|| Kept::new(u32::from(b % 3), clock));
            Op::SetMaster { replicaset, term: term + u64::from(c % 3), master, kept }
        }
        11 | 12 => {
            let mut in_sync = BTreeSet::from([member(b), member(c)]);
            in_sync.extend(topology.replicasets.get(&replicaset).and_then(|r| r.master.clone()));
            let version = |name: &InstanceName| topology.instances.get(name).map_or(0, |i| i.version);
            let promised = in_sync.iter().map(|name| (name.clone(), version(name) + u64::from(a % 8 == 0))).collect();
            Op::SetInSync { replicaset, term, in_sync, promised }
        }
        13 if c % 16 == 0 => Op::Recover { lost: BTreeSet::from([instance]) },
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
            let from = owner.unwrap_or(replicaset);
            let others = topology.replicasets.values().filter(|r| r.master.is_some() && r.name != from);
            let to = pick(others.map(|r| r.name.clone()), c, "nowhere".into());
            Op::MoveStart { tier, buckets, from, to }
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
                0 | 1 => Op::MoveAbort { id: move_id, reason: "slow".into() },
                2 => Op::MoveDone { id: move_id },
                _ => Op::MoveFinish {
                    id: move_id,
                    source: tenure(record.map(|m| &m.from)),
                    destination: tenure(record.map(|m| &m.to)),
                },
            }
        }
        _ if c.is_multiple_of(2) => {
            let running = state.sequences.running.iter().map(|(id, running)| (*id, running.next.unwrap_or(0)));
            let (id, next) = pick(running, a, (99, 1));
            Op::SequenceLease { id, from: next + i64::from(b % 8 == 0), count: u32::from(b) }
        }
        _ => {
            let table = pick(state.schema.tables.values().map(|t| (t.id, t.version)), a, (1, 1));
            Op::GlobalWrite { table: table.0, table_version: table.1 + u64::from(b % 8 == 0), changes: vec![a, b, c] }
        }
    }
}

fn schema_change(table_name: String, b: u8, c: u8) -> SchemaChange {
    let index = Index { id: 0, name: format!("x{}", c % 3), columns: vec![usize::from(c % 3)], unique: false };
    let view = format!("v{}", c % 3);
    match b % 12 {
        0 => SchemaChange::CreateTable { table: table(&table_name, b.is_multiple_of(24)) },
        1 => {
            let mut table = table(&table_name, false);
            let sequence = Sequence::default();
            table.columns[0].generated = Some(Generated::Identity { sequence, always: true });
            SchemaChange::CreateTable { table }
        }
        2 => SchemaChange::DropTable { table: table_name, cascade: c.is_multiple_of(2) },
        3 => SchemaChange::CreateIndex { table: table_name, index },
        4 => SchemaChange::DropIndex { table: table_name, index: index.name },
        5 => SchemaChange::Truncate { table: table_name },
        6 => SchemaChange::DropView { view, cascade: c.is_multiple_of(2) },
        7 => SchemaChange::CreateView {
            view: View {
                name: view,
                columns: vec![("id".into(), "id".into())],
                text: format!("SELECT id FROM {table_name}"),
                uses: vec![if c.is_multiple_of(4) { format!("v{}", c / 4 % 3) } else { table_name }],
                version: 0,
            },
            replace: c.is_multiple_of(2),
        },
        8 => SchemaChange::CreateSequence { name: format!("s{}", c % 2), sequence: Sequence::default() },
        9 => SchemaChange::DropSequence { name: format!("s{}", c % 2) },
        _ => SchemaChange::AlterTable { table: table_name, alteration: alteration(c) },
    }
}

fn alteration(c: u8) -> Alteration {
    let column = ["note", "id", "more", "nothing"][usize::from(c / 9 % 4)].to_owned();
    let program = Program { text: "more IS NULL".into(), steps: vec![Step::Column(usize::from(c % 4)), Step::IsNull] };
    match c % 9 {
        0 => Alteration::AddColumn { column: Column::new("more", ColumnType::Text, true) },
        1 => Alteration::DropColumn { column },
        2 => Alteration::RenameColumn { from: column, to: "other".into() },
        3 => Alteration::RenameTable { to: format!("t{}", c % 4) },
        4 => {
            let generated = Generated::NextOf { name: format!("s{}", c / 9 % 2), sequence: Sequence::default() };
            Alteration::SetDefault { column, default: None, generated: Some(generated) }
        }
        5 => Alteration::SetNotNull { column },
        6 => Alteration::DropNotNull { column },
        7 => Alteration::AddCheck { check: Check { name: "c".into(), program } },
        _ => Alteration::DropCheck { name: "c".into() },
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
                Outcome::Applied { changes, .. } => {
                    changes.iter().all(|c| matches!(c, Change::GlobalRows(_) | Change::Leased(_)))
                }
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
    assert_eq!(seen.len(), 23, "{seen:?}");
    assert!(seen.values().all(|[refused, applied]| *applied >= 5 && *refused >= 5), "{seen:?}");
}

/// A cluster of one, and a way to ask it for things.
struct Asked(State);

impl Asked {
    fn new(replication_factor: u32) -> Self {
        let mut asked = Self(State::default());
        asked.ok(bootstrap(replication_factor));
        asked
    }

    fn ask(&mut self, op: Op) -> Outcome {
        self.0.apply(self.0.index + 1, &Entry::new(op))
    }

    fn ok(&mut self, op: Op) {
        self.ask(op).into_result().unwrap();
    }

    fn join(&mut self, n: u8, domain: &str) -> String {
        self.ok(Op::Join { instance: newcomer(n, 0, domain), tier: "default".into(), replaces: None });
        self.0.topology.instances[&format!("i{n}").as_str().into()].replicaset.to_string()
    }

    fn error(&mut self, op: Op) -> (Code, String) {
        let error = self.ask(op).into_result().unwrap_err();
        (error.code, error.message)
    }
}

#[test]
fn newcomers_fill_replicasets_apart_from_their_kind() {
    let mut asked = Asked::new(2);
    let places: Vec<String> =
        [(2, "a"), (3, "b"), (4, "b"), (5, "b"), (6, "c")].map(|(n, dc)| asked.join(n, dc)).into();
    assert_eq!(places, ["default_2", "default_1", "default_2", "default_3", "default_3"]);
    let uuids: BTreeSet<&str> = asked.0.topology.replicasets.values().map(|r| r.uuid.as_str()).collect();
    assert_eq!(uuids.len(), 3);
    assert!(uuids.iter().all(|uuid| model::value::parse_uuid(uuid).is_ok()));
}

#[test]
fn a_newcomer_waits_for_a_master_to_copy_unless_it_is_the_first() {
    let mut asked = Asked::new(2);
    assert_eq!([asked.join(2, "a"), asked.join(3, "b"), asked.join(4, "b")], ["default_2", "default_1", "default_2"]);
    let mut topology = Topology::clone(&asked.0.topology);
    let donor = |topology: &Topology, name: &str| {
        let place = topology.place(&name.into())?;
        Some(place.donor.map(|donor| donor.name.to_string()))
    };
    assert_eq!(donor(&topology, "i2"), Some(None), "the first of its replicaset copies nobody");
    assert_eq!(donor(&topology, "i4"), None, "there is no master yet");
    topology.replicasets.get_mut(&"default_2".into()).unwrap().master = Some("i2".into());
    assert_eq!(donor(&topology, "i4"), None, "the master is not online");
    topology.instances.get_mut(&"i2".into()).unwrap().state = InstanceState::Online;
    assert_eq!(donor(&topology, "i4"), Some(Some("i2".into())));
    assert_eq!(donor(&topology, "i2"), None, "a master copies nobody, and is no newcomer");
    assert_eq!(donor(&topology, "i5"), None);
}

#[test]
fn a_name_belongs_to_its_data_until_it_is_expelled() {
    let mut asked = Asked::new(2);
    asked.join(2, "b");
    let join = |n, data| Op::Join { instance: newcomer(n, data, "b"), tier: "default".into(), replaces: None };
    assert_eq!(asked.error(join(2, 1)), (Code::NameTaken, "instance \"i2\" exists already, with other data".into()));
    asked.ok(join(2, 0));
    let instance = asked.0.topology.instances[&"i2".into()].clone();
    assert_eq!((instance.incarnation, instance.raft_id), (2, 2));
    // A report about the life before is too late.
    let report = |incarnation, state| Op::SetInstanceState { instance: "i2".into(), incarnation, state };
    assert_eq!(asked.error(report(1, InstanceState::Online)).0, Code::Conflict);
    assert_eq!(asked.error(report(2, InstanceState::Expelled)).0, Code::Conflict);
    asked.ok(Op::Expel { instance: "i2".into() });
    asked.ok(report(2, InstanceState::Expelled));
    assert_eq!(asked.error(join(2, 0)).0, Code::NameTaken);
    asked.ok(join(2, 1));
    assert_eq!(asked.0.topology.instances[&"i2".into()].raft_id, 3);
    let copied = Newcomer { name: "other".into(), ..newcomer(2, 1, "c") };
    assert_eq!(asked.error(Op::Join { instance: copied, tier: "default".into(), replaces: None }).0, Code::NameTaken);
}

#[test]
fn what_a_schema_change_makes_is_usable_after_the_commit_and_gone_after_an_abort() {
    let mut asked = Asked::new(1);
    let create = |name: &str| Op::SchemaPrepare {
        change: SchemaChange::CreateTable { table: table(name, true) },
        timeout_ms: 0,
    };
    asked.ok(create("t"));
    assert!(asked.0.schema.operable("t").is_none());
    assert_eq!(asked.0.schema.table("t").unwrap().id, schema::TABLE_ID_FIRST);
    assert_eq!(asked.error(create("u")).0, Code::Conflict);
    asked.ok(Op::SchemaCommit { id: 1 });
    let made = asked.0.schema.operable("t").unwrap();
    assert_eq!(asked.error(Op::SchemaCommit { id: 1 }).0, Code::Conflict);
    assert_eq!(asked.error(create("t")).0, Code::AlreadyExists);
    let write = |table_version| Op::GlobalWrite { table: made.id, table_version, changes: vec![1] };
    let version = asked.0.version;
    assert_eq!(
        asked.ask(write(made.version)),
        Outcome::Applied { version, changes: vec![Change::GlobalRows(made.id)] }
    );
    assert_eq!(asked.error(write(made.version + 1)).0, Code::SchemaChanged);
    asked.ok(create("u"));
    asked.ok(Op::SchemaAbort { id: 2, reason: "late".into() });
    assert!(asked.0.schema.table("u").is_err());
    assert_eq!(asked.0.schema.finished, BTreeMap::from([(1, None), (2, Some("late".into()))]));
    let drop = |name: &str| Op::SchemaPrepare {
        change: SchemaChange::DropTable { table: name.into(), cascade: false },
        timeout_ms: 0,
    };
    assert_eq!(asked.error(drop("tt")), (Code::NoSuchTable, "there is no table \"tt\"".into()));
    asked.ok(drop("t"));
    asked.ok(Op::SchemaAbort { id: 3, reason: "late".into() });
    assert!(asked.0.schema.operable("t").is_some());
    asked.ok(create("v"));
    assert_eq!(asked.0.schema.table("v").unwrap().id, schema::TABLE_ID_FIRST + 2, "ids are not reused");
}

#[test]
fn a_condition_is_in_force_while_it_is_pending_and_gone_after_an_abort() {
    let mut asked = Asked::new(1);
    let change = |change| Op::SchemaPrepare { change, timeout_ms: 0 };
    let alter = |alteration| change(SchemaChange::AlterTable { table: "t".into(), alteration });
    let mut nullable = table("t", false);
    nullable.columns[1].nullable = true;
    asked.ok(change(SchemaChange::CreateTable { table: nullable }));
    asked.ok(Op::SchemaCommit { id: 1 });
    asked.ok(alter(Alteration::SetNotNull { column: "note".into() }));
    let pending = asked.0.schema.operable("t").unwrap();
    assert!(pending.checks.len() == 1 && pending.columns[1].nullable, "queries still see NULLs");
    asked.ok(Op::SchemaAbort { id: 2, reason: "a row has none".into() });
    assert_eq!(asked.0.schema.operable("t").unwrap().checks, []);
    asked.ok(alter(Alteration::SetNotNull { column: "note".into() }));
    asked.ok(Op::SchemaCommit { id: 3 });
    let made = asked.0.schema.operable("t").unwrap();
    assert!(made.checks.is_empty() && !made.columns[1].nullable && made.columns[1].loose);
}

#[test]
fn numbers_are_leased_once_and_make_no_version() {
    let mut asked = Asked::new(1);
    let sequence = Sequence { max: 25, ..Sequence::default() };
    let create = SchemaChange::CreateSequence { name: "s".into(), sequence };
    asked.ok(Op::SchemaPrepare { change: create, timeout_ms: 0 });
    assert!(asked.0.schema.pending.is_none(), "nobody has to build anything");
    let (version, digest) = (asked.0.version, asked.0.digest().unwrap());
    let id = asked.0.sequences.by_name("s").unwrap().id;
    let lease = |from| Op::SequenceLease { id, from, count: 10 };
    asked.ok(lease(1));
    assert_eq!(asked.error(lease(1)).0, Code::Conflict, "who comes second looks again");
    asked.ok(lease(11));
    asked.ok(lease(21));
    assert_eq!(asked.0.sequences.running[&id].next, None);
    assert_eq!(asked.error(lease(26)).0, Code::Conflict);
    assert_eq!((asked.0.version, asked.0.digest().unwrap()), (version, digest));
}

#[test]
fn a_move_ends_only_on_the_word_of_present_masters() {
    let mut asked = Asked::new(1);
    asked.join(2, "b");
    asked.ok(Op::AssignBuckets { tier: "default".into(), owners: vec![(BucketRange::new(1, 30), "default_1".into())] });
    asked.ok(Op::SetMaster { replicaset: "default_2".into(), term: 1, master: Some("i2".into()), kept: None });
    let start = |first, last| Op::MoveStart {
        tier: "default".into(),
        buckets: BucketRange::new(first, last),
        from: "default_1".into(),
        to: "default_2".into(),
    };
    asked.ok(start(21, 30));
    assert_eq!(asked.error(start(30, 30)).0, Code::Conflict);
    let tenure = |state: &State, replicaset: &str| state.topology.tenure(&replicaset.into()).unwrap();
    let (source, destination) = (tenure(&asked.0, "default_1"), tenure(&asked.0, "default_2"));
    asked.ok(Op::Join { instance: newcomer(2, 0, "b"), tier: "default".into(), replaces: None });
    let finish = |destination| Op::MoveFinish { id: 1, source: source.clone(), destination };
    assert_eq!(asked.error(finish(destination)).0, Code::Conflict, "the destination has restarted");
    let destination = tenure(&asked.0, "default_2");
    asked.ok(finish(destination));
    let map = asked.0.placement.map(&"default".into()).unwrap();
    assert_eq!(map.lookup(21).map(|r| (r.replicaset.as_str(), r.epoch)), Some(("default_2", 2)));
    assert_eq!(asked.error(Op::MoveAbort { id: 1, reason: String::new() }).0, Code::Conflict);
    asked.ok(Op::MoveDone { id: 1 });
    assert!(asked.0.placement.moves.is_empty());
}

/// A replicaset of three in sync with master i1, and the versions of their records.
fn trio() -> Asked {
    let mut asked = Asked::new(3);
    for (n, domain) in [(2, "b"), (3, "c")] {
        asked.join(n, domain);
        let instance: InstanceName = format!("i{n}").into();
        asked.ok(Op::SetInstanceState { instance, incarnation: 1, state: InstanceState::Online });
    }
    let count_in = asked.count_in(["i1", "i2", "i3"]);
    asked.ok(count_in);
    asked
}

impl Asked {
    fn version(&self, name: &str) -> u64 {
        self.0.topology.instances[&name.into()].version
    }

    fn count_in<const N: usize>(&self, names: [&str; N]) -> Op {
        let replicaset = &self.0.topology.replicasets[&"default_1".into()];
        Op::SetInSync {
            replicaset: replicaset.name.clone(),
            term: replicaset.master_term,
            in_sync: names.map(InstanceName::from).into(),
            promised: names.map(|name| (InstanceName::from(name), self.version(name))).into(),
        }
    }

    fn set_master(&mut self, term: u64, master: Option<&str>, kept: Option<Kept>) -> Outcome {
        self.ask(Op::SetMaster { replicaset: "default_1".into(), term, master: master.map(InstanceName::from), kept })
    }
}

fn kept(number: u32, rows: u64) -> Option<Kept> {
    Some(Kept::new(number, [(1, rows)].into_iter().collect()))
}

#[test]
fn a_change_of_master_says_what_it_kept() {
    let mut asked = trio();
    let code = |outcome: Outcome| outcome.into_result().map_err(|error| error.code);
    assert_eq!(code(asked.set_master(2, Some("i2"), kept(2, 7))), Err(Code::Conflict), "nobody was fenced");
    assert!(code(asked.set_master(2, None, None)).is_ok());
    assert_eq!(code(asked.set_master(2, Some("i2"), None)), Err(Code::Argument));
    assert!(code(asked.set_master(2, Some("i2"), kept(2, 7))).is_ok());
    let history = &asked.0.topology.replicasets[&"default_1".into()].history;
    let clock = |rows| [(1, rows), (2, 100)].into_iter().collect();
    assert_eq!(history.stray(1, &clock(7)), None);
    assert!(history.stray(1, &clock(8)).is_some());
}

#[test]
fn a_member_is_counted_in_on_a_promise_about_what_it_is_now() {
    let mut asked = trio();
    let without = asked.count_in(["i1", "i2"]);
    asked.ok(without);
    let count_in = asked.count_in(["i1", "i2", "i3"]);
    let report = |state| Op::SetInstanceState { instance: "i3".into(), incarnation: 1, state };
    asked.ok(report(InstanceState::Offline));
    asked.ok(report(InstanceState::Online));
    assert_eq!(asked.error(count_in).0, Code::Conflict, "it was away, and nobody waited for it");
    let count_in = asked.count_in(["i1", "i2", "i3"]);
    asked.ok(count_in);
}

#[test]
fn who_has_thrown_its_data_away_comes_back_in_its_place_as_another_voter() {
    let mut asked = trio();
    let replace = |n: u8, old: u8, new: u8| Op::Join {
        instance: newcomer(n, new, "b"),
        tier: "default".into(),
        replaces: Some(newcomer(n, old, "b").uuid),
    };
    assert_eq!(asked.error(replace(1, 0, 1)).0, Code::Conflict, "a master keeps its data");
    assert_eq!(asked.error(replace(2, 5, 1)).0, Code::NameTaken, "it is not the one that it says it was");
    asked.ok(replace(2, 0, 1));
    let i2 = asked.0.topology.instances[&"i2".into()].clone();
    assert_eq!((i2.raft_id, i2.incarnation, i2.state), (4, 2, InstanceState::Joining));
    assert_eq!(i2.replicaset.as_str(), "default_1");
    assert!(!asked.0.topology.replicasets[&"default_1".into()].in_sync.contains(&"i2".into()));
    // The answer was lost: it asks again.
    asked.ok(replace(2, 0, 1));
    assert_eq!(asked.0.topology.instances[&"i2".into()].raft_id, 4);
    let alone = asked.count_in(["i1"]);
    asked.ok(alone);
    asked.set_master(2, None, None).into_result().unwrap();
    assert_eq!(asked.error(replace(1, 0, 1)).0, Code::Conflict, "it has the only copy of what was acknowledged");
}

#[test]
fn who_has_lost_its_raft_log_keeps_its_rows_and_is_another_voter() {
    let mut asked = trio();
    let renumber = |n: u8, forgets| Op::Renumber { instance: newcomer(n, 0, "b"), tier: "default".into(), forgets };
    let members = |asked: &Asked| asked.0.topology.replicasets[&"default_1".into()].in_sync.len();
    let (before, record) = (members(&asked), asked.0.topology.instances[&"i2".into()].clone());
    asked.ok(renumber(2, record.raft_id));
    let i2 = asked.0.topology.instances[&"i2".into()].clone();
    assert_eq!((i2.raft_id, i2.incarnation, i2.state), (4, record.incarnation + 1, InstanceState::Offline));
    assert_eq!((i2.uuid, i2.replicaset), (record.uuid, record.replicaset));
    assert_eq!(members(&asked), before - 1, "rows may be gone with the log");
    // The request comes once more.
    asked.ok(renumber(2, record.raft_id));
    assert_eq!(asked.0.topology.instances[&"i2".into()].raft_id, 4);
    asked.ok(renumber(1, 1));
    let i1 = &asked.0.topology.instances[&"i1".into()];
    assert_eq!((i1.raft_id, i1.state), (5, InstanceState::Offline));
    assert_eq!(members(&asked), before - 2, "a master's may be gone too, while others have what was acknowledged");
    assert_eq!(asked.0.topology.replicasets[&"default_1".into()].master, None);
    assert_eq!(asked.error(renumber(9, 1)).0, Code::NameTaken, "nobody knows it");
    asked.ok(renumber(3, 3));
    assert_eq!(members(&asked), 1, "the last one that has everything stays");
}

#[test]
fn who_may_have_lost_the_end_of_its_log_is_not_counted_on_while_others_have_everything() {
    let mut asked = trio();
    let restart = |n: u8, lost_power| {
        let instance = Newcomer { lost_power, ..newcomer(n, 0, "b") };
        Op::Join { instance, tier: "default".into(), replaces: None }
    };
    let replicaset = |asked: &Asked| asked.0.topology.replicasets[&"default_1".into()].clone();
    asked.ok(restart(2, false));
    assert_eq!(replicaset(&asked).in_sync.len(), 3);
    asked.ok(restart(2, true));
    assert_eq!(replicaset(&asked).in_sync, ["i1", "i3"].map(InstanceName::from).into());
    assert_eq!(replicaset(&asked).master_term, 1, "it was not the master");
    asked.ok(restart(1, true));
    assert_eq!(replicaset(&asked).in_sync, ["i3"].map(InstanceName::from).into());
    assert_eq!((replicaset(&asked).master, replicaset(&asked).master_term), (None, 2));
    asked.ok(restart(3, true));
    assert_eq!(replicaset(&asked).in_sync.len(), 1, "nobody has more than the last one");
}

#[test]
fn a_master_that_begins_another_life_begins_a_term_whose_cut_holds_for_its_own_rows() {
    let mut asked = trio();
    let only = asked.count_in(["i1"]);
    asked.ok(only);
    asked.ok(Op::Join { instance: newcomer(1, 0, "a"), tier: "default".into(), replaces: None });
    let replicaset = |asked: &Asked| asked.0.topology.replicasets[&"default_1".into()].clone();
    assert_eq!((replicaset(&asked).master, replicaset(&asked).master_term), (None, 2));
    asked.set_master(2, Some("i1"), kept(1, 7)).into_result().unwrap();
    let clock = |rows| [(1, rows)].into_iter().collect();
    assert_eq!(replicaset(&asked).history.stray(1, &clock(7)), None);
    assert!(replicaset(&asked).history.stray(1, &clock(8)).is_some(), "it will write another eighth row");
    assert_eq!(replicaset(&asked).history.stray(2, &clock(8)), None, "who follows it has that one");
    let mut alone = Asked::new(1);
    alone.ok(Op::Join { instance: newcomer(1, 0, "a"), tier: "default".into(), replaces: None });
    assert_eq!(alone.0.topology.replicasets[&"default_1".into()].master, Some("i1".into()), "there is nobody to hear");
}

#[test]
fn a_master_hands_over_to_a_member_that_can_take_over() {
    let mut asked = trio();
    let hand_over = |to: &str| Op::HandOver { replicaset: "default_1".into(), to: to.into() };
    asked.ok(hand_over("i2"));
    let heir = |asked: &Asked| asked.0.topology.replicasets[&"default_1".into()].heir.clone();
    assert_eq!(heir(&asked), Some("i2".into()));
    assert_eq!(asked.error(hand_over("i9")).0, Code::NoSuchInstance);
    let without = asked.count_in(["i1", "i3"]);
    asked.ok(without);
    assert_eq!(heir(&asked), None, "who is not in sync can not take over");
    assert_eq!(asked.error(hand_over("i2")).0, Code::Conflict);
    asked.ok(hand_over("i3"));
    asked.set_master(2, None, None).into_result().unwrap();
    assert_eq!(heir(&asked), Some("i3".into()));
    asked.set_master(2, Some("i1"), kept(1, 7)).into_result().unwrap();
    assert_eq!(heir(&asked), None);
}
