//! The schema of a cluster in memory, and a short way to write tables down in tests.

use crate::cluster::{OwnedRange, Schema};
use ::catalog::{Shared, State};
use model::{
    Column, ColumnType, Distribution, Durability, Engine, Index, InstanceName, ReplicasetName, Sequence, Table,
    TableId, TableState, TierName, Value, View,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tier that all sharded tables of a test are in unless they say otherwise.
pub const TIER: &str = "default";

/// One version of the schema, as one node sees it.
#[derive(Clone, Debug)]
pub struct MemorySchema {
    pub state: State,
    pub row_counts: BTreeMap<TableId, u64>,
    pub placement: Vec<OwnedRange>,
    pub bucket_count: u32,
    pub replicaset: ReplicasetName,
}

impl Schema for MemorySchema {
    fn version(&self) -> u64 {
        self.state.version
    }

    fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.state.schema.operable(name)
    }

    fn table_names(&self) -> Vec<String> {
        self.state.schema.tables.keys().cloned().collect()
    }

    fn view(&self, name: &str) -> Option<Arc<View>> {
        self.state.schema.views.get(name).map(Shared::arc)
    }

    fn has_views(&self) -> bool {
        !self.state.schema.views.is_empty()
    }

    fn sequence(&self, name: &str) -> Option<Sequence> {
        self.state.sequences.by_name(name).cloned()
    }

    fn sequence_names(&self) -> Vec<String> {
        self.state.sequences.named.keys().cloned().collect()
    }

    fn bucket_count(&self, tier: &TierName) -> Option<u32> {
        (tier.as_str() == TIER).then_some(self.bucket_count)
    }

    fn placement(&self, tier: &TierName) -> Vec<OwnedRange> {
        if tier.as_str() == TIER { self.placement.clone() } else { Vec::new() }
    }

    fn local_replicaset(&self) -> Option<ReplicasetName> {
        Some(self.replicaset.clone())
    }

    fn local_instance(&self) -> InstanceName {
        InstanceName(format!("{}_1", self.replicaset))
    }

    fn row_count(&self, table: TableId) -> Option<u64> {
        self.row_counts.get(&table).copied()
    }
}

/// Writes a table definition down: `TableBuilder::new("t").key("id", BigInt).column("name", Text).sharded(&["id"])`.
#[derive(Clone, Debug)]
pub struct TableBuilder {
    table: Table,
}

impl TableBuilder {
    pub fn new(name: &str) -> Self {
        let table = Table {
            id: 0,
            name: name.to_owned(),
            version: 1,
            engine: Engine::Memtx,
            distribution: Distribution::Global,
            columns: Vec::new(),
            primary_key: Vec::new(),
            indexes: Vec::new(),
            state: TableState::Operable,
            checks: Vec::new(),
            durability: Durability::Replicated,
        };
        Self { table }
    }

    /// A column that is part of the primary key.
    pub fn key(mut self, name: &str, ty: ColumnType) -> Self {
        self.table.primary_key.push(self.table.columns.len());
        self.push(name, ty, false)
    }

    /// A nullable column.
    pub fn column(self, name: &str, ty: ColumnType) -> Self {
        self.push(name, ty, true)
    }

    fn push(mut self, name: &str, ty: ColumnType, nullable: bool) -> Self {
        self.table.columns.push(Column::new(name, ty, nullable));
        self
    }

    /// Shards the table by these columns. Without it, the table is global.
    pub fn sharded(mut self, columns: &[&str]) -> Self {
        self.table.distribution = Distribution::Sharded { key: self.positions(columns), tier: TierName::from(TIER) };
        self
    }

    pub fn index(mut self, name: &str, columns: &[&str], unique: bool) -> Self {
        let index = Index {
            id: self.table.indexes.len() as u32 + 1,
            name: name.to_owned(),
            columns: self.positions(columns),
            unique,
        };
        self.table.indexes.push(index);
        self
    }

    fn positions(&self, columns: &[&str]) -> Vec<usize> {
        columns.iter().map(|name| self.table.column_position(name).expect("a column of the table")).collect()
    }

    pub fn build(self) -> Table {
        self.table.validate().expect("a valid table");
        self.table
    }
}

/// Short names of values for test data.
impl TableBuilder {
    pub fn int(value: i64) -> Value {
        Value::Integer(value)
    }

    pub fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }
}
