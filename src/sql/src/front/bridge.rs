//! The query engine as the front asks for it. The only file of the front that knows the engine.

use super::places::Places;
use super::queries::{QueryEngine, QueryRequest, ResultColumn, RowStream};
use crate::cluster::Cluster;
use crate::engine::bounds::rows_to_copy;
use crate::engine::errors::translate;
use crate::engine::{Engine, Limits, QueryInput, QueryOutput, encode};
use async_trait::async_trait;
use model::msgpack::Reader;
use model::{Error, Result, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bounds that may change while queries run; a query takes those of its beginning.
#[derive(Debug)]
pub struct QueryBounds {
    pub rows_max: AtomicUsize,
    pub memory_bytes_max: AtomicUsize,
    /// How many queries run at the same time.
    pub places: Places,
}

impl QueryBounds {
    /// Memory in bytes, of one query on one instance.
    pub fn new(rows_max: usize, memory_bytes_max: usize, concurrent_max: usize) -> Self {
        Self {
            rows_max: rows_max.into(),
            memory_bytes_max: memory_bytes_max.into(),
            places: Places::new(concurrent_max),
        }
    }
}

/// The engine with bounds on each query.
#[derive(Clone)]
pub struct EngineQueries {
    pub engine: Arc<Engine>,
    pub bounds: Arc<QueryBounds>,
}

impl EngineQueries {
    fn input(&self, request: QueryRequest) -> QueryInput {
        let limits = Limits {
            rows_max: request.rows_max.min(self.bounds.rows_max.load(Ordering::Relaxed)),
            memory_bytes_max: request.memory_bytes_max.min(self.bounds.memory_bytes_max.load(Ordering::Relaxed)),
            deadline: request.deadline,
        };
        QueryInput { query: *request.query, params: Vec::new(), limits, stop: request.stop }
    }
}

#[async_trait]
impl QueryEngine for EngineQueries {
    async fn query(&self, cluster: &Arc<dyn Cluster>, request: QueryRequest) -> Result<Box<dyn RowStream>> {
        let _place = self.bounds.places.take(request.deadline).await?;
        let output = self.engine.query(cluster.clone(), self.input(request)).await?;
        Ok(Box::new(Batches::new(output)))
    }

    async fn explain(&self, cluster: &Arc<dyn Cluster>, request: QueryRequest, analyze: bool) -> Result<Vec<String>> {
        let _place = self.bounds.places.take(request.deadline).await?;
        let input = self.input(request);
        if analyze {
            self.engine.explain_analyze(cluster.clone(), input).await
        } else {
            self.engine.explain(cluster.clone(), input).await
        }
    }
}

/// A result whose batches are handed on one by one.
struct Batches {
    columns: Vec<ResultColumn>,
    output: QueryOutput,
}

impl Batches {
    fn new(mut output: QueryOutput) -> Self {
        let columns = std::mem::take(&mut output.columns);
        let columns = columns.into_iter().map(|(name, ty)| ResultColumn { name, ty }).collect();
        output.batches.reverse();
        Self { columns, output }
    }
}

#[async_trait]
impl RowStream for Batches {
    fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }

    async fn next_encoded(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>> {
        let Some(batch) = self.output.batches.pop() else { return Ok(None) };
        let (rows, fit) = (batch.num_rows(), rows_to_copy(&batch).map_err(translate)?);
        if fit < rows {
            self.output.batches.push(batch.slice(fit, rows - fit));
        }
        encode::write_batch(&batch.slice(0, fit), out)?;
        Ok(Some(fit))
    }

    /// Values take the way over MessagePack: there, each type already has the form that columns accept.
    async fn next_values(&mut self) -> Result<Option<Vec<Vec<Value>>>> {
        let mut encoded = Vec::new();
        let Some(count) = self.next_encoded(&mut encoded).await? else { return Ok(None) };
        let mut reader = Reader::new(&encoded);
        let row = |_| match reader.value()? {
            Value::Array(row) => Ok(row),
            other => Err(Error::internal(format!("a row of the engine is {}", other.kind()))),
        };
        (0..count).map(row).collect::<Result<_>>().map(Some)
    }
}
