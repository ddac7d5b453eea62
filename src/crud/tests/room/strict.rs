//! Definitions that ask for more than box does: CHECK, NOT NULL that came later, columns that came later; and operations
//! that stand or fall together.

use crate::memory::{
    MemoryStore, Spaces, TwoTables, USERS, colors, guard, int, pack, show, text, user, user_key, users,
};
use crud::Layout;
use crud::batch::Batch;
use crud::wire::{Answer, Verb, read_answer, write_op_head, write_transaction_head};
use model::msgpack::Reader;
use model::program::{Comparison, Step};
use model::{Check, Code, Column, ColumnType, Program, Table, Value};
use std::cell::RefCell;
use std::sync::Arc;

/// `users` with a CHECK (age > 0) and a column `city` that came later, with a default.
fn strict() -> TwoTables {
    let mut table = (*users().table).clone();
    let steps = vec![Step::Column(2), Step::Constant(int(0)), Step::Compare(Comparison::Greater)];
    table.checks.push(Check { name: "grown".into(), program: Program { text: "age > 0".into(), steps } });
    let mut city = Column::new("city", ColumnType::Text, false);
    (city.default, city.added, city.loose) = (Some(text("rome")), Some(text("rome")), true);
    table.columns.push(city);
    TwoTables(Layout::new(Arc::new(table)), colors())
}

struct World {
    tables: TwoTables,
    spaces: RefCell<Spaces>,
}

impl World {
    fn new() -> Self {
        Self { tables: strict(), spaces: RefCell::default() }
    }

    fn run(&self, operation: &[u8]) -> Result<Vec<u8>, Code> {
        let guard = guard();
        let batch = Batch::new(MemoryStore::new(&self.spaces, &self.tables), &self.tables, &guard);
        let answers = batch.run(&[operation]);
        match read_answer(&mut Reader::new(answers.get(0))).unwrap() {
            Answer::Done(done) => Ok(done.first.unwrap_or_default().to_vec()),
            Answer::Refused(error, _) => Err(error.code),
        }
    }

    /// What was stored before the column came.
    fn put(&self, tuple: Vec<u8>) {
        self.spaces.borrow_mut().tuples.entry(USERS).or_default().push(tuple);
    }

    fn stored(&self) -> Vec<String> {
        self.spaces.borrow().tuples.get(&USERS).into_iter().flatten().map(|tuple| show(tuple)).collect()
    }
}

fn op(verb: Verb, elements: &[&[u8]]) -> Vec<u8> {
    op_of(&strict().0.table, verb, elements)
}

fn op_of(table: &Table, verb: Verb, elements: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    write_op_head(&mut out, verb, 0, table, elements.len());
    elements.iter().for_each(|element| out.extend_from_slice(element));
    out
}

/// `[[operator, field, value]]`, fields counted from 1 with the bucket first.
fn operations(operator: &str, field: i64, value: Value) -> Vec<u8> {
    let mut out = vec![0x91];
    out.extend(pack(&[text(operator), int(field), value]));
    out
}

fn transaction(operations: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    write_transaction_head(&mut out, operations.len());
    operations.iter().for_each(|operation| out.extend_from_slice(operation));
    out
}

#[test]
fn a_row_that_was_sent_without_the_last_column_is_stored_with_it() {
    let world = World::new();
    world.run(&op(Verb::Insert, &[&user(1, "ann", int(3))])).unwrap();
    world.run(&op(Verb::Upsert, &[&user(2, "bob", int(4)), &user_key(2), &[0x90]])).unwrap();
    assert_eq!(world.stored(), ["1 'ann' 3 'rome'", "2 'bob' 4 'rome'"]);
}

#[test]
fn an_older_row_is_read_with_the_default_and_completed_by_an_update() {
    let world = World::new();
    let older = user(1, "ann", int(3));
    assert_eq!(world.tables.0.values_of_stored(&older).unwrap()[3], text("rome"));
    world.put(older);
    world.run(&op(Verb::Update, &[&user_key(1), &operations("=", 5, text("oslo"))])).unwrap();
    assert_eq!(world.stored(), ["1 'ann' 3 'oslo'"]);
}

#[test]
fn no_way_leads_past_a_check() {
    let world = World::new();
    world.put(user(1, "ann", int(3)));
    let bad = user(2, "bob", int(-1));
    let expected = pack(&[]);
    let mut changes = vec![0x91, 0x94, Verb::Update as u8];
    changes.extend(user_key(1));
    changes.extend(&expected);
    changes.extend(operations("=", 4, int(-1)));
    for operation in [
        op(Verb::Insert, &[&bad]),
        op(Verb::Replace, &[&bad]),
        op(Verb::InsertOrSkip, &[&bad]),
        op(Verb::Upsert, &[&bad, &user_key(2), &[0x90]]),
        op(Verb::Update, &[&user_key(1), &operations("+", 4, int(-3))]),
        op(Verb::Changes, &[&changes]),
    ] {
        assert_eq!(world.run(&operation), Err(Code::CheckViolation), "{operation:?}");
    }
    assert_eq!(
        world.run(&op(Verb::Update, &[&user_key(1), &operations("=", 5, Value::Null)])),
        Err(Code::NullViolation)
    );
    assert_eq!(world.stored().len(), 1);
    // Unknown is not false.
    world.run(&op(Verb::Insert, &[&user(3, "cid", Value::Null)])).unwrap();
}

#[test]
fn a_write_for_a_later_definition_waits_until_it_is_here() {
    let world = World::new();
    world.put(user(1, "ann", int(3)));
    // A router that knows that the constraint was dropped, and the column with it.
    let mut later = Table::clone(&world.tables.0.table);
    later.version += 1;
    later.checks.clear();
    let row = pack(&[int(1), int(2), text("bob"), int(-1), Value::Null]);
    let insert = op_of(&later, Verb::Insert, &[&row]);
    for operation in [
        insert.clone(),
        transaction(&[insert]),
        op_of(&later, Verb::Update, &[&user_key(1), &operations("=", 4, int(-1))]),
        op_of(&later, Verb::Changes, &[&[0x90]]),
        op_of(&later, Verb::Delete, &[&user_key(1)]),
    ] {
        assert_eq!(world.run(&operation), Err(Code::SchemaChanged), "{operation:?}");
    }
    assert_eq!(world.stored(), ["1 'ann' 3"]);
    // What is read is what is there; and an older definition is no hindrance.
    assert!(world.run(&op_of(&later, Verb::Get, &[&user_key(1)])).is_ok());
    let earlier = Table { version: 0, ..later };
    world.run(&op_of(&earlier, Verb::Replace, &[&user(2, "bob", int(1))])).unwrap();
}

#[test]
fn operations_of_a_transaction_see_one_another_and_fall_together() {
    let world = World::new();
    let (insert, get) = (op(Verb::Insert, &[&user(1, "ann", int(3))]), op(Verb::Get, &[&user_key(1)]));
    let update = op(Verb::Update, &[&user_key(1), &operations("+", 4, int(1))]);
    let answer = world.run(&transaction(&[get.clone(), insert, update.clone(), get.clone()])).unwrap();
    let mut answers = Reader::new(&answer);
    assert_eq!(answers.array_len().unwrap(), 4);
    let lens: Vec<usize> = (0..4).map(|_| Reader::new(answers.raw().unwrap()).array_len().unwrap()).collect();
    assert_eq!(lens, [0, 0, 1, 1], "the row is there for those behind the insert");
    let fall = op(Verb::Update, &[&user_key(1), &operations("+", 4, int(-9))]);
    assert_eq!(world.run(&transaction(&[update.clone(), fall])), Err(Code::CheckViolation));
    let inner = transaction(std::slice::from_ref(&get));
    assert_eq!(world.run(&transaction(&[update, inner])), Err(Code::Internal));
    assert_eq!(world.stored(), ["1 'ann' 4 'rome'"]);
}
