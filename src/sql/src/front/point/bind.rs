//! A point plan and its parameters, made into operations.
//!
//! This runs on the tx thread for every execution. The buffers are the caller's and are used again; in the common case
//! (integers and strings of the right type) values are copied from the parameters to the key as bytes.

use super::super::params::wrong_count;
use super::{Action, Exact, Filter, PointPlan, Source, write_exact};
use crud::selection::Operator;
use crud::wire::{self, Verb};
use crud::{RowWriter, compare, update};
use model::msgpack::{self, Reader};
use model::{BucketId, Code, Error, Result};
use std::cmp::Ordering;

/// How an attempt to bind ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bound items are all that the statement touches; with none it touches nothing.
    Ready,
    /// The values are not of the columns' own types: the engine has the rules.
    Engine,
}

/// Buffers for one execution of a plan. Used again and again without allocating.
#[derive(Debug, Default)]
pub struct BoundPlan {
    /// Tuples of an INSERT, keys of everything else, as box takes them, one after the other.
    items: Vec<u8>,
    /// Where each ends, and its bucket (0 in a global table).
    ends: Vec<(usize, BucketId)>,
    /// The host's update operations.
    operations: Vec<u8>,
    check: bool,
    /// The filters' values, one after the other.
    filters: Vec<u8>,
    /// Where each parameter ends in the request; the first starts at `params_start`.
    params: Vec<usize>,
    params_start: usize,
    scratch: Vec<u8>,
    parts: Vec<usize>,
}

impl BoundPlan {
    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A tuple or key and its bucket. Panics when `at` is not below `len`.
    pub fn item(&self, at: usize) -> (&[u8], BucketId) {
        let start = if at == 0 { 0 } else { self.ends[at - 1].0 };
        let (end, bucket) = self.ends[at];
        (&self.items[start..end], bucket)
    }

    fn read_params(&mut self, bytes: &[u8], wanted: usize) -> Result<()> {
        self.params.clear();
        self.params_start = 0;
        if bytes.is_empty() && wanted == 0 {
            return Ok(());
        }
        let mut reader = Reader::new(bytes);
        let given = reader.array_len().map_err(|_| Error::new(Code::Argument, "parameters are an array of values"))?;
        if given != wanted {
            return Err(wrong_count(wanted, given));
        }
        self.params_start = bytes.len() - reader.rest().len();
        for _ in 0..given {
            reader.skip()?;
            self.params.push(bytes.len() - reader.rest().len());
        }
        Ok(())
    }

    fn param<'a>(&self, bytes: &'a [u8], at: usize) -> &'a [u8] {
        let start = if at == 0 { self.params_start } else { self.params[at - 1] };
        &bytes[start..self.params[at]]
    }
}

impl PointPlan {
    /// Fills `bound` for these parameters: MessagePack of an array, or nothing where the plan takes none.
    ///
    /// Errors: `Argument` for a wrong number of parameters or broken bytes; in an INSERT or UPDATE `NullViolation`,
    /// `WrongType`, `ValueOutOfRange` for values that their columns do not take.
    pub fn bind(&self, params: &[u8], writer: &RowWriter<'_>, bound: &mut BoundPlan) -> Result<Outcome> {
        bound.items.clear();
        bound.ends.clear();
        bound.operations.clear();
        bound.filters.clear();
        bound.read_params(params, self.params_count)?;
        match &self.action {
            Action::Select(select) => {
                if self.filters(&select.filters, params, bound) == Exact::Unclear {
                    return Ok(Outcome::Engine);
                }
                self.keys(&select.keys, params, writer, bound)
            }
            Action::Delete { keys } => self.keys(keys, params, writer, bound),
            Action::Insert { rows, .. } => {
                rows.iter().try_for_each(|row| insert_row(row, params, writer, bound)).map(|()| Outcome::Ready)
            }
            Action::Update { key, assignments } => {
                let mut user = std::mem::take(&mut bound.scratch);
                user.clear();
                msgpack::write_array_len(&mut user, assignments.len());
                let mut is_plain = true;
                for assignment in assignments {
                    let value = source(&assignment.value, params, bound);
                    // NULL + 1 is NULL, which the host's addition does not know.
                    is_plain &= assignment.operator == "=" || is_integer(value);
                    msgpack::write_array_len(&mut user, 3);
                    msgpack::write_str(&mut user, assignment.operator);
                    msgpack::write_uint(&mut user, assignment.column as u64 + 1);
                    user.extend_from_slice(value);
                }
                let check =
                    is_plain.then(|| update::translate(&self.layout, &mut Reader::new(&user), &mut bound.operations));
                bound.scratch = user;
                let Some(check) = check else { return Ok(Outcome::Engine) };
                bound.check = check?;
                self.keys(std::slice::from_ref(key), params, writer, bound)
            }
        }
    }

    /// Appends the operation for item `at`, as the router sends it.
    pub fn write_operation(&self, bound: &BoundPlan, at: usize, out: &mut Vec<u8>) {
        let table = &*self.layout.table;
        let (item, _) = bound.item(at);
        match &self.action {
            Action::Select(_) => wire::write_op_head(out, Verb::Get, 0, table, 1),
            Action::Delete { .. } => wire::write_op_head(out, Verb::Delete, 0, table, 1),
            Action::Insert { verb, .. } => wire::write_op_head(out, *verb, wire::FLAG_NO_RETURN, table, 1),
            Action::Update { .. } => {
                let flags = if bound.check { wire::FLAG_CHECK } else { 0 };
                wire::write_op_head(out, Verb::Update, flags, table, 2);
            }
        }
        out.extend_from_slice(item);
        out.extend_from_slice(&bound.operations);
    }

    /// Appends the row that the user gets of a stored tuple, and answers true; or false when a filter rejects it.
    ///
    /// Errors: `Argument` or `Corrupted` when the tuple is not one of the table.
    pub fn write_row(&self, bound: &BoundPlan, tuple: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let Action::Select(select) = &self.action else { return Ok(false) };
        let mut values = Reader::new(&bound.filters);
        for filter in &select.filters {
            let value = values.raw()?;
            let field = self.layout.column(tuple, filter.column);
            let field = field.ok_or_else(|| Error::new(Code::Corrupted, "a stored tuple is too short"))?;
            if field == [0xc0] || !holds(filter.operator, compare::compare(filter.ty, field, value)) {
                return Ok(false);
            }
        }
        crud::answer::write_row(&self.layout, select.projection.as_ref(), tuple, out)?;
        Ok(true)
    }

    fn filters(&self, filters: &[Filter], params: &[u8], bound: &mut BoundPlan) -> Exact {
        for filter in filters {
            match &filter.value {
                Source::Constant(bytes) => bound.filters.extend_from_slice(bytes),
                Source::Param(at) => {
                    let value = bound.param(params, *at);
                    // What is equal to no value may still be less than some: not decided here.
                    if write_exact(filter.ty, value, &mut bound.filters) != Exact::Is {
                        return Exact::Unclear;
                    }
                }
            }
        }
        Exact::Is
    }

    /// Appends the keys, each once. A key that no row can have is left out.
    fn keys(
        &self,
        keys: &[Vec<Source>],
        params: &[u8],
        writer: &RowWriter<'_>,
        bound: &mut BoundPlan,
    ) -> Result<Outcome> {
        for key in keys {
            match self.key(key, params, writer, bound)? {
                Exact::Is | Exact::Never => {}
                Exact::Unclear => return Ok(Outcome::Engine),
            }
        }
        Ok(Outcome::Ready)
    }

    fn key(&self, key: &[Source], params: &[u8], writer: &RowWriter<'_>, bound: &mut BoundPlan) -> Result<Exact> {
        let table = &self.layout.table;
        bound.scratch.clear();
        bound.parts.clear();
        for (part, position) in key.iter().zip(&table.primary_key) {
            bound.parts.push(bound.scratch.len());
            match part {
                Source::Constant(bytes) => bound.scratch.extend_from_slice(bytes),
                Source::Param(at) => {
                    let value = bound.param(params, *at);
                    match write_exact(table.columns[*position].ty, value, &mut bound.scratch) {
                        Exact::Is => {}
                        other => return Ok(other),
                    }
                }
            }
        }
        let bucket = self.write_key(writer, bound)?;
        let start = bound.ends.last().map_or(0, |(end, _)| *end);
        let is_known = (0..bound.len()).any(|at| bound.item(at).0 == &bound.items[start..]);
        if is_known {
            bound.items.truncate(start);
        } else {
            bound.ends.push((bound.items.len(), bucket));
        }
        Ok(Exact::Is)
    }

    /// Appends the primary index's key of the parts in the scratch; answers the bucket.
    fn write_key(&self, writer: &RowWriter<'_>, bound: &mut BoundPlan) -> Result<BucketId> {
        let parts = bound.parts.len();
        if !self.layout.is_sharded() {
            msgpack::write_array_len(&mut bound.items, parts);
            bound.items.extend_from_slice(&bound.scratch);
            return Ok(0);
        }
        let mut hasher = sharding::KeyHasher::default();
        for &place in &self.layout.sharding_in_key {
            hasher.push_raw(&mut Reader::new(&bound.scratch[bound.parts[place]..]))?;
        }
        let bucket = sharding::bucket_of(hasher.finish(), writer.bucket_count);
        msgpack::write_array_len(&mut bound.items, parts + 1);
        msgpack::write_uint(&mut bound.items, bucket.into());
        bound.items.extend_from_slice(&bound.scratch);
        Ok(bucket)
    }
}

fn source<'a>(source: &'a Source, params: &'a [u8], bound: &BoundPlan) -> &'a [u8] {
    match source {
        Source::Param(at) => bound.param(params, *at),
        Source::Constant(bytes) => bytes,
    }
}

fn insert_row(row: &[Source], params: &[u8], writer: &RowWriter<'_>, bound: &mut BoundPlan) -> Result<()> {
    let mut given = std::mem::take(&mut bound.scratch);
    given.clear();
    msgpack::write_array_len(&mut given, row.len());
    row.iter().for_each(|value| given.extend_from_slice(source(value, params, bound)));
    let bucket = writer.row(&mut Reader::new(&given), &mut bound.items);
    bound.scratch = given;
    bound.ends.push((bound.items.len(), bucket?));
    Ok(())
}

fn is_integer(raw: &[u8]) -> bool {
    matches!(raw.first(), Some(0x00..=0x7f | 0xe0..=0xff | 0xcc..=0xce | 0xd0..=0xd3))
}

fn holds(operator: Operator, ordering: Ordering) -> bool {
    match operator {
        Operator::Equal => ordering.is_eq(),
        Operator::Less => ordering.is_lt(),
        Operator::LessOrEqual => ordering.is_le(),
        Operator::GreaterOrEqual => ordering.is_ge(),
        Operator::Greater => ordering.is_gt(),
    }
}
