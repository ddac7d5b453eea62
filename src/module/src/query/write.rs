//! Row changes that a statement computed, on their way to the rows: encoded as operations, grouped by the replicaset that
//! owns them, each group one transaction there.

use crate::host::Deadline;
use crate::router::execute::Request;
use crate::router::{self, Router, TableRoute};
use crate::side_by_side::{self, Task};
use crud::RowWriter;
use crud::wire::{Verb, write_op_head};
use model::msgpack::{write_array_len, write_str, write_uint};
use model::{BucketId, Code, Error, ReplicasetName, Result, Table, Value};
use sql::cluster::RowChange;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Replicasets written to at the same time.
const TARGETS_MAX: usize = 64;

/// Changes of one replicaset: how many, their bytes, and a bucket among them.
#[derive(Default)]
struct Group {
    count: usize,
    bytes: Vec<u8>,
    bucket: BucketId,
}

/// Applies changes to one table; answers how many rows changed. On a fiber.
///
/// Errors: `Conflict` when a row is not as it was expected, and those of the storages; when one replicaset failed and
/// others did not, the message says so.
pub fn apply(table: &Table, changes: &[RowChange], deadline: Deadline) -> Result<u64> {
    let router = router::get()?;
    let snapshot = router.snapshot();
    let route = Rc::clone(snapshot.table_by_id(table.id)?);
    if route.layout.table.version != table.version {
        return Err(Error::new(Code::SchemaChanged, format!("table \"{}\" was changed while the statement ran", table.name)));
    }
    let groups = group(&route, changes)?;
    if table.is_global() {
        let Some(group) = groups.into_values().next() else { return Ok(0) };
        return router::global::write(&route.layout.table, array(&group), deadline);
    }
    send(router, table, groups, deadline)
}

/// Encodes the changes, by the replicaset that owns their buckets; all under one name for a global table.
fn group(route: &TableRoute, changes: &[RowChange]) -> Result<BTreeMap<ReplicasetName, Group>> {
    let writer = route.writer();
    let mut groups: BTreeMap<ReplicasetName, Group> = BTreeMap::new();
    let mut scratch = Vec::new();
    for change in changes {
        scratch.clear();
        let bucket = encode(&writer, &route.layout.table, change, &mut scratch)?;
        let owner = match &route.tier {
            None => ReplicasetName(String::new()),
            Some(tier) => match tier.target(bucket) {
                Some(target) => target.replicaset.clone(),
                None => return Err(Error::internal(format!("bucket {bucket} is not one of the table's tier"))),
            },
        };
        let group = groups.entry(owner).or_default();
        group.count += 1;
        group.bucket = bucket;
        group.bytes.extend_from_slice(&scratch);
    }
    Ok(groups)
}

/// Appends `[verb, tuple]` or `[verb, key, expected, operations]`; answers the bucket.
fn encode(writer: &RowWriter<'_>, table: &Table, change: &RowChange, out: &mut Vec<u8>) -> Result<BucketId> {
    let row = |verb: Verb, row: &[Value], out: &mut Vec<u8>| {
        write_array_len(out, 2);
        out.push(verb as u8);
        writer.row_of_values(row, out)
    };
    let keyed = |verb: Verb, key: &[Value], expected: &[(usize, Value)], set: &[(usize, Value)], out: &mut Vec<u8>| {
        write_array_len(out, 4);
        out.push(verb as u8);
        let bucket = writer.key_of_values(key, out)?;
        write_array_len(out, expected.len() * 2);
        for (column, value) in expected {
            write_uint(out, (column + table.stored_offset()) as u64);
            value.write_stored(out);
        }
        write_array_len(out, set.len());
        for (column, value) in set {
            if value.is_null() && !table.columns[*column].nullable {
                let message = format!("column \"{}\" can not be null", table.columns[*column].name);
                return Err(Error::new(Code::NullViolation, message));
            }
            write_array_len(out, 3);
            write_str(out, "=");
            write_uint(out, (column + table.stored_offset()) as u64);
            value.write_stored(out);
        }
        Ok(bucket)
    };
    match change {
        RowChange::Insert { row: values } => row(Verb::Insert, values, out),
        RowChange::InsertOrSkip { row: values } => row(Verb::InsertOrSkip, values, out),
        RowChange::Replace { row: values } => row(Verb::Replace, values, out),
        RowChange::Update { key, expected, set } => keyed(Verb::Update, key, expected, set, out),
        RowChange::Delete { key, expected } => keyed(Verb::Delete, key, expected, &[], out),
    }
}

fn array(group: &Group) -> Vec<u8> {
    let mut out = Vec::with_capacity(group.bytes.len() + 5);
    write_array_len(&mut out, group.count);
    out.extend_from_slice(&group.bytes);
    out
}

/// Sends the groups side by side and adds up what changed.
fn send(
    router: &'static Router,
    table: &Table,
    groups: BTreeMap<ReplicasetName, Group>,
    deadline: Deadline,
) -> Result<u64> {
    let task = |(owner, group): (ReplicasetName, Group)| -> Task<(ReplicasetName, Result<u64>)> {
        let table = table.id;
        Box::new(move || {
            let mut operation = Vec::with_capacity(group.bytes.len() + 16);
            write_op_head(&mut operation, Verb::Changes, 0, table, 1);
            operation.extend_from_slice(&array(&group));
            let request = Request { table, bucket: group.bucket, is_write: true, operation: &operation, deadline };
            let count = router.execute(&request).and_then(|reply| reply.done()?.count());
            (owner, count)
        })
    };
    let tasks: Vec<_> = groups.into_iter().map(task).collect();
    let outcomes = side_by_side::run("pico_write", TARGETS_MAX, tasks)?;
    let changed: u64 = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).sum();
    let done: Vec<&str> =
        outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(owner, _)| owner.as_str()).collect();
    let failed = outcomes.iter().find_map(|(owner, outcome)| outcome.as_ref().err().map(|error| (owner, error.clone())));
    match failed {
        None => Ok(changed),
        Some((_, error)) if done.is_empty() => Err(error),
        Some((owner, error)) => {
            let message = format!(
                "{} on replicaset {owner}; {changed} rows were changed on {}",
                error.message,
                done.join(", ")
            );
            Err(Error { message, ..error })
        }
    }
}
