//! Doors that touch one row.

use super::{Shape, read_options, table_of};
use crate::host::{Call, Deadline};
use crate::router::execute::Request;
use crate::router::{self, TableRoute, global};
use crud::answer::write_result;
use crud::request::Args;
use crud::update;
use crud::wire::{FLAG_CHECK, FLAG_NO_RETURN, Verb, write_op_head};
use model::msgpack::Reader;
use model::{BucketId, Result};
use std::ops::Range;
use std::rc::Rc;

/// Bytes of a request for which room is made at once.
const OPERATION_BYTES: usize = 256;

pub fn insert(call: &mut Call<'_>) -> Result<()> {
    write_row(call, Verb::Insert, false)
}

pub fn insert_object(call: &mut Call<'_>) -> Result<()> {
    write_row(call, Verb::Insert, true)
}

pub fn replace(call: &mut Call<'_>) -> Result<()> {
    write_row(call, Verb::Replace, false)
}

pub fn replace_object(call: &mut Call<'_>) -> Result<()> {
    write_row(call, Verb::Replace, true)
}

pub fn upsert(call: &mut Call<'_>) -> Result<()> {
    upsert_row(call, false)
}

pub fn upsert_object(call: &mut Call<'_>) -> Result<()> {
    upsert_row(call, true)
}

/// An operation ready to leave, and what to do with its answer.
struct Prepared {
    route: Rc<TableRoute>,
    operation: Vec<u8>,
    bucket: BucketId,
    deadline: Deadline,
    shape: Shape,
}

impl Prepared {
    fn new(route: Rc<TableRoute>, deadline: Deadline, shape: Shape) -> Self {
        Self { route, operation: Vec::with_capacity(OPERATION_BYTES), bucket: 0, deadline, shape }
    }

    fn head(&mut self, verb: Verb, flags: u8, elements: usize) {
        write_op_head(&mut self.operation, verb, flags, &self.route.layout.table, elements);
    }

    /// Runs the operation where its bucket lives.
    fn execute(&self, is_write: bool) -> Result<router::execute::Reply> {
        router::get()?.execute(&Request {
            route: &self.route,
            bucket: self.bucket,
            is_write,
            operation: &self.operation,
            deadline: self.deadline,
        })
    }

    /// Answers a result of one row or none.
    fn reply(&self, call: &mut Call<'_>, tuple: Option<&[u8]>) -> Result<()> {
        if self.shape.noreturn {
            return Ok(());
        }
        let layout = &self.route.layout;
        let mut out = Vec::with_capacity(layout.metadata.len() + tuple.map_or(0, <[u8]>::len) + 32);
        write_result(layout, self.shape.projection.as_ref(), tuple.into_iter(), &mut out)?;
        call.reply(&out)
    }
}

/// `insert(table, row[, opts])`, `replace(table, row[, opts])` and their forms with objects.
fn write_row(call: &mut Call<'_>, verb: Verb, is_object: bool) -> Result<()> {
    let mut args = Args::new(call.name(), call.args())?;
    let route = table_of(&mut args)?;
    let row = args.required(if is_object { "the object" } else { "the row" })?;
    let (deadline, shape) = read_options(&args.options()?, &route)?;
    let mut prepared = Prepared::new(route, deadline, shape);
    prepared.head(verb, 0, 1);
    let tuple = append_row(&mut prepared, row, is_object)?;
    let tuple = &prepared.operation[tuple];
    if prepared.route.tier.is_none() {
        global::write_rows(&prepared.route.layout, verb, std::iter::once(tuple), prepared.deadline)?;
    } else {
        prepared.execute(true)?;
    }
    prepared.reply(call, Some(tuple))
}

/// Appends the tuple of a row or an object to the operation and sets the bucket; answers where it lies.
fn append_row(prepared: &mut Prepared, row: &[u8], is_object: bool) -> Result<Range<usize>> {
    let start = prepared.operation.len();
    let (writer, mut reader) = (prepared.route.writer(), Reader::new(row));
    prepared.bucket = match is_object {
        true => writer.object(&mut reader, &mut prepared.operation)?,
        false => writer.row(&mut reader, &mut prepared.operation)?,
    };
    Ok(start..prepared.operation.len())
}

/// Appends the primary key to the operation and sets the bucket; answers where it lies.
fn append_key(prepared: &mut Prepared, key: &[u8]) -> Result<Range<usize>> {
    let start = prepared.operation.len();
    prepared.bucket = prepared.route.writer().key(&mut Reader::new(key), &mut prepared.operation)?;
    Ok(start..prepared.operation.len())
}

/// `get(table, key[, opts])`
pub fn get(call: &mut Call<'_>) -> Result<()> {
    let mut args = Args::new(call.name(), call.args())?;
    let route = table_of(&mut args)?;
    let key = args.required("the key")?;
    let (deadline, shape) = read_options(&args.options()?, &route)?;
    let mut prepared = Prepared::new(route, deadline, shape);
    prepared.head(Verb::Get, 0, 1);
    let key = append_key(&mut prepared, key)?;
    if prepared.route.tier.is_none() {
        let mut row = Vec::new();
        let is_found = crate::storage::global::get(&prepared.route.layout, &prepared.operation[key], &mut row)?;
        return prepared.reply(call, is_found.then_some(row.as_slice()));
    }
    let answer = prepared.execute(false)?;
    prepared.reply(call, answer.done()?.first)
}

/// `delete(table, key[, opts])`
pub fn delete(call: &mut Call<'_>) -> Result<()> {
    let mut args = Args::new(call.name(), call.args())?;
    let route = table_of(&mut args)?;
    let key = args.required("the key")?;
    let (deadline, shape) = read_options(&args.options()?, &route)?;
    let mut prepared = Prepared::new(route, deadline, shape);
    let flags = if prepared.shape.noreturn { FLAG_NO_RETURN } else { 0 };
    prepared.head(Verb::Delete, flags, 1);
    let key = append_key(&mut prepared, key)?;
    if prepared.route.tier.is_none() {
        let old = global::delete(&prepared.route.layout, &prepared.operation[key], prepared.deadline)?;
        return prepared.reply(call, old.as_deref());
    }
    let answer = prepared.execute(true)?;
    prepared.reply(call, answer.done()?.first)
}

/// `update(table, key, operations[, opts])`
pub fn update(call: &mut Call<'_>) -> Result<()> {
    let mut args = Args::new(call.name(), call.args())?;
    let route = table_of(&mut args)?;
    let (key, operations) = (args.required("the key")?, args.required("the operations")?);
    let (deadline, shape) = read_options(&args.options()?, &route)?;
    let mut translated = Vec::new();
    let check = update::translate(&route.layout, &mut Reader::new(operations), &mut translated)?;
    let mut prepared = Prepared::new(route, deadline, shape);
    let flags = if check { FLAG_CHECK } else { 0 } | if prepared.shape.noreturn { FLAG_NO_RETURN } else { 0 };
    prepared.head(Verb::Update, flags, 2);
    let key = append_key(&mut prepared, key)?;
    if prepared.route.tier.is_none() {
        let key = &prepared.operation[key];
        let new = global::update(&prepared.route.layout, key, &translated, check, prepared.deadline)?;
        return prepared.reply(call, new.as_deref());
    }
    prepared.operation.append(&mut translated);
    let answer = prepared.execute(true)?;
    prepared.reply(call, answer.done()?.first)
}

/// `upsert(table, row, operations[, opts])`; answers no rows, as there is no telling which of the two it did.
fn upsert_row(call: &mut Call<'_>, is_object: bool) -> Result<()> {
    let mut args = Args::new(call.name(), call.args())?;
    let route = table_of(&mut args)?;
    let row = args.required(if is_object { "the object" } else { "the row" })?;
    let operations = args.required("the operations")?;
    let (deadline, shape) = read_options(&args.options()?, &route)?;
    let mut translated = Vec::new();
    let check = update::translate(&route.layout, &mut Reader::new(operations), &mut translated)?;
    let mut prepared = Prepared::new(route, deadline, shape);
    prepared.head(Verb::Upsert, if check { FLAG_CHECK } else { 0 }, 3);
    let tuple = append_row(&mut prepared, row, is_object)?;
    let mut key = Vec::new();
    prepared.route.writer().key_of_stored(&prepared.operation[tuple.clone()], &mut key)?;
    if prepared.route.tier.is_none() {
        let row = &prepared.operation[tuple];
        global::upsert(&prepared.route.layout, row, &key, &translated, check, prepared.deadline)?;
        return prepared.reply(call, None);
    }
    prepared.operation.append(&mut key);
    prepared.operation.append(&mut translated);
    prepared.execute(true)?;
    prepared.reply(call, None)
}
