//! `BEGIN; ...; COMMIT` in one text: statements on keys that all live on one replicaset, run there as one transaction.
//!
//! Nothing is read before the transaction begins: each statement is a point statement, whose operation the storage runs in
//! its turn, so a statement sees what those before it did, and nobody sees a part of it.

use super::execute::{Answer, RowSet};
use super::parse::Parsed;
use super::point::{Action, BoundPlan, Outcome, PointPlan, recognise};
use super::queries::ResultColumn;
use super::statement::Statement;
use crate::cluster::{Cluster, Operation};
use crud::RowWriter;
use crud::wire::{self, Verb};
use model::msgpack::Reader;
use model::{Code, Distribution, Error, Result, Value};
use std::sync::Arc;
use std::time::Instant;

/// One statement on its way.
struct Part {
    plan: PointPlan,
    bound: BoundPlan,
}

/// Runs the statements as one transaction; answers what each came to.
///
/// Errors: `Unsupported` for statements that are on no key, `InvalidStatement` for keys on several replicasets, and what
/// any statement fails with; then nothing was changed.
pub(super) async fn run(
    statements: &[Statement],
    params: &[Value],
    cluster: &Arc<dyn Cluster>,
    deadline: Instant,
) -> Result<Vec<Answer>> {
    let schema = cluster.schema();
    let mut raw = Vec::new();
    Value::Array(params.to_vec()).write_shown(&mut raw);
    let (mut parts, mut operations) = (Vec::with_capacity(statements.len()), Vec::new());
    for (number, statement) in statements.iter().enumerate() {
        let parsed = Parsed { statement: statement.clone(), params_count: params.len() };
        let plan = recognise(&parsed, &*schema).ok_or_else(|| not_on_keys(number, statement))?;
        let buckets = match &plan.layout.table.distribution {
            Distribution::Sharded { tier, .. } => schema.bucket_count(tier).unwrap_or(0),
            Distribution::Global => 0,
        };
        let mut bound = BoundPlan::default();
        if plan.bind(&raw, &RowWriter::new(&plan.layout, buckets), &mut bound)? == Outcome::Engine {
            return Err(not_on_keys(number, statement).with_hint("pass values of the columns' own types"));
        }
        for at in 0..bound.len() {
            let mut bytes = Vec::new();
            plan.write_operation(&bound, at, &mut bytes);
            operations.push(Operation { table: plan.layout.table.clone(), bucket: bound.item(at).1, bytes });
        }
        parts.push(Part { plan, bound });
    }
    if operations.is_empty() {
        return parts.iter().map(|part| part.answer(&mut Reader::new(&[]))).collect();
    }
    let answers = cluster.transaction(operations, deadline).await?;
    let mut reader = Reader::new(&answers);
    reader.array_len()?;
    parts.iter().map(|part| part.answer(&mut reader)).collect()
}

fn not_on_keys(number: usize, statement: &Statement) -> Error {
    let message =
        format!("statement {} of the transaction ({}) is none that a transaction takes", number + 1, statement.kind());
    Error::new(Code::Unsupported, message).with_hint(
        "a transaction takes SELECT of columns, UPDATE and DELETE with the whole primary key in WHERE, and INSERT of literals \
         and parameters, of sharded tables, without RETURNING; UPDATE sets constants, or adds them to columns that are NOT NULL",
    )
}

impl Part {
    /// Consumes the answers to this statement's operations.
    fn answer(&self, answers: &mut Reader<'_>) -> Result<Answer> {
        let (mut rows, mut count, mut changed) = (Vec::new(), 0, 0);
        for _ in 0..self.bound.len() {
            let done = match wire::read_answer(answers)? {
                wire::Answer::Done(done) => done,
                wire::Answer::Refused(error, _) => return Err(error),
            };
            match &self.plan.action {
                Action::Select(_) => {
                    if let Some(tuple) = done.first {
                        count += usize::from(self.plan.write_row(&self.bound, tuple, &mut rows)?);
                    }
                }
                Action::Insert { verb: Verb::InsertOrSkip, .. } => {
                    changed += done.first.map_or(Ok(0), |count| Reader::new(count).uint())?;
                }
                Action::Insert { .. } => changed += 1,
                Action::Update { .. } | Action::Delete { .. } => changed += u64::from(done.first.is_some()),
            }
        }
        match self.plan.metadata() {
            Some(metadata) => Ok(Answer::Rows(RowSet { columns: ResultColumn::read_all(metadata)?, rows, count })),
            None => Ok(Answer::Count(changed)),
        }
    }
}
