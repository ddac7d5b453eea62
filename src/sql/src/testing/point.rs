//! The point path over a cluster in memory: what routers and storages do with the operations of a `PointPlan`.

use super::MemoryCluster;
use crate::cluster::{Bound, BucketRange, KeyRange, RowChange, ScanRequest};
use crate::front::point::{BoundPlan, Outcome, PointPlan, recognise};
use crate::front::{Answer, ResultColumn, RowSet, parse};
use crud::RowWriter;
use crud::wire::{Op, Verb};
use model::msgpack::Reader;
use model::{BucketId, Code, ColumnType, Error, Result, Table, Value};
use std::sync::Arc;
use std::time::Instant;

/// Carries a statement out if it is a point statement; None when it is the engine's.
pub async fn run(cluster: &MemoryCluster, text: &str, params: &[Value], deadline: Instant) -> Result<Option<Answer>> {
    let schema = cluster.node(0).schema();
    let Ok(parsed) = parse(text) else { return Ok(None) };
    let Some(plan) = recognise(&parsed, &*schema) else { return Ok(None) };
    let bucket_count = match &plan.layout.table.distribution {
        model::Distribution::Sharded { tier, .. } => schema.bucket_count(tier).unwrap_or(0),
        model::Distribution::Global => 0,
    };
    let (mut raw, mut bound) = (Vec::new(), BoundPlan::default());
    Value::Array(params.to_vec()).write_shown(&mut raw);
    if plan.bind(&raw, &RowWriter::new(&plan.layout, bucket_count), &mut bound)? == Outcome::Engine {
        return Ok(None);
    }
    let point = Point { cluster, plan: &plan, bound: &bound, deadline };
    point.run().await.map(Some)
}

struct Point<'a> {
    cluster: &'a MemoryCluster,
    plan: &'a PointPlan,
    bound: &'a BoundPlan,
    deadline: Instant,
}

impl Point<'_> {
    fn table(&self) -> &Arc<Table> {
        &self.plan.layout.table
    }

    async fn run(&self) -> Result<Answer> {
        let (mut rows, mut count, mut changes) = (Vec::new(), 0, Vec::new());
        for at in 0..self.bound.len() {
            let mut operation = Vec::new();
            self.plan.write_operation(self.bound, at, &mut operation);
            let op = Op::read(&mut Reader::new(&operation))?;
            let bucket = self.bound.item(at).1;
            if op.verb == Verb::Get {
                if let Some(tuple) = self.get(&self.values(op.payload, &self.table().primary_key)?, bucket).await? {
                    count += usize::from(self.plan.write_row(self.bound, &tuple, &mut rows)?);
                }
            } else {
                changes.extend(self.change(&op, bucket).await?);
            }
        }
        match self.plan.metadata() {
            Some(metadata) => Ok(Answer::Rows(RowSet { columns: ResultColumn::read_all(metadata)?, rows, count })),
            None => self.cluster.node(0).write(self.table(), changes, self.deadline).await.map(Answer::Count),
        }
    }

    /// The values of a tuple or key, of these columns.
    fn values(&self, mut payload: Reader<'_>, columns: &[usize]) -> Result<Vec<Value>> {
        payload.array_len()?;
        if self.plan.layout.is_sharded() {
            payload.skip()?;
        }
        columns.iter().map(|at| Value::read_stored(&mut payload, self.table().columns[*at].ty)).collect()
    }

    async fn change(&self, op: &Op<'_>, bucket: BucketId) -> Result<Option<RowChange>> {
        let all: Vec<usize> = (0..self.table().columns.len()).collect();
        let key = || self.values(op.payload, &self.table().primary_key);
        Ok(Some(match op.verb {
            Verb::Insert => RowChange::Insert { row: self.values(op.payload, &all)? },
            Verb::InsertOrSkip => RowChange::InsertOrSkip { row: self.values(op.payload, &all)? },
            Verb::Replace => RowChange::Replace { row: self.values(op.payload, &all)? },
            Verb::Delete => RowChange::Delete { key: key()?, expected: Vec::new() },
            Verb::Update => {
                let key = key()?;
                let Some(tuple) = self.get(&key, bucket).await? else { return Ok(None) };
                let old = self.plan.layout.values_of_stored(&tuple)?;
                let mut operations = op.payload;
                operations.skip()?;
                RowChange::Update { key, expected: Vec::new(), set: self.updated(old, operations)? }
            }
            other => return Err(Error::internal(format!("{other:?} is no operation of a point statement"))),
        }))
    }

    /// The new values, as the host computes them and the storage checks them.
    fn updated(&self, mut row: Vec<Value>, mut operations: Reader<'_>) -> Result<Vec<(usize, Value)>> {
        let mut set = Vec::new();
        for _ in 0..operations.array_len()? {
            operations.array_len()?;
            let operator = operations.str()?;
            let column = operations.uint()? as usize - 1 - self.table().stored_offset();
            let ty = self.table().columns[column].ty;
            let argument = Value::read_stored(&mut operations, ty)?;
            row[column] = match (operator, &row[column], argument) {
                ("+", Value::Integer(a), Value::Integer(b)) => summed(a.checked_add(b), ty)?,
                ("-", Value::Integer(a), Value::Integer(b)) => summed(a.checked_sub(b), ty)?,
                (_, _, argument) => argument,
            };
            set.push((column, row[column].clone()));
        }
        Ok(set)
    }

    async fn get(&self, key: &[Value], bucket: BucketId) -> Result<Option<Vec<u8>>> {
        let placement = self.cluster.node(0).schema().placement(&super::TIER.into());
        let owner = placement.iter().position(|range| range.buckets.contains(bucket)).unwrap_or(0);
        let bound = Some(Bound { values: key.to_vec(), inclusive: true });
        let request = ScanRequest {
            table: self.table().clone(),
            index: 0,
            buckets: vec![BucketRange::new(bucket, bucket)],
            ranges: vec![KeyRange { lower: bound.clone(), upper: bound, bucket: None }],
            descending: false,
            count_only: false,
            columns: Vec::new(),
            rows_max: Some(1),
        };
        let node = self.cluster.node(owner);
        let moment = node.moment(vec![request.table.id], 1, None);
        let mut scan = node.scan(request, moment).await?;
        Ok(scan.next().await?.map(|batch| batch.bytes))
    }
}

fn summed(sum: Option<i64>, ty: ColumnType) -> Result<Value> {
    let sum = sum.ok_or_else(|| Error::new(Code::ValueOutOfRange, "the sum does not fit"))?;
    Value::Integer(sum).coerce(ty)
}
