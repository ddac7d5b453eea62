//! Statements on a key or a few, on the fiber that received them: bound to their parameters, sent like crud's operations.

use crate::host::Deadline;
use crate::router::execute::Request;
use crate::router::scatter::{RowFailure, Rows};
use crate::router::{self, Snapshot, TableRoute};
use crate::storage::global;
use crud::report::Report;
use crud::wire::{Mode, Verb};
use model::msgpack::{Reader, write_array_len, write_map_len, write_str, write_uint};
use model::{Code, Result};
use sql::front::point::{Action, BoundPlan, Outcome, PointPlan};
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

thread_local! {
    /// Buffers of executions that are over.
    static SPARE: RefCell<Vec<Buffers>> = RefCell::default();
}

/// Executions whose buffers are kept.
const SPARE_MAX: usize = 256;

#[derive(Default)]
struct Buffers {
    bound: BoundPlan,
    operation: Vec<u8>,
}

/// Carries the plan out and writes the answer to `out`; false when the parameters make it a statement for the engine.
///
/// Errors: as crud's functions.
pub fn execute(
    plan: &PointPlan,
    snapshot: &Snapshot,
    params: &[u8],
    deadline: Deadline,
    out: &mut Vec<u8>,
) -> Result<bool> {
    let route = Rc::clone(snapshot.table_by_id(plan.layout.table.id)?);
    let mut buffers = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let result = match plan.bind(params, &route.writer(), &mut buffers.bound) {
        Ok(Outcome::Ready) => run(plan, &route, deadline, &mut buffers, out),
        Ok(Outcome::Engine) => Ok(false),
        Err(error) => Err(error),
    };
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffers);
        }
    });
    result
}

fn run(
    plan: &PointPlan,
    route: &TableRoute,
    deadline: Deadline,
    buffers: &mut Buffers,
    out: &mut Vec<u8>,
) -> Result<bool> {
    match &plan.action {
        Action::Select(_) => select(plan, route, deadline, buffers, out).map(|()| true),
        // What a batch of several rows skipped, its answer does not count.
        Action::Insert { verb: Verb::InsertOrSkip, .. } if route.tier.is_some() && buffers.bound.len() > 1 => Ok(false),
        Action::Insert { verb, .. } => insert(*verb, route, deadline, buffers, out).map(|()| true),
        // Each key is a transaction of its own: several are the engine's, which groups them.
        Action::Update { .. } | Action::Delete { .. } if route.tier.is_some() && buffers.bound.len() == 1 => {
            change(plan, route, deadline, buffers, out).map(|()| true)
        }
        Action::Update { .. } | Action::Delete { .. } => Ok(false),
    }
}

fn select(
    plan: &PointPlan,
    route: &TableRoute,
    deadline: Deadline,
    buffers: &mut Buffers,
    out: &mut Vec<u8>,
) -> Result<()> {
    let Buffers { bound, operation } = buffers;
    let mut rows = Vec::new();
    let mut count = 0;
    for at in 0..bound.len() {
        let (key, bucket) = bound.item(at);
        if route.tier.is_none() {
            let mut tuple = Vec::new();
            if global::get(&route.layout, key, &mut tuple)? {
                count += usize::from(plan.write_row(bound, &tuple, &mut rows)?);
            }
            continue;
        }
        operation.clear();
        plan.write_operation(bound, at, operation);
        let request = Request { route, bucket, is_write: false, operation, deadline };
        let reply = router::get()?.execute(&request)?;
        if let Some(tuple) = reply.done()?.first {
            count += usize::from(plan.write_row(bound, tuple, &mut rows)?);
        }
    }
    write_map_len(out, 2);
    write_str(out, "metadata");
    out.extend_from_slice(plan.metadata().unwrap_or(&[0x90]));
    write_str(out, "rows");
    write_array_len(out, count);
    out.extend_from_slice(&rows);
    Ok(())
}

fn insert(verb: Verb, route: &TableRoute, deadline: Deadline, buffers: &mut Buffers, out: &mut Vec<u8>) -> Result<()> {
    let bound = &buffers.bound;
    let inserted = if route.tier.is_none() {
        let rows: Vec<&[u8]> = (0..bound.len()).map(|at| bound.item(at).0).collect();
        router::global::write_rows(&route.layout, verb, rows.into_iter(), deadline)?
    } else if bound.len() == 1 {
        let (tuple, bucket) = bound.item(0);
        buffers.operation.clear();
        crud::wire::write_op_head(&mut buffers.operation, verb, crud::wire::FLAG_NO_RETURN, &route.layout.table, 1);
        buffers.operation.extend_from_slice(tuple);
        let request = Request { route, bucket, is_write: true, operation: &buffers.operation, deadline };
        let reply = router::get()?.execute(&request)?;
        if verb == Verb::InsertOrSkip { count(reply.done()?.first)? } else { 1 }
    } else {
        insert_many(verb, route, deadline, bound)?
    };
    write_count(out, inserted);
    Ok(())
}

/// Rows of several buckets: all or none on each replicaset.
fn insert_many(verb: Verb, route: &TableRoute, deadline: Deadline, bound: &BoundPlan) -> Result<u64> {
    let mut rows = Rows::new(&route.layout, verb, Mode::Atomic);
    rows.places.reserve(bound.len());
    for at in 0..bound.len() {
        let (tuple, bucket) = bound.item(at);
        let start = rows.bytes.len();
        rows.bytes.extend_from_slice(tuple);
        rows.places.push((start..rows.bytes.len(), bucket));
    }
    let failures = router::get()?.write_rows(rows, deadline)?;
    if failures.is_empty() {
        return Ok(bound.len() as u64);
    }
    let tier = route.tier.as_ref();
    let owner = |at: usize| tier.and_then(|tier| tier.target(bound.item(at).1)).map(|target| &target.replicaset);
    let mut report = Report::default();
    for at in (0..bound.len()).filter(|at| failures.iter().all(|failure| failure.position != *at)) {
        owner(at).into_iter().for_each(|replicaset| report.done(replicaset, 1));
    }
    // Rows that fell with another one say less than that one.
    let is_cause = |failure: &&RowFailure| failure.error.code != Code::Cancelled;
    let mut named = HashSet::new();
    for failure in failures.iter().filter(is_cause) {
        if let Some(replicaset) = owner(failure.position).filter(|replicaset| named.insert((*replicaset).clone())) {
            report.failed(replicaset, failure.error.clone());
        }
    }
    report.into_result(failures.into_iter().next().map(|failure| failure.error))
}

fn change(
    plan: &PointPlan,
    route: &TableRoute,
    deadline: Deadline,
    buffers: &mut Buffers,
    out: &mut Vec<u8>,
) -> Result<()> {
    let Buffers { bound, operation } = buffers;
    let (_, bucket) = bound.item(0);
    operation.clear();
    plan.write_operation(bound, 0, operation);
    let request = Request { route, bucket, is_write: true, operation, deadline };
    let reply = router::get()?.execute(&request)?;
    write_count(out, reply.done()?.first.is_some().into());
    Ok(())
}

/// The number in an answer.
fn count(answer: Option<&[u8]>) -> Result<u64> {
    Reader::new(answer.unwrap_or(&[0])).uint()
}

fn write_count(out: &mut Vec<u8>, count: u64) {
    write_map_len(out, 1);
    write_str(out, "row_count");
    write_uint(out, count);
}
