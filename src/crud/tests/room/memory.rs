//! Box in memory: spaces are lists of tuples, an index is a sort, a transaction is a copy.

use crud::batch::{Store, Tables};
use crud::compare::{TupleOrder, compare, field_of};
use crud::scan::{Direction, Walk};
use crud::selection::index_columns;
use crud::{BucketGuard, BucketState, Layout, RowWriter};
use model::msgpack::{self, Reader};
use model::{
    Code, Column, ColumnType, Distribution, Durability, Engine, Error, Index, Result, Table, TableId, TableState, Value,
};
use sharding::BucketRange;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

pub const BUCKETS: u32 = 30;
/// `users(id, name, age)`, sharded by id, indexed by age.
pub const USERS: TableId = 600;
/// `colors(code, name)`, global.
pub const COLORS: TableId = 601;

pub fn column(name: &str, ty: ColumnType, nullable: bool) -> Column {
    Column::new(name, ty, nullable)
}

pub fn users() -> Layout {
    let mut users = table(vec![
        column("id", ColumnType::BigInt, false),
        column("name", ColumnType::Varchar { length: 8 }, true),
        column("age", ColumnType::SmallInt, true),
    ]);
    users.indexes.push(Index { id: 1, name: "by_age".into(), columns: vec![2], unique: false });
    Layout::new(Arc::new(users))
}

pub fn colors() -> Layout {
    Layout::new(Arc::new(Table {
        id: COLORS,
        name: "colors".into(),
        version: 1,
        engine: Engine::Memtx,
        distribution: Distribution::Global,
        columns: vec![column("code", ColumnType::Text, false), column("name", ColumnType::Text, true)],
        primary_key: vec![0],
        indexes: vec![],
        state: TableState::Operable,
        checks: vec![],
        durability: Durability::Replicated,
    }))
}

/// A sharded table of these columns, with the first one as its key.
pub fn table(columns: Vec<Column>) -> Table {
    Table {
        id: USERS,
        name: "users".into(),
        version: 1,
        engine: Engine::Memtx,
        distribution: Distribution::Sharded { key: vec![0], tier: "default".into() },
        columns,
        primary_key: vec![0],
        indexes: vec![],
        state: TableState::Operable,
        checks: vec![],
        durability: Durability::Replicated,
    }
}

pub struct TwoTables(pub Layout, pub Layout);

impl Tables for TwoTables {
    fn layout(&self, id: TableId) -> Option<&Layout> {
        [&self.0, &self.1].into_iter().find(|layout| layout.table.id == id)
    }
}

pub fn tables() -> TwoTables {
    TwoTables(users(), colors())
}

/// MessagePack of an array of integers, nulls and texts.
pub fn pack(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::write_array_len(&mut out, values.len());
    values.iter().for_each(|value| value.write_stored(&mut out));
    out
}

pub fn int(i: i64) -> Value {
    Value::Integer(i)
}

pub fn text(s: &str) -> Value {
    Value::Text(s.into())
}

pub fn user(id: i64, name: &str, age: Value) -> Vec<u8> {
    let layout = users();
    let mut tuple = Vec::new();
    RowWriter::new(&layout, BUCKETS).row(&mut Reader::new(&pack(&[int(id), text(name), age])), &mut tuple).unwrap();
    tuple
}

pub fn user_key(id: i64) -> Vec<u8> {
    let layout = users();
    let mut key = Vec::new();
    RowWriter::new(&layout, BUCKETS).key(&mut Reader::new(&pack(&[int(id)])), &mut key).unwrap();
    key
}

/// A guard of an instance that owns all buckets and has been their master for a while.
pub fn guard() -> RefCell<BucketGuard> {
    let mut guard = BucketGuard::new("i1");
    let tenure = guard.set_version(7, BUCKETS, true).unwrap();
    guard.inherited(tenure);
    guard.set_state(BucketRange::new(1, BUCKETS), BucketState::Active);
    RefCell::new(guard)
}

/// The tuple without the bucket, as text.
pub fn show(tuple: &[u8]) -> String {
    let mut reader = Reader::new(tuple);
    let len = reader.array_len().unwrap();
    reader.skip().unwrap();
    (1..len).map(|_| reader.value().unwrap().to_string()).collect::<Vec<_>>().join(" ")
}

#[derive(Default, Clone)]
pub struct Spaces {
    pub tuples: BTreeMap<TableId, Vec<Vec<u8>>>,
}

/// The store that a batch runs on.
pub struct MemoryStore<'a> {
    pub spaces: &'a RefCell<Spaces>,
    pub tables: &'a TwoTables,
    pub before: Option<Spaces>,
    pub fail_commit: bool,
    pub fail_settle: bool,
    /// Too few members are in sync for writes that all of them have to have.
    pub too_few: bool,
    /// What the last commit waited for.
    pub committed: Rc<Cell<Option<Durability>>>,
}

impl<'a> MemoryStore<'a> {
    pub fn new(spaces: &'a RefCell<Spaces>, tables: &'a TwoTables) -> Self {
        Self {
            spaces,
            tables,
            before: None,
            fail_commit: false,
            fail_settle: false,
            too_few: false,
            committed: Rc::default(),
        }
    }

    /// Whether the tuple has this key of the primary index.
    fn has_key(&self, space: TableId, tuple: &[u8], key: &[u8]) -> bool {
        let layout = self.tables.layout(space).unwrap();
        let offset = layout.table.stored_offset();
        let mut parts = Reader::new(key);
        let len = parts.array_len().unwrap();
        (0..len).all(|at| {
            let part = parts.raw().unwrap();
            if at < offset {
                return Reader::new(field_of(tuple, 0).unwrap()).int() == Reader::new(part).int();
            }
            let column = layout.table.primary_key[at - offset];
            compare(layout.cells[column].ty, field_of(tuple, column + offset).unwrap(), part).is_eq()
        })
    }

    fn key_of(&self, space: TableId, tuple: &[u8]) -> Vec<u8> {
        let layout = self.tables.layout(space).unwrap();
        let offset = layout.table.stored_offset();
        let fields: Vec<usize> =
            (0..offset).chain(layout.table.primary_key.iter().map(|column| column + offset)).collect();
        let mut key = Vec::new();
        msgpack::write_array_len(&mut key, fields.len());
        fields.iter().for_each(|field| key.extend_from_slice(field_of(tuple, *field).unwrap()));
        key
    }

    fn position(&self, space: TableId, key: &[u8]) -> Option<usize> {
        let spaces = self.spaces.borrow();
        spaces.tuples.get(&space)?.iter().position(|tuple| self.has_key(space, tuple, key))
    }
}

impl Store for MemoryStore<'_> {
    type Savepoint = Spaces;

    fn begin(&mut self) -> Result<()> {
        assert!(self.before.replace(self.spaces.borrow().clone()).is_none(), "a transaction in a transaction");
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        if self.fail_settle { Err(Error::new(Code::Timeout, "not yet")) } else { Ok(()) }
    }

    fn check_members(&mut self) -> Result<()> {
        if self.too_few { Err(Error::new(Code::TooFewInSync, "nobody is in sync")) } else { Ok(()) }
    }

    fn commit(&mut self, durability: Durability) -> Result<()> {
        self.committed.set(Some(durability));
        let before = self.before.take().expect("a commit without a transaction");
        if self.fail_commit {
            *self.spaces.borrow_mut() = before;
            return Err(Error::new(Code::Storage, "the disk is full"));
        }
        Ok(())
    }

    fn rollback(&mut self) {
        *self.spaces.borrow_mut() = self.before.take().expect("a rollback without a transaction");
    }

    fn savepoint(&mut self) -> Result<Spaces> {
        Ok(self.spaces.borrow().clone())
    }

    fn rollback_to(&mut self, savepoint: Spaces) -> Result<()> {
        *self.spaces.borrow_mut() = savepoint;
        Ok(())
    }

    fn get(&mut self, space: TableId, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let position = self.position(space, key);
        if let Some(at) = position {
            out.extend_from_slice(&self.spaces.borrow().tuples[&space][at]);
        }
        Ok(position.is_some())
    }

    fn insert(&mut self, space: TableId, tuple: &[u8]) -> Result<()> {
        if self.position(space, &self.key_of(space, tuple)).is_some() {
            return Err(Error::new(Code::DuplicateKey, "a row with this key is there"));
        }
        self.replace(space, tuple)
    }

    fn replace(&mut self, space: TableId, tuple: &[u8]) -> Result<()> {
        self.delete(space, &self.key_of(space, tuple), None)?;
        self.spaces.borrow_mut().tuples.entry(space).or_default().push(tuple.to_vec());
        Ok(())
    }

    fn delete(&mut self, space: TableId, key: &[u8], out: Option<&mut Vec<u8>>) -> Result<bool> {
        let Some(at) = self.position(space, key) else { return Ok(false) };
        let old = self.spaces.borrow_mut().tuples.get_mut(&space).unwrap().remove(at);
        if let Some(out) = out {
            out.extend(old);
        }
        Ok(true)
    }

    /// Knows '=' and '+' on integers, with fields counted from 1.
    fn update(&mut self, space: TableId, key: &[u8], operations: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let Some(at) = self.position(space, key) else { return Ok(false) };
        let tuple = self.spaces.borrow().tuples[&space][at].clone();
        let mut fields = Reader::new(&tuple);
        let len = fields.array_len().unwrap();
        let mut fields: Vec<Vec<u8>> = (0..len).map(|_| fields.raw().unwrap().to_vec()).collect();
        let mut operations = Reader::new(operations);
        for _ in 0..operations.array_len()? {
            operations.array_len()?;
            let operator = operations.str()?;
            let field = &mut fields[operations.uint()? as usize - 1];
            let argument = operations.raw()?;
            if operator == "=" {
                *field = argument.to_vec();
            } else {
                let sum = Reader::new(field).int()? + Reader::new(argument).int()?;
                field.clear();
                msgpack::write_int(field, sum);
            }
        }
        let mut new = Vec::new();
        msgpack::write_array_len(&mut new, fields.len());
        new.extend(fields.concat());
        out.extend_from_slice(&new);
        self.spaces.borrow_mut().tuples.get_mut(&space).unwrap()[at] = new;
        Ok(true)
    }
}

/// Walks the tuples of one index.
pub struct MemoryWalk<'a> {
    layout: &'a Layout,
    fields: Vec<(usize, ColumnType)>,
    sorted: Vec<Vec<u8>>,
    rest: std::vec::IntoIter<Vec<u8>>,
    /// How often `seek` and `next_into` were called.
    pub steps: usize,
}

impl<'a> MemoryWalk<'a> {
    pub fn new(layout: &'a Layout, index: u32, tuples: &[Vec<u8>]) -> Self {
        let offset = layout.table.stored_offset();
        let columns = index_columns(layout, index).unwrap();
        let mut fields: Vec<(usize, ColumnType)> = Vec::new();
        let bucket = (0, ColumnType::BigInt);
        let field = |column: &usize| (column + offset, layout.cells[*column].ty);
        if layout.is_sharded() && index == 0 {
            fields.push(bucket);
        }
        fields.extend(columns.iter().map(field));
        if index != 0 {
            fields.extend(layout.is_sharded().then_some(bucket));
            fields.extend(layout.table.primary_key.iter().map(field));
        }
        let order = TupleOrder { fields: fields.clone(), descending: false };
        let mut sorted = tuples.to_vec();
        sorted.sort_by(|a, b| order.compare(a, b));
        Self { layout, fields, sorted, rest: Vec::new().into_iter(), steps: 0 }
    }
}

impl Walk for MemoryWalk<'_> {
    fn seek(&mut self, direction: Direction, parts: usize, key: &[u8]) -> Result<()> {
        self.steps += 1;
        let mut reader = Reader::new(key);
        let key: Vec<&[u8]> = (0..parts).map(|_| reader.raw().unwrap()).collect();
        assert!(reader.is_empty() && parts <= self.layout.width() + 1);
        let ordering = |tuple: &[u8]| {
            let parts = key.iter().zip(&self.fields);
            parts
                .map(|(part, (field, ty))| compare(*ty, field_of(tuple, *field).unwrap(), part))
                .find(|ordering| ordering.is_ne())
                .unwrap_or(std::cmp::Ordering::Equal)
        };
        let mut tuples: Vec<Vec<u8>> = self.sorted.clone();
        match direction {
            Direction::GreaterOrEqual => tuples.retain(|tuple| ordering(tuple).is_ge()),
            Direction::Greater => tuples.retain(|tuple| ordering(tuple).is_gt()),
            Direction::LessOrEqual => tuples.retain(|tuple| ordering(tuple).is_le()),
            Direction::Less => tuples.retain(|tuple| ordering(tuple).is_lt()),
        }
        if matches!(direction, Direction::Less | Direction::LessOrEqual) {
            tuples.reverse();
        }
        self.rest = tuples.into_iter();
        Ok(())
    }

    fn next_into(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        self.steps += 1;
        let tuple = self.rest.next();
        let is_there = tuple.is_some();
        out.extend(tuple.into_iter().flatten());
        Ok(is_there)
    }

    fn pause(&mut self) -> Result<()> {
        Ok(())
    }
}
