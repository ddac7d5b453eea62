//! What the front asks of the query engine.
//!
//! The engine implements this; tests of the front implement it with canned rows.

use crate::cluster::Cluster;
use crate::stop::Stop;
use async_trait::async_trait;
use model::msgpack::Reader;
use model::{Result, Value};
use sqlparser::ast::Query;
use std::sync::Arc;
use std::time::Instant;

/// A query on its way to the engine. No placeholder is left in it.
#[derive(Clone, Debug)]
pub struct QueryRequest {
    pub query: Box<Query>,
    /// More rows than these are an error, `LimitExceeded`.
    pub rows_max: usize,
    /// Memory that it may take on each instance; more is `LimitExceeded`.
    pub memory_bytes_max: usize,
    /// The answer has to be complete by then.
    pub deadline: Instant,
    /// Ends it, in the middle of a step too.
    pub stop: Stop,
}

/// A column of a result: its name, and its type as metadata shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultColumn {
    pub name: String,
    pub ty: String,
}

impl ResultColumn {
    /// Reads the metadata of an answer, an array of `{name, type}`.
    ///
    /// Errors: `Argument` when the bytes are something else.
    pub fn read_all(metadata: &[u8]) -> Result<Vec<ResultColumn>> {
        let mut reader = Reader::new(metadata);
        let mut columns = Vec::new();
        for _ in 0..reader.array_len()? {
            reader.map_len()?;
            reader.skip()?;
            let name = reader.str()?.to_owned();
            reader.skip()?;
            columns.push(ResultColumn { name, ty: reader.str()?.to_owned() });
        }
        Ok(columns)
    }
}

/// A running query. Dropping it ends the query everywhere.
#[async_trait]
pub trait RowStream: Send {
    fn columns(&self) -> &[ResultColumn];

    /// Appends the next batch of rows to `out`, each an array of MessagePack as users read it, and answers how many
    /// there were; None at the end.
    async fn next_encoded(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>>;

    /// The next batch of rows as values; None at the end.
    async fn next_values(&mut self) -> Result<Option<Vec<Vec<Value>>>>;
}

#[async_trait]
pub trait QueryEngine: Send + Sync {
    /// Plans the query and begins to run it.
    ///
    /// Errors: those of names and types before any row has been read.
    async fn query(&self, cluster: &Arc<dyn Cluster>, input: QueryRequest) -> Result<Box<dyn RowStream>>;

    /// What would run where, a line a step; with `analyze` the query is run, and the lines say what it cost.
    async fn explain(&self, cluster: &Arc<dyn Cluster>, input: QueryRequest, analyze: bool) -> Result<Vec<String>>;
}
