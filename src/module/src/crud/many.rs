//! Doors that write many rows of a table.
//!
//! Every row is checked before anything is sent, so bad input changes nothing. Then each replicaset gets its rows as one
//! operation, in one transaction there. If rows are refused, the others are written all the same (or as the options
//! say), and the call fails with an error that names those that were not.

use super::{Shape, read_options, table_of};
use crate::host::{Call, Deadline};
use crate::router::scatter::{RowFailure, Rows};
use crate::router::{self, TableRoute, global};
use crud::answer::write_result;
use crud::batch::ROWS_MAX;
use crud::request::{Args, Options};
use crud::update;
use crud::wire::{Mode, Verb};
use model::msgpack::{self, Reader};
use model::{Code, Error, Result};
use std::fmt::Write;
use std::ops::Range;
use std::rc::Rc;

/// Failed rows that the error's message tells one by one.
const TOLD_MAX: usize = 10;

pub fn insert_many(call: &mut Call<'_>) -> Result<()> {
    write_many(call, Verb::Insert, false)
}

pub fn insert_object_many(call: &mut Call<'_>) -> Result<()> {
    write_many(call, Verb::Insert, true)
}

pub fn replace_many(call: &mut Call<'_>) -> Result<()> {
    write_many(call, Verb::Replace, false)
}

pub fn replace_object_many(call: &mut Call<'_>) -> Result<()> {
    write_many(call, Verb::Replace, true)
}

pub fn upsert_many(call: &mut Call<'_>) -> Result<()> {
    write_many(call, Verb::Upsert, false)
}

pub fn upsert_object_many(call: &mut Call<'_>) -> Result<()> {
    write_many(call, Verb::Upsert, true)
}

/// `*_many(table, rows[, opts])`, where a row of an upsert is `{row, operations}`.
fn write_many(call: &mut Call<'_>, verb: Verb, is_object: bool) -> Result<()> {
    let mut args = Args::new(call.name(), call.args())?;
    let route = table_of(&mut args)?;
    let list = args.required("the rows")?;
    let options = args.options()?;
    let mode = mode_of(&options);
    let (deadline, shape) = read_options(&options, &route)?;
    let written = read_rows(&route, list, (verb, mode), is_object)?;
    if written.tuples.is_empty() {
        return Err(Error::new(Code::Argument, format!("{} takes one row at least", call.name())));
    }
    let tuples: Vec<Range<usize>> = written.tuples;
    // The answer is made before the rows leave: the storages keep exactly these.
    let answer = make_answer(&route, &shape, verb, &written.rows.bytes, &tuples)?;
    let rows = written.rows;
    if route.tier.is_none() {
        write_global(&route, rows, deadline)?;
    } else {
        let count = tuples.len();
        let failures = router::get()?.write_rows(rows, deadline)?;
        fail_if_any(count, failures)?;
    }
    match answer {
        Some(answer) => call.reply(&answer),
        None => Ok(()),
    }
}

fn mode_of(options: &Options<'_>) -> Mode {
    match (options.rollback_on_error, options.stop_on_error) {
        (true, _) => Mode::Atomic,
        (false, true) => Mode::Stop,
        (false, false) => Mode::Each,
    }
}

struct Written {
    rows: Rows,
    /// Where the tuple of each row lies in `rows.bytes`.
    tuples: Vec<Range<usize>>,
}

fn read_rows(route: &Rc<TableRoute>, list: &[u8], (verb, mode): (Verb, Mode), is_object: bool) -> Result<Written> {
    let mut reader = Reader::new(list);
    let count = reader.array_len().map_err(|_| Error::new(Code::Argument, "the rows are an array"))?;
    if count > ROWS_MAX {
        return Err(Error::new(Code::LimitExceeded, format!("{count} rows in one call, at most {ROWS_MAX} are taken")));
    }
    let mut rows = Rows::new(&route.layout, verb, mode);
    rows.bytes.reserve(list.len() + count * 4);
    rows.places.reserve(count);
    let mut tuples = Vec::with_capacity(count);
    for position in 0..count {
        let tuple = read_row(route, &mut reader, &mut rows, is_object).map_err(|mut error| {
            error.message = format!("row {}: {}", position + 1, error.message);
            error
        })?;
        tuples.push(tuple);
    }
    Ok(Written { rows, tuples })
}

/// Appends one row to the others; answers where its tuple lies.
fn read_row(route: &TableRoute, reader: &mut Reader<'_>, rows: &mut Rows, is_object: bool) -> Result<Range<usize>> {
    let writer = route.writer();
    let start = rows.bytes.len();
    let is_upsert = rows.verb == Verb::Upsert;
    if is_upsert {
        let malformed = || Error::new(Code::Argument, "a row to upsert is {row, operations}");
        if reader.array_len().map_err(|_| malformed())? != 2 {
            return Err(malformed());
        }
        msgpack::write_array_len(&mut rows.bytes, 4);
    }
    let tuple_start = rows.bytes.len();
    let bucket = match is_object {
        true => writer.object(reader, &mut rows.bytes)?,
        false => writer.row(reader, &mut rows.bytes)?,
    };
    let tuple = tuple_start..rows.bytes.len();
    if is_upsert {
        let mut tail = Vec::new();
        writer.key_of_stored(&rows.bytes[tuple.clone()], &mut tail)?;
        let check = update::translate(&route.layout, reader, &mut tail)?;
        msgpack::write_bool(&mut tail, check);
        rows.bytes.append(&mut tail);
    }
    rows.places.push((start..rows.bytes.len(), bucket));
    Ok(tuple)
}

/// The result with all rows; without rows for an upsert, None where none is wanted.
fn make_answer(
    route: &TableRoute,
    shape: &Shape,
    verb: Verb,
    bytes: &[u8],
    tuples: &[Range<usize>],
) -> Result<Option<Vec<u8>>> {
    if shape.noreturn {
        return Ok(None);
    }
    let shown = if verb == Verb::Upsert { &[] } else { tuples };
    let mut out = Vec::with_capacity(route.layout.metadata.len() + bytes.len());
    let tuples = shown.iter().map(|tuple| &bytes[tuple.clone()]);
    write_result(&route.layout, shape.projection.as_ref(), tuples, &mut out)?;
    Ok(Some(out))
}

/// A global table takes all rows or none, as one entry of the log; upserts one after the other.
fn write_global(route: &TableRoute, rows: Rows, deadline: Deadline) -> Result<()> {
    let elements = rows.places.iter().map(|(place, _)| &rows.bytes[place.clone()]);
    if rows.verb != Verb::Upsert {
        return global::write_rows(&route.layout, rows.verb, elements, deadline).map(drop);
    }
    for element in elements {
        let mut reader = Reader::new(element);
        reader.array_len()?;
        let (row, key, operations, check) = (reader.raw()?, reader.raw()?, reader.raw()?, reader.bool()?);
        global::upsert(&route.layout, row, key, operations, check, deadline)?;
    }
    Ok(())
}

/// The error of a call of which some rows were not written.
fn fail_if_any(count: usize, failures: Vec<RowFailure>) -> Result<()> {
    // Rows that fell with another one say less than that one.
    let told = failures.iter().find(|failure| failure.error.code != Code::Cancelled).or(failures.first());
    let Some(told) = told else { return Ok(()) };
    let mut message = format!("{} of {count} rows were not written", failures.len());
    for (at, failure) in failures.iter().take(TOLD_MAX).enumerate() {
        let separator = if at == 0 { ": " } else { "; " };
        // Writing to a string does not fail.
        let _ = write!(message, "{separator}row {}: {}", failure.position + 1, failure.error.message);
    }
    if failures.len() > TOLD_MAX {
        message.push_str("; ...");
    }
    Err(Error { code: told.error.code, message, hint: told.error.hint.clone() })
}
