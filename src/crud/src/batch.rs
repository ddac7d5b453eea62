//! Runs the operations of one call on a store, as one transaction, and answers each.
//!
//! A failing operation is undone alone: the host undoes a failing statement itself, and operations of several
//! statements are undone to a savepoint. If the commit fails, every operation of the batch failed. Tables of the vinyl
//! engine yield, which would end a memtx transaction, so their operations are left to the caller, one by one. So are reads
//! of buckets with rows that may be lost yet, because their answers have to wait until they can not.

use crate::compare::compare;
use crate::guard::BucketGuard;
use crate::layout::Layout;
use crate::row::{RowWriter, bucket_of_stored};
use crate::update::check_tuple;
use crate::wire::{self, FLAG_CHECK, FLAG_NO_RETURN, Failure, Mode, Op, Verb};
use model::msgpack::Reader;
use model::{BucketId, Code, Durability, Engine, Error, Result, TableId};
use std::borrow::Cow;
use std::cell::RefCell;

/// Rows in one many-row operation.
pub const ROWS_MAX: usize = 100_000;

/// What a batch needs of box. Spaces are named by table id; tuples and keys are whole MessagePack arrays.
pub trait Store {
    type Savepoint;

    fn begin(&mut self) -> Result<()>;
    /// Whether a write that the members in sync have to have may begin.
    ///
    /// Errors: `TooFewInSync`.
    fn check_members(&mut self) -> Result<()>;
    /// Waits until the changes are as durable as their tables are. On an error nothing was changed, unless the error is
    /// `Unknown`.
    fn commit(&mut self, durability: Durability) -> Result<()>;
    /// Waits until nothing that was read can be lost.
    ///
    /// Errors: `Timeout`.
    fn settle(&mut self) -> Result<()>;
    fn rollback(&mut self);
    fn savepoint(&mut self) -> Result<Self::Savepoint>;
    fn rollback_to(&mut self, savepoint: Self::Savepoint) -> Result<()>;

    /// Appends the tuple with this primary key, if there is one; answers whether.
    fn get(&mut self, space: TableId, key: &[u8], out: &mut Vec<u8>) -> Result<bool>;
    /// Errors: `DuplicateKey` and what the host refuses.
    fn insert(&mut self, space: TableId, tuple: &[u8]) -> Result<()>;
    fn replace(&mut self, space: TableId, tuple: &[u8]) -> Result<()>;
    /// Appends the old tuple, where the engine knows it, if `out` is given. Answers whether there was one.
    fn delete(&mut self, space: TableId, key: &[u8], out: Option<&mut Vec<u8>>) -> Result<bool>;
    /// Appends the new tuple, if there is a row with the key; answers whether.
    fn update(&mut self, space: TableId, key: &[u8], operations: &[u8], out: &mut Vec<u8>) -> Result<bool>;
}

/// The tables that exist on this instance.
pub trait Tables {
    fn layout(&self, id: TableId) -> Option<&Layout>;
}

/// Answers in the order of the operations: `ends[i]` is where answer i ends in `bytes`.
#[derive(Debug, Default)]
pub struct Answers {
    pub bytes: Vec<u8>,
    pub ends: Vec<usize>,
    /// Operations that have no answer yet, by number: their tables yield. Run each with `run_alone`. They are copies,
    /// because what a call passed in is gone after the commit.
    pub deferred: Vec<(usize, Vec<u8>)>,
}

impl Answers {
    pub fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }
}

/// Operations on their way through one transaction.
pub struct Batch<'a, S, T> {
    pub store: S,
    pub tables: &'a T,
    pub guard: &'a RefCell<BucketGuard>,
    /// Buckets counted as being written.
    writes: Vec<BucketId>,
    /// Buckets that were read while rows of them could be lost yet.
    unsettled: Vec<(BucketId, u32)>,
    /// The tenure in which it began.
    tenure: u64,
    scratch: Vec<u8>,
    in_transaction: bool,
    /// That of the table written to that asks for most.
    durability: Durability,
}

impl<'a, S: Store, T: Tables> Batch<'a, S, T> {
    pub fn new(store: S, tables: &'a T, guard: &'a RefCell<BucketGuard>) -> Self {
        Self {
            store,
            tables,
            guard,
            writes: Vec::new(),
            unsettled: Vec::new(),
            tenure: guard.borrow().tenure(),
            scratch: Vec::new(),
            in_transaction: false,
            durability: Durability::Local,
        }
    }

    /// Runs the operations, all that do not yield in one transaction.
    pub fn run(mut self, operations: &[&[u8]]) -> Answers {
        let mut answers = Answers { bytes: Vec::with_capacity(operations.len() * 16), ..Answers::default() };
        for (at, bytes) in operations.iter().enumerate() {
            let op = Op::read(&mut Reader::new(bytes));
            if op.as_ref().is_ok_and(|op| self.yields(op.table) || self.has_to_wait(op)) {
                answers.deferred.push((at, bytes.to_vec()));
            } else {
                self.run_answered(op, &mut answers.bytes);
            }
            answers.ends.push(answers.bytes.len());
        }
        if let Err(error) = self.finish() {
            self.refuse_all(&error, &mut answers);
        }
        answers
    }

    /// Runs one operation in a transaction of its own and appends its answer.
    pub fn run_alone(mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.run_answered(Op::read(&mut Reader::new(bytes)), out);
        if let Err(error) = self.finish() {
            out.truncate(start);
            wire::write_refused(out, &error, self.version());
        }
    }

    /// Applies changes to a global table inside the caller's transaction, all or none; `changes` is the payload of
    /// `Verb::Changes`. Answers how many rows changed.
    ///
    /// Errors: `Conflict`, `DuplicateKey`, and what the host says.
    pub fn apply_changes(mut self, layout: &Layout, changes: &[u8]) -> Result<u64> {
        self.in_transaction = true;
        self.atomically(|batch| batch.changes(layout, Reader::new(changes)))
    }

    fn yields(&self, table: TableId) -> bool {
        self.tables.layout(table).is_some_and(|layout| layout.table.engine == Engine::Vinyl)
    }

    /// Whether the operation reads a bucket with rows that may be lost yet.
    fn has_to_wait(&self, op: &Op<'_>) -> bool {
        if op.verb != Verb::Get || !self.tables.layout(op.table).is_some_and(Layout::is_replicated) {
            return false;
        }
        let key = op.payload.clone().raw();
        key.and_then(bucket_of_stored).is_ok_and(|bucket| self.unsettled(bucket).is_some())
    }

    /// The number of doubts about a bucket with rows, other than this batch's own, that may be lost yet.
    fn unsettled(&self, bucket: BucketId) -> Option<u32> {
        let own = || self.writes.iter().filter(|written| **written == bucket).count();
        self.guard.borrow().unsettled(bucket, own)
    }

    fn version(&self) -> u64 {
        self.guard.borrow().version()
    }

    /// Commits, and lets the buckets go.
    fn finish(&mut self) -> Result<()> {
        let mut result = if self.in_transaction { self.store.commit(self.durability) } else { Ok(()) };
        if result.is_ok() && !self.unsettled.is_empty() {
            result = self.store.settle();
        }
        let in_doubt = matches!(&result, Err(error) if error.code == Code::Unknown);
        let mut guard = self.guard.borrow_mut();
        for bucket in self.writes.drain(..) {
            if in_doubt { guard.end_in_doubt(bucket) } else { guard.end_write(bucket) }
        }
        if result.is_ok() && !self.unsettled.is_empty() {
            guard.settle(&self.unsettled);
            guard.inherited(self.tenure);
        }
        result
    }

    fn refuse_all(&self, error: &Error, answers: &mut Answers) {
        answers.bytes.clear();
        for (at, end) in answers.ends.iter_mut().enumerate() {
            if !answers.deferred.iter().any(|(deferred, _)| *deferred == at) {
                wire::write_refused(&mut answers.bytes, error, self.version());
            }
            *end = answers.bytes.len();
        }
    }

    /// Runs one operation and appends its answer, good or bad.
    fn run_answered(&mut self, op: Result<Op<'_>>, out: &mut Vec<u8>) {
        let start = out.len();
        if let Err(error) = op.and_then(|op| self.run_one(op, out)) {
            out.truncate(start);
            wire::write_refused(out, &error, self.version());
        }
    }

    fn run_one(&mut self, op: Op<'_>, out: &mut Vec<u8>) -> Result<()> {
        if op.verb == Verb::Transaction {
            self.begin()?;
            return self.atomically(|batch| batch.transaction(op.payload, out));
        }
        let tables = self.tables;
        let layout = tables.layout(op.table).ok_or_else(|| no_such_table(op.table))?;
        let mut payload = op.payload;
        if op.verb.is_write() {
            check_version(layout, op.version)?;
            self.begin()?;
        }
        match op.verb {
            Verb::Get => self.get(layout, payload.raw()?, out),
            Verb::Insert | Verb::Replace => {
                self.write_row(layout, op.verb, payload.raw()?)?;
                wire::write_done_nothing(out);
                Ok(())
            }
            Verb::InsertOrSkip => {
                let changed = self.write_row(layout, op.verb, payload.raw()?)?;
                wire::write_done_count(out, changed.into());
                Ok(())
            }
            Verb::Delete => self.delete(layout, &op, payload.raw()?, out),
            Verb::Update => self.update(layout, &op, payload.raw()?, payload.raw()?, out),
            Verb::Upsert => {
                let (tuple, key, operations) = (payload.raw()?, payload.raw()?, payload.raw()?);
                self.upsert(layout, tuple, key, operations, op.has(FLAG_CHECK))?;
                wire::write_done_nothing(out);
                Ok(())
            }
            Verb::Transaction => Err(Error::internal("a transaction inside another one")),
            Verb::InsertAbsent => Err(Error::internal("a row that has to be absent is a statement's")),
            Verb::Rows | Verb::Upserts => self.rows(layout, op.verb, payload, out),
            Verb::Changes => {
                let count = self.atomically(|batch| batch.changes(layout, payload))?;
                wire::write_done_count(out, count);
                Ok(())
            }
        }
    }

    /// Runs the operations one after the other; the first that fails ends them all.
    fn transaction(&mut self, mut payload: Reader<'_>, out: &mut Vec<u8>) -> Result<()> {
        let len = payload.array_len()?;
        if len > ROWS_MAX {
            let message = format!("{len} operations in a transaction, at most {ROWS_MAX} are taken");
            return Err(Error::new(Code::LimitExceeded, message));
        }
        model::msgpack::write_array_len(out, 1);
        model::msgpack::write_array_len(out, len);
        for _ in 0..len {
            let op = Op::read(&mut payload)?;
            if op.verb == Verb::Transaction || self.yields(op.table) {
                return Err(Error::internal("an operation that can not be part of a transaction"));
            }
            self.run_one(op, out)?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        if !self.in_transaction {
            self.store.begin()?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Runs several statements so that an error leaves none of them behind.
    fn atomically<R>(&mut self, statements: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        let savepoint = self.store.savepoint()?;
        let result = statements(self);
        if result.is_err() {
            self.store.rollback_to(savepoint)?;
        }
        result
    }

    /// Counts a write to the bucket that a tuple or key begins with.
    fn begin_write(&mut self, layout: &Layout, tuple_or_key: &[u8]) -> Result<()> {
        if !layout.is_sharded() {
            return Ok(());
        }
        let bucket = bucket_of_stored(tuple_or_key)?;
        self.guard.borrow_mut().begin_write(bucket)?;
        self.writes.push(bucket);
        if self.durability < layout.table.durability {
            self.store.check_members()?;
            self.durability = layout.table.durability;
        }
        Ok(())
    }

    fn get(&mut self, layout: &Layout, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if layout.is_sharded() {
            let bucket = bucket_of_stored(key)?;
            self.guard.borrow().check_read(bucket, false)?;
            if layout.is_replicated() {
                self.unsettled.extend(self.unsettled(bucket).map(|doubts| (bucket, doubts)));
            }
        }
        let start = out.len();
        model::msgpack::write_array_len(out, 1);
        if !self.store.get(layout.table.id, key, out)? {
            out.truncate(start);
            wire::write_done_nothing(out);
        }
        Ok(())
    }

    /// Answers whether a row was written.
    fn write_row(&mut self, layout: &Layout, verb: Verb, tuple: &[u8]) -> Result<bool> {
        self.begin_write(layout, tuple)?;
        let whole = whole(layout, tuple)?;
        let (tuple, space) = (&*whole, layout.table.id);
        match verb {
            Verb::Insert => self.store.insert(space, tuple)?,
            Verb::Replace => self.store.replace(space, tuple)?,
            Verb::InsertOrSkip => match self.store.insert(space, tuple) {
                Err(error) if error.code == Code::DuplicateKey => return Ok(false),
                result => result?,
            },
            Verb::InsertAbsent => self.insert_absent(layout, tuple)?,
            _ => return Err(Error::internal("a row is inserted or replaced")),
        }
        Ok(true)
    }

    /// Inserts a row that a statement has not found: when it is there by now, the statement has to look again.
    fn insert_absent(&mut self, layout: &Layout, tuple: &[u8]) -> Result<()> {
        let error = match self.store.insert(layout.table.id, tuple) {
            Err(error) if error.code == Code::DuplicateKey => error,
            result => return result,
        };
        let (mut key, mut scratch) = (Vec::new(), Vec::new());
        RowWriter::new(layout, 0).key_of_stored(tuple, &mut key)?;
        let is_there = self.store.get(layout.table.id, &key, &mut scratch)?;
        Err(if is_there { changed_meanwhile(layout) } else { error })
    }

    fn delete(&mut self, layout: &Layout, op: &Op<'_>, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.begin_write(layout, key)?;
        let space = layout.table.id;
        let start = out.len();
        model::msgpack::write_array_len(out, 1);
        let is_found = if op.has(FLAG_NO_RETURN) {
            self.store.delete(space, key, None)?;
            false
        } else if layout.table.engine == Engine::Vinyl {
            // Vinyl deletes without looking.
            let is_found = self.store.get(space, key, out)?;
            if is_found {
                self.store.delete(space, key, None)?;
            }
            is_found
        } else {
            self.store.delete(space, key, Some(out))?
        };
        if !is_found {
            out.truncate(start);
            wire::write_done_nothing(out);
        }
        Ok(())
    }

    fn update(&mut self, layout: &Layout, op: &Op<'_>, key: &[u8], operations: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.begin_write(layout, key)?;
        let start = out.len();
        model::msgpack::write_array_len(out, 1);
        let is_found = self.update_checked(layout, key, operations, op.has(FLAG_CHECK), out)?;
        if !is_found || op.has(FLAG_NO_RETURN) {
            out.truncate(start);
            wire::write_done_nothing(out);
        }
        Ok(())
    }

    /// Updates a row and appends the new tuple; undoes it when the tuple breaks the column types.
    fn update_checked(
        &mut self,
        layout: &Layout,
        key: &[u8],
        operations: &[u8],
        check: bool,
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        let space = layout.table.id;
        if !check && !layout.is_strict() && !layout.has_added_columns() {
            return self.store.update(space, key, operations, out);
        }
        self.atomically(|batch| {
            batch.pad(layout, key)?;
            let start = out.len();
            let is_found = batch.store.update(space, key, operations, out)?;
            if is_found {
                if check {
                    check_tuple(layout, &out[start..])?;
                }
                layout.verify(&out[start..])?;
            }
            Ok(is_found)
        })
    }

    /// Gives a row the columns that came later than it: the host updates only what is there.
    fn pad(&mut self, layout: &Layout, key: &[u8]) -> Result<()> {
        if !layout.has_added_columns() {
            return Ok(());
        }
        let mut tuple = Vec::new();
        if self.store.get(layout.table.id, key, &mut tuple)?
            && let Some(padded) = layout.padded(&tuple)?
        {
            self.store.replace(layout.table.id, &padded)?;
        }
        Ok(())
    }

    /// The host's own upsert only logs what goes wrong in its operations; this one says it.
    fn upsert(&mut self, layout: &Layout, tuple: &[u8], key: &[u8], operations: &[u8], check: bool) -> Result<()> {
        self.begin_write(layout, tuple)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self.update_if_there(layout, key, operations, check, &mut scratch);
        self.scratch = scratch;
        if !result? {
            self.store.insert(layout.table.id, &whole(layout, tuple)?)?;
        }
        Ok(())
    }

    /// Vinyl of this host damages its list of writers when a statement that changes nothing, such as an update without
    /// a row, is followed by another one in the same transaction: there the row is looked for first.
    fn update_if_there(
        &mut self,
        layout: &Layout,
        key: &[u8],
        operations: &[u8],
        check: bool,
        scratch: &mut Vec<u8>,
    ) -> Result<bool> {
        scratch.clear();
        if layout.table.engine == Engine::Vinyl {
            if !self.store.get(layout.table.id, key, scratch)? {
                return Ok(false);
            }
            scratch.clear();
        }
        self.update_checked(layout, key, operations, check, scratch)
    }

    fn rows(&mut self, layout: &Layout, verb: Verb, mut payload: Reader<'_>, out: &mut Vec<u8>) -> Result<()> {
        let verb_of_row = if verb == Verb::Rows { wire::read_verb(&mut payload)? } else { Verb::Upsert };
        let mode = Mode::read(&mut payload)?;
        let savepoint = if mode == Mode::Atomic { Some(self.store.savepoint()?) } else { None };
        let (mut count, failures) = self.each_row(layout, verb_of_row, mode, payload)?;
        if let Some(savepoint) = savepoint.filter(|_| !failures.is_empty()) {
            self.store.rollback_to(savepoint)?;
            count = 0;
        }
        wire::write_done_rows(out, count, &failures);
        Ok(())
    }

    fn each_row(
        &mut self,
        layout: &Layout,
        verb: Verb,
        mode: Mode,
        mut payload: Reader<'_>,
    ) -> Result<(u64, Vec<Failure>)> {
        let len = payload.array_len()?;
        if len > ROWS_MAX {
            return Err(Error::new(
                Code::LimitExceeded,
                format!("{len} rows in one call, at most {ROWS_MAX} are taken"),
            ));
        }
        let (mut count, mut failures) = (0, Vec::new());
        for position in 0..len {
            let row = payload.raw()?;
            let result = match verb {
                Verb::Upsert => self.upsert_row(layout, Reader::new(row)),
                verb => self.write_row(layout, verb, row),
            };
            match result {
                Ok(changed) => count += u64::from(changed),
                Err(error) => {
                    failures.push(Failure { position, error });
                    if mode != Mode::Each {
                        break;
                    }
                }
            }
        }
        Ok((count, failures))
    }

    fn upsert_row(&mut self, layout: &Layout, mut row: Reader<'_>) -> Result<bool> {
        row.array_len()?;
        let (tuple, key, operations, check) = (row.raw()?, row.raw()?, row.raw()?, row.bool()?);
        self.upsert(layout, tuple, key, operations, check).map(|()| true)
    }

    /// The changes of an SQL statement: answers how many rows changed.
    fn changes(&mut self, layout: &Layout, mut payload: Reader<'_>) -> Result<u64> {
        let len = payload.array_len()?;
        let mut count = 0;
        for _ in 0..len {
            payload.array_len()?;
            let verb = wire::read_verb(&mut payload)?;
            let changed = match verb {
                Verb::Insert | Verb::InsertAbsent | Verb::Replace | Verb::InsertOrSkip => {
                    self.write_row(layout, verb, payload.raw()?)?
                }
                Verb::Update | Verb::Delete => {
                    let (key, expected, operations) = (payload.raw()?, payload.raw()?, payload.raw()?);
                    self.change_expected(layout, verb, key, expected, operations)?
                }
                _ => return Err(Error::internal("a statement changes rows one by one")),
            };
            count += u64::from(changed);
        }
        Ok(count)
    }

    /// Updates or deletes a row that must still be as the statement saw it.
    fn change_expected(
        &mut self,
        layout: &Layout,
        verb: Verb,
        key: &[u8],
        expected: &[u8],
        operations: &[u8],
    ) -> Result<bool> {
        self.begin_write(layout, key)?;
        let space = layout.table.id;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let result = self.store.get(space, key, &mut scratch).and_then(|is_found| match is_found {
            true => has_expected(layout, &scratch, expected),
            false => Ok(false),
        });
        scratch.clear();
        let result = result.and_then(|is_same| match (is_same, verb) {
            (false, _) => Err(changed_meanwhile(layout)),
            (true, Verb::Delete) => self.store.delete(space, key, None),
            (true, _) => self.pad(layout, key).and_then(|()| {
                let is_found = self.store.update(space, key, operations, &mut scratch)?;
                layout.verify(&scratch)?;
                Ok(is_found)
            }),
        });
        self.scratch = scratch;
        result.map(|_| true)
    }
}

/// A tuple that is to be stored: verified, and with the columns that came while it was on its way.
fn whole<'t>(layout: &Layout, tuple: &'t [u8]) -> Result<Cow<'t, [u8]>> {
    let padded = if layout.has_added_columns() { layout.padded(tuple)? } else { None };
    let whole = padded.map_or(Cow::Borrowed(tuple), Cow::Owned);
    layout.verify(&whole)?;
    Ok(whole)
}

/// Whether the stored tuple has the values of `expected`, an array of field number and value in turns.
fn has_expected(layout: &Layout, tuple: &[u8], expected: &[u8]) -> Result<bool> {
    let mut expected = Reader::new(expected);
    let pairs = expected.array_len()? / 2;
    for _ in 0..pairs {
        let field = expected.uint()? as usize;
        let wanted = expected.raw()?;
        let Some(position) = field.checked_sub(layout.table.stored_offset()) else { return Ok(false) };
        let (Some(cell), Some(found)) = (layout.cells.get(position), layout.column(tuple, position)) else {
            return Ok(false);
        };
        // The same value may be stored in several forms: decimal 1.0 and 1.00.
        if found != wanted && compare(cell.ty, found, wanted).is_ne() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn changed_meanwhile(layout: &Layout) -> Error {
    Error::new(Code::Conflict, format!("a row of table \"{}\" changed while the statement ran", layout.table.name))
}

/// Refuses a write made for a later definition than this instance has: what it would be checked against may not hold any
/// more, and what has to hold now is not known here.
fn check_version(layout: &Layout, version: u64) -> Result<()> {
    if layout.table.version >= version {
        return Ok(());
    }
    let message = format!("the last change of table \"{}\" has not arrived at the master yet", layout.table.name);
    Err(Error::new(Code::SchemaChanged, message))
}

fn no_such_table(id: TableId) -> Error {
    let message = format!("table {id} is not on this instance: it was dropped, is not here yet, or is being emptied");
    Error::new(Code::SchemaChanged, message)
}
