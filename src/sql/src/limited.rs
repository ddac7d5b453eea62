//! Where the two halves of this room meet: the query engine as the front asks for it, within the cluster's limits.

use crate::cluster::Cluster;
use crate::engine::{Engine, Limits, QueryInput as EngineInput, QueryOutput, encode};
use crate::front::{QueryEngine, QueryRequest, ResultColumn, RowStream};
use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use model::msgpack::Reader;
use model::{Result, Value};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The engine with the limits that the cluster's settings give each query.
pub struct LimitedEngine {
    pub engine: Arc<Engine>,
    pub rows_max: AtomicUsize,
    pub memory_bytes_max: AtomicUsize,
}

impl LimitedEngine {
    fn input(&self, input: QueryRequest) -> EngineInput {
        EngineInput {
            query: *input.query,
            params: Vec::new(),
            limits: Limits {
                rows_max: input.rows_max.min(self.rows_max.load(Ordering::Relaxed)),
                memory_bytes_max: self.memory_bytes_max.load(Ordering::Relaxed),
                deadline: input.deadline,
            },
        }
    }
}

#[async_trait]
impl QueryEngine for LimitedEngine {
    async fn query(&self, cluster: &Arc<dyn Cluster>, input: QueryRequest) -> Result<Box<dyn RowStream>> {
        let output = self.engine.query(Arc::clone(cluster), self.input(input)).await?;
        Ok(Box::new(Rows::new(output)))
    }

    async fn explain(&self, cluster: &Arc<dyn Cluster>, input: QueryRequest, analyze: bool) -> Result<Vec<String>> {
        let input = self.input(input);
        if analyze {
            self.engine.explain_analyze(Arc::clone(cluster), input).await
        } else {
            self.engine.explain(Arc::clone(cluster), input).await
        }
    }
}

/// A result that is handed out batch by batch.
struct Rows {
    columns: Vec<ResultColumn>,
    batches: VecDeque<RecordBatch>,
}

impl Rows {
    fn new(output: QueryOutput) -> Self {
        let columns = output.columns.into_iter().map(|(name, ty)| ResultColumn { name, ty }).collect();
        Self { columns, batches: output.batches.into() }
    }
}

#[async_trait]
impl RowStream for Rows {
    fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }

    async fn next_encoded(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>> {
        let Some(batch) = self.batches.pop_front() else { return Ok(None) };
        encode::write_batch(&batch, out)?;
        Ok(Some(batch.num_rows()))
    }

    async fn next_values(&mut self) -> Result<Option<Vec<Vec<Value>>>> {
        let mut bytes = Vec::new();
        let Some(count) = self.next_encoded(&mut bytes).await? else { return Ok(None) };
        let mut reader = Reader::new(&bytes);
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            let width = reader.array_len()?;
            rows.push((0..width).map(|_| reader.value()).collect::<Result<Vec<_>>>()?);
        }
        Ok(Some(rows))
    }
}
