//! Changes that an SQL statement computed, on their way to box: for each replicaset one operation that applies all of its
//! changes or none.

use super::execute::operate_at;
use super::{Router, TableRoute, Target, global};
use crate::host::Deadline;
use crate::side_by_side::{self, Task};
use crud::Layout;
use crud::report::Report;
use crud::retry::{self, Failure, Next};
use crud::update::INDEX_BASE;
use crud::wire::{self, Answer, Verb};
use model::msgpack::{self, Reader};
use model::{BucketId, Result, Table, Value};
use sql::cluster::RowChange;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Replicasets that one statement writes to at the same time.
const TARGETS_MAX: usize = 64;

/// A change in its wire form.
type Encoded = (BucketId, Vec<u8>);

/// What came of the changes of one replicaset.
struct Outcome {
    target: Rc<Target>,
    changes: Vec<Encoded>,
    result: Result<u64, Failure>,
}

impl Router {
    /// Applies changes to one table: all that belong to one replicaset in one transaction there, replicasets side by
    /// side. Answers how many rows changed.
    ///
    /// Errors: `Conflict` when a row is not as it was expected and nothing was changed; `SchemaChanged` when the table is
    /// another by now and nothing was changed; `DuplicateKey`; `Unknown`. After a failure on one replicaset the message
    /// says what was done where, and a code that invites to try again becomes `Unknown` when rows were changed.
    pub fn write_changes(&'static self, table: &Table, changes: Vec<RowChange>, deadline: Deadline) -> Result<u64> {
        let route = self.route_of(table)?;
        let encoded: Vec<Encoded> = changes.iter().map(|change| encode(&route, change)).collect::<Result<_>>()?;
        if route.tier.is_none() {
            return global::write(&route.layout.table, list_of(&encoded), deadline);
        }
        let mut left = encoded;
        let mut report = Report::default();
        let result = self.patiently(deadline, true, || {
            let mut last = None;
            for outcome in self.send_changes(&route.layout, std::mem::take(&mut left), deadline)? {
                match outcome.result {
                    Ok(changed) => report.done(&outcome.target.replicaset, changed),
                    Err(failure) => match retry::next(failure.clone(), true) {
                        Next::Wait { .. } => {
                            left.extend(outcome.changes);
                            last = Some(failure);
                        }
                        Next::Fail(error) => report.failed(&outcome.target.replicaset, error),
                    },
                }
            }
            // What is left is not tried once the statement has failed.
            match last {
                Some(failure) if !report.has_failed() => Err(failure),
                _ => Ok(()),
            }
        });
        // A change that is left was not made.
        report.not_tried(left.len());
        report.into_result(result.err())
    }

    fn send_changes(
        &'static self,
        layout: &Arc<Layout>,
        changes: Vec<Encoded>,
        deadline: Deadline,
    ) -> Result<Vec<Outcome>, Failure> {
        let mut parts: HashMap<*const Target, (Rc<Target>, Vec<Encoded>)> = HashMap::new();
        for change in changes {
            let target = self.target(layout.table.id, change.0).map_err(Failure::NotSent)?;
            parts.entry(Rc::as_ptr(&target)).or_insert_with(|| (target, Vec::new())).1.push(change);
        }
        let task = |(target, changes): (Rc<Target>, Vec<Encoded>)| -> Task<Outcome> {
            let layout = Arc::clone(layout);
            Box::new(move || Outcome { result: send(&layout.table, &target, &changes, deadline), target, changes })
        };
        side_by_side::run("pico_write", TARGETS_MAX, parts.into_values().map(task).collect()).map_err(Failure::NoAnswer)
    }
}

/// Sends one replicaset its changes; answers how many rows changed.
fn send(table: &Table, target: &Target, changes: &[Encoded], deadline: Deadline) -> Result<u64, Failure> {
    let mut operation = Vec::new();
    wire::write_op_head(&mut operation, Verb::Changes, 0, table, 1);
    operation.append(&mut list_of(changes));
    let answer = operate_at(target, &operation, table.durability, deadline)?;
    match wire::read_answer(&mut Reader::new(&answer)).map_err(Failure::NoAnswer)? {
        Answer::Refused(error, version) => Err(Failure::Refused(error, version)),
        Answer::Done(done) => {
            let count = done.first.map(|count| Reader::new(count).uint()).transpose().map_err(Failure::NoAnswer)?;
            Ok(count.unwrap_or(0))
        }
    }
}

fn list_of(changes: &[Encoded]) -> Vec<u8> {
    let mut out = Vec::with_capacity(changes.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + 5);
    msgpack::write_array_len(&mut out, changes.len());
    changes.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
    out
}

fn encode(route: &TableRoute, change: &RowChange) -> Result<Encoded> {
    let mut out = Vec::new();
    let bucket = match change {
        RowChange::Insert { row } => encode_row(route, Verb::Insert, row, &mut out)?,
        RowChange::InsertAbsent { row } => encode_row(route, Verb::InsertAbsent, row, &mut out)?,
        RowChange::InsertOrSkip { row } => encode_row(route, Verb::InsertOrSkip, row, &mut out)?,
        RowChange::Replace { row } => encode_row(route, Verb::Replace, row, &mut out)?,
        RowChange::Update { key, expected, set } => {
            let bucket = encode_expected(route, Verb::Update, key, expected, &mut out)?;
            msgpack::write_array_len(&mut out, set.len());
            for (column, value) in set {
                route.writer().check_null(*column, value)?;
                msgpack::write_array_len(&mut out, 3);
                msgpack::write_str(&mut out, "=");
                let field = column + route.layout.table.stored_offset() + INDEX_BASE as usize;
                msgpack::write_uint(&mut out, field as u64);
                value.write_stored(&mut out);
            }
            bucket
        }
        RowChange::Delete { key, expected } => {
            let bucket = encode_expected(route, Verb::Delete, key, expected, &mut out)?;
            msgpack::write_nil(&mut out);
            bucket
        }
    };
    Ok((bucket, out))
}

fn encode_row(route: &TableRoute, verb: Verb, row: &[Value], out: &mut Vec<u8>) -> Result<BucketId> {
    msgpack::write_array_len(out, 2);
    out.push(verb as u8);
    route.writer().row_of_values(row, out)
}

/// Writes the verb, the key and what the row must hold; the host's operations must follow.
fn encode_expected(
    route: &TableRoute,
    verb: Verb,
    key: &[Value],
    expected: &[(usize, Value)],
    out: &mut Vec<u8>,
) -> Result<BucketId> {
    msgpack::write_array_len(out, 4);
    out.push(verb as u8);
    let bucket = route.writer().key_of_values(key, out)?;
    msgpack::write_array_len(out, expected.len() * 2);
    for (column, value) in expected {
        msgpack::write_uint(out, (column + route.layout.table.stored_offset()) as u64);
        value.write_stored(out);
    }
    Ok(bucket)
}
