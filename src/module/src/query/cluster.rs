//! The cluster around the SQL room: its trait `Cluster` over the catalog, the storage, the router and the connections.

use super::{fragments, moments, scans, schema};
use crate::bridge;
use crate::host::Deadline;
use crate::{node, router, schema_change, sequences, storage};
use async_trait::async_trait;
use catalog::State;
use model::{
    Code, Durability, Error, InstanceName, ReplicasetName, Result, SchemaChange, Sequence, Table, TableId, Value,
};
use sql::cluster::{Cluster, Frames, Moment, Operation, QueryKey, RowChange, Scan, ScanRequest, Schema};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The pause before a statement is tried again, at first and at most.
const PAUSE_FIRST_MS: u64 = 2;
const PAUSE_MAX_MS: u64 = 200;

/// This instance's way to the cluster, for one statement or fragment on worker threads.
#[derive(Default)]
pub struct ModuleCluster {
    has_read: HasRead,
    /// The fragment of another instance's query that this is for.
    fragment: Option<QueryKey>,
}

/// Whether rows were read on this instance that could be lost yet, so that an answer has to wait.
#[derive(Clone, Default)]
pub struct HasRead(Arc<AtomicBool>);

impl HasRead {
    /// Waits until nothing that was read can be lost. On a fiber of the tx thread.
    ///
    /// Errors: `Timeout`.
    pub fn settle(&self) -> Result<()> {
        if self.0.load(Ordering::Acquire) { storage::get()?.settle_all() } else { Ok(()) }
    }
}

impl ModuleCluster {
    pub fn for_fragment(key: QueryKey) -> Self {
        Self { fragment: Some(key), ..Self::default() }
    }

    pub fn has_read(&self) -> HasRead {
        self.has_read.clone()
    }
}

#[async_trait]
impl Cluster for ModuleCluster {
    fn schema(&self) -> Arc<dyn Schema> {
        match schema::current() {
            Some(schema) => schema,
            None => Arc::new(schema::CatalogSchema::empty()),
        }
    }

    fn is_master_of(&self, replicaset: &ReplicasetName) -> bool {
        let is_master = |state: &State, me: &InstanceName| {
            state.topology.replicasets.get(replicaset).is_some_and(|record| record.master.as_ref() == Some(me))
        };
        schema::current().is_some_and(|schema| is_master(&schema.state, &schema.me))
    }

    fn moment(&self, tables: Vec<TableId>, scans: usize, query: Option<(QueryKey, Instant)>) -> Arc<Moment> {
        let is_wanted = || self.fragment.as_ref().is_none_or(fragments::is_known);
        moments::begin(tables, scans, query, is_wanted)
    }

    fn query_key(&self) -> QueryKey {
        let router = schema::current().map_or_else(|| "".into(), |schema| schema.me.clone());
        QueryKey { router, number: moments::next_query() }
    }

    fn end_query(&self, query: &QueryKey, replicasets: Vec<ReplicasetName>) {
        let others = replicasets.into_iter().filter(|replicaset| !self.is_master_of(replicaset));
        moments::end_everywhere(query, others.collect());
    }

    async fn scan(&self, request: ScanRequest, moment: Arc<Moment>) -> Result<Box<dyn Scan>> {
        if !request.table.is_global() && request.table.durability == Durability::Replicated {
            self.has_read.0.store(true, Ordering::Release);
        }
        scans::open(request, moment).await
    }

    async fn fragment(&self, to: &ReplicasetName, request: Vec<u8>, deadline: Instant) -> Result<Box<dyn Frames>> {
        fragments::start(to, request, deadline).await
    }

    async fn rows(
        &self,
        table: &Arc<Table>,
        keys: Vec<Vec<Value>>,
        deadline: Instant,
    ) -> Result<Vec<Option<Vec<Value>>>> {
        let table = Arc::clone(table);
        bridge::on_tx_fiber(move || router::get()?.rows(&table, keys, Deadline::at(deadline))).await
    }

    async fn write(&self, table: &Arc<Table>, changes: Vec<RowChange>, deadline: Instant) -> Result<u64> {
        let table = Arc::clone(table);
        bridge::on_tx_fiber(move || router::get()?.write_changes(&table, changes, Deadline::at(deadline))).await
    }

    async fn transaction(&self, operations: Vec<Operation>, deadline: Instant) -> Result<Vec<u8>> {
        bridge::on_tx_fiber(move || router::get()?.transaction(operations, Deadline::at(deadline))).await
    }

    async fn change_schema(&self, change: SchemaChange, deadline: Instant) -> Result<()> {
        bridge::on_tx_fiber(move || schema_change::change(change, Deadline::at(deadline))).await
    }

    async fn numbers(&self, sequence: &Sequence, count: usize, deadline: Instant) -> Result<Vec<i64>> {
        let sequence = sequence.clone();
        bridge::on_tx_fiber(move || sequences::take(&sequence, count, Deadline::at(deadline))).await
    }

    fn random(&self) -> Result<[u8; 16]> {
        let mut bytes = [0u8; 16];
        // SAFETY: writes at most as many bytes as there are; up to 256 come all at once.
        let written = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if written != bytes.len() as isize {
            return Err(Error::new(Code::Storage, "the system has no random numbers"));
        }
        Ok(bytes)
    }

    async fn wait_for_change(&self, attempt: u32, deadline: Instant) -> Result<()> {
        let pause_ms = (PAUSE_FIRST_MS << attempt.clamp(1, 16)).min(PAUSE_MAX_MS);
        bridge::on_tx_fiber(move || {
            let until = Deadline::at(deadline).min(Deadline::after_ms(pause_ms));
            router::get()?.changed.wait(until);
            Ok(())
        })
        .await
    }

    async fn catch_up(&self, deadline: Instant) -> Result<()> {
        bridge::on_tx_fiber(move || node::get()?.raft.catch_up(Deadline::at(deadline))).await
    }
}
