//! Requests that touch many buckets: grouped by the replicaset that owns them, side by side, put together again.

use super::execute::{no_master, operate_at};
use super::{Master, Router, TableRoute, Target, peer};
use crate::host::Deadline;
use crate::side_by_side::{self, Task};
use crate::storage::{self, select};
use crud::retry::Failure;
use crud::scan::{Found, merge};
use crud::wire::{self, Answer, Mode, Verb};
use crud::{Layout, Selection};
use model::msgpack::{self, Reader};
use model::{BucketId, Code, Error, Result, TableId};
use sharding::BucketRange;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// Replicasets asked at the same time for one request.
const TARGETS_MAX: usize = 64;

/// Rows of one table on their way to the storages.
pub struct Rows {
    layout: Arc<Layout>,
    /// Each the element of a many-row operation: a tuple, or what an upsert takes.
    pub bytes: Vec<u8>,
    /// Where each row lies in `bytes`, and its bucket.
    pub places: Vec<(Range<usize>, BucketId)>,
    pub verb: Verb,
    pub mode: Mode,
}

impl Rows {
    pub fn new(layout: &Arc<Layout>, verb: Verb, mode: Mode) -> Rows {
        Rows { layout: Arc::clone(layout), bytes: Vec::new(), places: Vec::new(), verb, mode }
    }
}

/// A row that was not written.
pub struct RowFailure {
    pub position: usize,
    pub error: Error,
}

type Part = (Rc<Target>, Vec<usize>);
/// The rows of a part by their positions, and what came of them.
type PartOutcome = (Vec<usize>, Result<Vec<wire::Failure>, Failure>);

impl Router {
    /// Writes rows where their buckets live. Rows that met a moving bucket are sent again. Answers the rows that failed,
    /// in the order of the request.
    ///
    /// Errors: only when nothing is known of single rows.
    pub fn write_rows(&'static self, rows: Rows, deadline: Deadline) -> Result<Vec<RowFailure>> {
        let rows = Rc::new(rows);
        let mut left: Vec<usize> = (0..rows.places.len()).collect();
        let mut failures = Vec::new();
        let _: () = self.patiently(deadline, true, || {
            let parts = self.parts(&rows, &left).map_err(Failure::NotSent)?;
            let outcomes = self.send_parts(&rows, parts, deadline).map_err(Failure::NoAnswer)?;
            let (again, last) = sort_out(outcomes, &mut failures);
            left = again;
            match last {
                Some(failure) if !left.is_empty() && !deadline.has_passed() => Err(failure),
                Some(Failure::Refused(error, _) | Failure::NotSent(error) | Failure::NoAnswer(error)) => {
                    let late = crud::retry::out_of_time(&error);
                    failures.extend(left.drain(..).map(|position| RowFailure { position, error: late.clone() }));
                    Ok(())
                }
                None => Ok(()),
            }
        })?;
        failures.sort_by_key(|failure| failure.position);
        Ok(failures)
    }

    /// The rows that are left, by the replicaset that owns them now.
    fn parts(&self, rows: &Rows, left: &[usize]) -> Result<Vec<Part>> {
        let mut parts: HashMap<*const Target, Part> = HashMap::new();
        let snapshot = self.snapshot();
        let tier = snapshot.table_by_id(rows.layout.table.id)?.tier.clone();
        for &position in left {
            let bucket = rows.places[position].1;
            let target = tier.as_ref().and_then(|tier| tier.target(bucket));
            let target =
                target.ok_or_else(|| Error::internal(format!("bucket {bucket} is not one of the table's tier")))?;
            parts.entry(Rc::as_ptr(target)).or_insert_with(|| (Rc::clone(target), Vec::new())).1.push(position);
        }
        Ok(parts.into_values().collect())
    }

    fn send_parts(&'static self, rows: &Rc<Rows>, parts: Vec<Part>, deadline: Deadline) -> Result<Vec<PartOutcome>> {
        let task = |(target, positions): Part| -> Task<_> {
            let rows = Rc::clone(rows);
            Box::new(move || {
                let outcome = send_part(&rows, &target, &positions, deadline);
                (positions, outcome)
            })
        };
        side_by_side::run("pico_scatter", TARGETS_MAX, parts.into_iter().map(task).collect())
    }

    /// Finds rows on all replicasets that may have some, or counts them.
    ///
    /// Errors: those of the storages; `Timeout`.
    pub fn select(
        &'static self,
        route: &TableRoute,
        selection: Selection,
        count_only: bool,
        deadline: Deadline,
    ) -> Result<Found> {
        let table = route.layout.table.id;
        let order = selection.order(&route.layout)?;
        let bucket = selection.single_bucket(&route.writer())?;
        let selection = Rc::new(selection);
        let answers: Vec<Found> = self.patiently(deadline, false, || {
            let targets = self.targets(table, bucket).map_err(Failure::NotSent)?;
            let task = |(target, ranges): (Rc<Target>, Vec<BucketRange>)| -> Task<Result<Found, Failure>> {
                let (layout, selection) = (Arc::clone(&route.layout), Rc::clone(&selection));
                Box::new(move || select_at(&target, &layout, &selection, &ranges, count_only, deadline))
            };
            let tasks = targets.into_iter().map(task).collect();
            let answers = side_by_side::run("pico_scatter", TARGETS_MAX, tasks).map_err(Failure::NoAnswer)?;
            answers.into_iter().collect()
        })?;
        let count = answers.iter().map(|found| found.count).sum();
        let tuples = merge(&order, answers.into_iter().map(|found| found.tuples).collect(), selection.rows_max);
        Ok(Found { tuples, count })
    }

    /// Whom to ask for rows, and for which buckets: all owners, or the one of a bucket.
    fn targets(&self, table: TableId, bucket: Option<BucketId>) -> Result<Vec<(Rc<Target>, Vec<BucketRange>)>> {
        if let Some(bucket) = bucket {
            return Ok(vec![(self.target(table, bucket)?, vec![BucketRange::new(bucket, bucket)])]);
        }
        let snapshot = self.snapshot();
        let tier = snapshot.table_by_id(table)?.tier.as_ref();
        let targets = tier.map(|tier| tier.targets.as_slice()).unwrap_or_default();
        Ok(targets.iter().map(|target| (Rc::clone(target), target.ranges.clone())).collect())
    }
}

/// Sends one replicaset its rows; answers those that it refused, with their positions in the request.
fn send_part(
    rows: &Rows,
    target: &Target,
    positions: &[usize],
    deadline: Deadline,
) -> Result<Vec<wire::Failure>, Failure> {
    let bytes: usize = positions.iter().map(|position| rows.places[*position].0.len()).sum();
    let mut operation = Vec::with_capacity(bytes + 32);
    let table = &rows.layout.table;
    if rows.verb == Verb::Upsert {
        wire::write_op_head(&mut operation, Verb::Upserts, 0, table, 2);
    } else {
        wire::write_op_head(&mut operation, Verb::Rows, 0, table, 3);
        operation.push(rows.verb as u8);
    }
    operation.push(rows.mode as u8);
    msgpack::write_array_len(&mut operation, positions.len());
    for &position in positions {
        operation.extend_from_slice(&rows.bytes[rows.places[position].0.clone()]);
    }
    let answer = operate_at(target, &operation, table.durability, deadline)?;
    let done = match wire::read_answer(&mut Reader::new(&answer)).map_err(Failure::NoAnswer)? {
        Answer::Done(done) => done,
        Answer::Refused(error, version) => return Err(Failure::Refused(error, version)),
    };
    let (_, failures) = wire::read_done_rows(done).map_err(Failure::NoAnswer)?;
    Ok(in_request(failures, rows.mode, positions))
}

/// The failures of one part with their positions in the request, and the rows that fell with them.
fn in_request(failures: Vec<wire::Failure>, mode: Mode, positions: &[usize]) -> Vec<wire::Failure> {
    let fallen = match (mode, failures.first()) {
        (Mode::Each, _) | (_, None) => 0..0,
        (Mode::Stop, Some(first)) => first.position + 1..positions.len(),
        (Mode::Atomic, Some(_)) => 0..positions.len(),
    };
    let why = failures.first().map(|first| first.error.clone()).unwrap_or_else(|| Error::internal("no failure"));
    let is_passing =
        matches!(crud::retry::next(Failure::Refused(why.clone(), 0), true), crud::retry::Next::Wait { .. });
    let because = if is_passing { why } else { Error::new(Code::Cancelled, "not written, because another row failed") };
    let first = failures.first().map(|first| first.position);
    let fallen =
        fallen.filter(|at| Some(*at) != first).map(|position| wire::Failure { position, error: because.clone() });
    let all = failures.into_iter().chain(fallen);
    all.filter_map(|failure| positions.get(failure.position).map(|&position| wire::Failure { position, ..failure }))
        .collect()
}

/// Tells the rows that failed for good, which are added to `failures`, from those to send again; answers the latter and
/// why.
fn sort_out(outcomes: Vec<PartOutcome>, failures: &mut Vec<RowFailure>) -> (Vec<usize>, Option<Failure>) {
    let (mut again, mut last) = (Vec::new(), None);
    let mut fail = |positions: Vec<usize>, failure: Failure| match crud::retry::next(failure.clone(), true) {
        crud::retry::Next::Wait { .. } => {
            again.extend(positions);
            last = Some(failure);
        }
        crud::retry::Next::Fail(error) => {
            failures.extend(positions.into_iter().map(|position| RowFailure { position, error: error.clone() }));
        }
    };
    for (positions, outcome) in outcomes {
        match outcome {
            Err(failure) => fail(positions, failure),
            Ok(refused) => {
                for wire::Failure { position, error } in refused {
                    fail(vec![position], Failure::Refused(error, 0));
                }
            }
        }
    }
    again.sort_unstable();
    (again, last)
}

fn select_at(
    target: &Target,
    layout: &Layout,
    selection: &Selection,
    ranges: &[BucketRange],
    count_only: bool,
    deadline: Deadline,
) -> Result<Found, Failure> {
    let peer = match &target.master {
        None => return Err(no_master(target)),
        Some(Master::Here) => {
            let found = storage::get().and_then(|storage| storage.select(layout, selection, ranges, count_only));
            return found.map_err(|error| Failure::Refused(error, 0));
        }
        Some(Master::At(peer)) => peer,
    };
    let mut args = Vec::new();
    msgpack::write_array_len(&mut args, 4);
    msgpack::write_uint(&mut args, layout.table.id.into());
    selection.write(&mut args);
    select::write_ranges(ranges, &mut args);
    msgpack::write_bool(&mut args, count_only);
    let answer = peer::call(peer, select::DOOR, &args, deadline)?;
    read_found(&answer, count_only).map_err(Failure::NoAnswer)
}

fn read_found(answer: &[u8], count_only: bool) -> Result<Found> {
    let broken = |_| Error::new(Code::Internal, "another instance sent rows that can not be read");
    let mut reader = Reader::new(answer);
    if count_only {
        return Ok(Found { count: reader.uint().map_err(broken)?, ..Found::default() });
    }
    let len = reader.array_len().map_err(broken)?;
    let mut tuples = Vec::with_capacity(len);
    for _ in 0..len {
        tuples.push(reader.raw().map_err(broken)?.to_vec());
    }
    Ok(Found { count: len as u64, tuples })
}
