//! The catalog as the SQL room wants it: one immutable version a statement, readable on any thread.

use catalog::{Shared, State};
use model::{InstanceName, ReplicasetName, Sequence, Table, TableId, TableState, TierName, View};
use sql::cluster::{BucketRange, OwnedRange, Schema};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// A version of the catalog, seen from this instance.
#[derive(Debug)]
pub struct CatalogSchema {
    pub state: Arc<State>,
    pub me: InstanceName,
    rows: Arc<HashMap<TableId, u64>>,
}

impl CatalogSchema {
    /// What is known before this instance is a member.
    pub fn empty() -> Self {
        Self { state: Arc::default(), me: "".into(), rows: Arc::default() }
    }
}

static CURRENT: RwLock<Option<Arc<CatalogSchema>>> = RwLock::new(None);
static ROWS: RwLock<Option<Arc<HashMap<TableId, u64>>>> = RwLock::new(None);

/// The catalog changed. Called on the tx thread.
pub fn publish(state: &Arc<State>, me: &InstanceName) {
    let rows = ROWS.read().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default();
    let schema = CatalogSchema { state: Arc::clone(state), me: me.clone(), rows };
    *CURRENT.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(schema));
}

/// New estimates of the tables' sizes. Called on the tx thread.
pub fn publish_rows(rows: HashMap<TableId, u64>) {
    let rows = Arc::new(rows);
    *ROWS.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&rows));
    let mut current = CURRENT.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(schema) = current.as_ref() {
        *current = Some(Arc::new(CatalogSchema { state: Arc::clone(&schema.state), me: schema.me.clone(), rows }));
    }
}

/// The newest version; None before this instance is a member.
pub fn current() -> Option<Arc<CatalogSchema>> {
    CURRENT.read().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Schema for CatalogSchema {
    fn version(&self) -> u64 {
        self.state.version
    }

    fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.state.schema.operable(name)
    }

    fn table_names(&self) -> Vec<String> {
        let tables = self.state.schema.tables.values();
        tables.filter(|table| table.state == TableState::Operable).map(|table| table.name.clone()).collect()
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
        self.state.topology.tiers.get(tier).map(|tier| tier.bucket_count)
    }

    fn placement(&self, tier: &TierName) -> Vec<OwnedRange> {
        let Some(map) = self.state.placement.map(tier) else { return Vec::new() };
        let owned = |range: &sharding::OwnedRange| OwnedRange {
            buckets: BucketRange { first: range.buckets.first, last: range.buckets.last },
            replicaset: range.replicaset.clone(),
            epoch: range.epoch,
        };
        map.ranges().iter().map(owned).collect()
    }

    fn local_replicaset(&self) -> Option<ReplicasetName> {
        self.state.topology.instances.get(&self.me).map(|instance| instance.replicaset.clone())
    }

    fn local_instance(&self) -> InstanceName {
        self.me.clone()
    }

    fn row_count(&self, table: TableId) -> Option<u64> {
        self.rows.get(&table).copied()
    }
}
