//! A batch is one transaction in which each operation stands or falls alone.

use crate::memory::{
    COLORS, MemoryStore, Spaces, TwoTables, USERS, colors, guard, int, pack, show, tables, text, user, user_key, users,
};
use crud::batch::Batch;
use crud::update::translate;
use crud::wire::{Answer, FLAG_CHECK, FLAG_NO_RETURN, Mode, Verb, read_answer, read_done_rows, write_op_head};
use crud::{BucketGuard, BucketState, Layout};
use model::msgpack::{self, Reader};
use model::{Durability, Table};
use sharding::BucketRange;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

struct World {
    tables: TwoTables,
    guard: RefCell<BucketGuard>,
    spaces: RefCell<Spaces>,
}

impl World {
    fn new() -> Self {
        Self { tables: tables(), guard: guard(), spaces: RefCell::default() }
    }

    /// Runs operations as one batch and shows what each answered.
    fn run(&self, operations: &[Vec<u8>]) -> Vec<String> {
        self.run_on(MemoryStore::new(&self.spaces, &self.tables), operations)
    }

    fn run_on(&self, store: MemoryStore<'_>, operations: &[Vec<u8>]) -> Vec<String> {
        let operations: Vec<&[u8]> = operations.iter().map(Vec::as_slice).collect();
        let answers = Batch::new(store, &self.tables, &self.guard).run(&operations);
        assert_eq!(self.guard.borrow().writes_in_flight(BucketRange::new(1, 30)), 0);
        (0..operations.len()).map(|at| describe(answers.get(at))).collect()
    }

    fn users(&self) -> Vec<String> {
        let mut users: Vec<String> =
            self.spaces.borrow().tuples.get(&USERS).into_iter().flatten().map(|tuple| show(tuple)).collect();
        users.sort();
        users
    }
}

fn describe(answer: &[u8]) -> String {
    match read_answer(&mut Reader::new(answer)).unwrap() {
        Answer::Refused(error, version) => format!("{}@{version}", error.code.name()),
        Answer::Done(done) => match (done.first, done.second) {
            (None, _) => "done".into(),
            (Some(first), None) if matches!(first[0], 0x90..=0x9f) => show(first),
            (Some(first), None) => format!("count {}", Reader::new(first).uint().unwrap()),
            (Some(_), Some(_)) => {
                let (count, failures) = read_done_rows(done).unwrap();
                let failures: Vec<String> = failures
                    .iter()
                    .map(|failure| format!("{}: {}", failure.position, failure.error.code.name()))
                    .collect();
                format!("count {count} [{}]", failures.join(", "))
            }
        },
    }
}

fn op(verb: Verb, flags: u8, elements: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    write_op_head(&mut out, verb, flags, &users().table, elements.len());
    elements.iter().for_each(|element| out.extend_from_slice(element));
    out
}

fn add_to_age(amount: i64) -> Vec<u8> {
    let mut sent = vec![0x91];
    sent.extend(pack(&[text("+"), text("age"), int(amount)]));
    let mut out = Vec::new();
    assert!(translate(&tables().0, &mut Reader::new(&sent), &mut out).unwrap());
    out
}

fn rows(verb: Verb, mode: Mode, tuples: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Vec::new();
    msgpack::write_array_len(&mut list, tuples.len());
    list.extend(tuples.concat());
    op(Verb::Rows, 0, &[&[verb as u8], &[mode as u8], &list])
}

fn ann() -> Vec<u8> {
    user(1, "ann", int(30))
}

fn bob() -> Vec<u8> {
    user(2, "bob", int(40))
}

#[test]
fn operations_see_each_other_in_order() {
    let world = World::new();
    let answers = world.run(&[
        op(Verb::Get, 0, &[&user_key(1)]),
        op(Verb::Insert, 0, &[&ann()]),
        op(Verb::Get, 0, &[&user_key(1)]),
        op(Verb::Insert, 0, &[&ann()]),
        op(Verb::Replace, 0, &[&user(1, "anna", int(31))]),
        op(Verb::Update, FLAG_CHECK, &[&user_key(1), &add_to_age(1)]),
        op(Verb::Update, FLAG_CHECK, &[&user_key(9), &add_to_age(1)]),
        op(Verb::InsertOrSkip, 0, &[&bob()]),
        op(Verb::InsertOrSkip, 0, &[&bob()]),
        op(Verb::Delete, 0, &[&user_key(2)]),
        op(Verb::Delete, FLAG_NO_RETURN, &[&user_key(2)]),
    ]);
    let expected = [
        "done",
        "done",
        "1 'ann' 30",
        "DUPLICATE_KEY@7",
        "done",
        "1 'anna' 32",
        "done",
        "count 1",
        "count 0",
        "2 'bob' 40",
        "done",
    ];
    assert_eq!(answers, expected);
    assert_eq!(world.users(), ["1 'anna' 32"]);
}

#[test]
fn an_update_that_leaves_its_type_changes_nothing() {
    let world = World::new();
    let answers = world.run(&[
        op(Verb::Insert, 0, &[&ann()]),
        op(Verb::Update, FLAG_CHECK, &[&user_key(1), &add_to_age(40_000)]),
        op(Verb::Upsert, FLAG_CHECK, &[&ann(), &user_key(1), &add_to_age(40_000)]),
        op(Verb::Upsert, FLAG_CHECK, &[&ann(), &user_key(1), &add_to_age(1)]),
        op(Verb::Upsert, FLAG_CHECK, &[&bob(), &user_key(2), &add_to_age(1)]),
    ]);
    assert_eq!(answers, ["done", "VALUE_OUT_OF_RANGE@7", "VALUE_OUT_OF_RANGE@7", "done", "done"]);
    assert_eq!(world.users(), ["1 'ann' 31", "2 'bob' 40"]);
}

#[test]
fn many_rows_fail_one_by_one_or_as_their_mode_says() {
    let tuples = [ann(), ann(), bob()];
    for (mode, answer, left) in [
        (Mode::Each, "count 2 [1: DUPLICATE_KEY]", vec!["1 'ann' 30", "2 'bob' 40"]),
        (Mode::Stop, "count 1 [1: DUPLICATE_KEY]", vec!["1 'ann' 30"]),
        (Mode::Atomic, "count 0 [1: DUPLICATE_KEY]", vec![]),
    ] {
        let world = World::new();
        assert_eq!(world.run(&[rows(Verb::Insert, mode, &tuples)]), [answer]);
        assert_eq!(world.users(), left, "{mode:?}");
    }
    assert_eq!(World::new().run(&[rows(Verb::Replace, Mode::Each, &tuples)]), ["count 3 []"]);
}

#[test]
fn a_statement_changes_all_its_rows_or_none() {
    let world = World::new();
    world.run(&[op(Verb::Insert, 0, &[&ann()]), op(Verb::Insert, 0, &[&bob()])]);
    let change = |verb: Verb, key: Vec<u8>, age: i64, operations: Vec<u8>| {
        let expected = pack(&[int(3), int(age)]);
        [vec![0x94, verb as u8], key, expected, operations].concat()
    };
    let statement = |changes: &[Vec<u8>]| {
        let mut list = vec![0x90 | changes.len() as u8];
        list.extend(changes.concat());
        op(Verb::Changes, 0, &[&list])
    };
    let update_ann = |age| change(Verb::Update, user_key(1), age, add_to_age(1));
    let delete_bob = change(Verb::Delete, user_key(2), 40, vec![0xc0]);
    assert_eq!(world.run(&[statement(&[delete_bob.clone(), update_ann(29)])]), ["CONFLICT@7"]);
    assert_eq!(world.users(), ["1 'ann' 30", "2 'bob' 40"]);
    assert_eq!(world.run(&[statement(&[delete_bob.clone(), update_ann(30)])]), ["count 2"]);
    assert_eq!(world.users(), ["1 'ann' 31"]);
    assert_eq!(world.run(&[statement(&[delete_bob])]), ["CONFLICT@7"]);
}

#[test]
fn a_failed_commit_fails_every_operation() {
    let world = World::new();
    let store = MemoryStore { fail_commit: true, ..MemoryStore::new(&world.spaces, &world.tables) };
    let answers = world.run_on(store, &[op(Verb::Insert, 0, &[&ann()]), op(Verb::Get, 0, &[&user_key(1)])]);
    assert_eq!(answers, ["STORAGE@7", "STORAGE@7"]);
    assert_eq!(world.users(), Vec::<String>::new());
}

#[test]
fn buckets_that_are_elsewhere_are_refused_with_the_version() {
    let world = World::new();
    world.run(&[op(Verb::Insert, 0, &[&ann()])]);
    world.guard.borrow_mut().set_state(BucketRange::new(1, 30), BucketState::ReadOnly);
    let both =
        [op(Verb::Get, 0, &[&user_key(1)]), op(Verb::Replace, 0, &[&ann()]), rows(Verb::Replace, Mode::Each, &[ann()])];
    assert_eq!(world.run(&both), ["1 'ann' 30", "BUCKET_LOCKED@7", "count 0 [0: BUCKET_LOCKED]"]);
    world.guard.borrow_mut().set_state(BucketRange::new(1, 30), BucketState::Foreign);
    world.guard.borrow_mut().set_version(8, 30, true);
    assert_eq!(world.run(&both), ["WRONG_BUCKET@8", "WRONG_BUCKET@8", "count 0 [0: WRONG_BUCKET]"]);
}

#[test]
fn global_tables_have_no_buckets_and_unknown_ones_no_rows() {
    let world = World::new();
    let mut insert = Vec::new();
    write_op_head(&mut insert, Verb::Insert, 0, &colors().table, 1);
    insert.extend(pack(&[text("r"), model::Value::Null]));
    let mut unknown = Vec::new();
    write_op_head(&mut unknown, Verb::Get, 0, &Table { id: 999, ..Table::clone(&users().table) }, 1);
    unknown.extend(user_key(1));
    assert_eq!(
        world.run(&[insert, unknown, vec![0x91], vec![]]),
        ["done", "SCHEMA_CHANGED@7", "ARGUMENT@7", "ARGUMENT@7"]
    );
}

#[test]
fn a_read_of_what_may_be_lost_yet_waits_alone() {
    let world = World::new();
    world.run(&[op(Verb::Insert, 0, &[&ann()])]);
    let get = op(Verb::Get, 0, &[&user_key(1)]);
    let bucket = crud::row::bucket_of_stored(&user_key(1)).unwrap();
    world.guard.borrow_mut().begin_write(bucket).unwrap();
    let store = || MemoryStore::new(&world.spaces, &world.tables);
    let answers = Batch::new(store(), &world.tables, &world.guard).run(&[&get[..]]);
    assert_eq!(answers.deferred, [(0, get.clone())]);
    let alone = |store| {
        let mut answer = Vec::new();
        Batch::new(store, &world.tables, &world.guard).run_alone(&get, &mut answer);
        describe(&answer)
    };
    world.guard.borrow_mut().end_in_doubt(bucket);
    assert_eq!(alone(MemoryStore { fail_settle: true, ..store() }), "TIMEOUT@7");
    assert_eq!(alone(store()), "1 'ann' 30");
    // From then on nobody has to wait.
    let answers = Batch::new(store(), &world.tables, &world.guard).run(&[&get[..]]);
    assert_eq!((answers.deferred.len(), describe(answers.get(0))), (0, "1 'ann' 30".into()));
}

#[test]
fn a_transaction_waits_for_the_table_that_asks_for_most() {
    let local = || Table { id: COLORS, durability: Durability::Local, ..Table::clone(&users().table) };
    let note = || {
        let mut bytes = Vec::new();
        write_op_head(&mut bytes, Verb::Replace, 0, &local(), 1);
        bytes.extend(ann());
        bytes
    };
    let tables = TwoTables(users(), Layout::new(Arc::new(local())));
    let world = World { tables, ..World::new() };
    let insert = || op(Verb::Replace, 0, &[&ann()]);
    let get = op(Verb::Get, 0, &[&user_key(1)]);
    let waited = |operations: &[Vec<u8>]| {
        let store = MemoryStore::new(&world.spaces, &world.tables);
        let committed = Rc::clone(&store.committed);
        world.run_on(store, operations);
        committed.get()
    };
    assert_eq!(waited(&[note()]), Some(Durability::Local));
    assert_eq!(waited(&[note(), insert(), note()]), Some(Durability::Replicated));
    assert_eq!(waited(&[get]), None);
    let too_few = MemoryStore { too_few: true, ..MemoryStore::new(&world.spaces, &world.tables) };
    assert_eq!(
        world.run_on(too_few, &[insert(), note(), insert()]),
        ["TOO_FEW_IN_SYNC@7", "done", "TOO_FEW_IN_SYNC@7"]
    );
    // A master that is none any more refuses, and keeps nobody waiting for members that it has no more.
    world.guard.borrow_mut().set_version(8, 30, false);
    assert_eq!(waited(&[insert()]), Some(Durability::Local));
}
