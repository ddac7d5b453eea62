//! Which moment of the storages a query sees.
//!
//! All scans of a fragment see one moment of its storage. Most queries have one fragment a replicaset, and so see each
//! replicaset at one moment. A query of several parts (subqueries that run first, more than one gather, scans at the
//! router) gets a key: the first part that comes to a storage begins the moment there, for all tables of the query, and
//! the others join it.

use super::gather::GatherExec;
use super::scan::ScanExec;
use super::site::Site;
use crate::cluster::{Cluster, Moment, QueryKey};
use datafusion::physical_plan::ExecutionPlan;
use model::{ReplicasetName, TableId};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The moments that the parts of one query share. They end when this is dropped, at the router; a storage holds a copy
/// that ends nothing.
pub struct SharedMoments {
    pub key: QueryKey,
    /// Every table of the query.
    pub tables: Vec<TableId>,
    owner: Option<Owner>,
}

/// The router's side.
struct Owner {
    cluster: Arc<dyn Cluster>,
    /// Where parts of the query ran.
    replicasets: Mutex<BTreeSet<ReplicasetName>>,
}

impl SharedMoments {
    /// At the router.
    pub fn new(cluster: Arc<dyn Cluster>, tables: Vec<TableId>) -> Self {
        let key = cluster.query_key();
        Self { key, tables, owner: Some(Owner { cluster, replicasets: Mutex::default() }) }
    }

    /// At a storage.
    pub fn received(key: QueryKey, tables: Vec<TableId>) -> Self {
        Self { key, tables, owner: None }
    }

    /// A part of the query runs at this replicaset.
    pub fn runs_at(&self, replicaset: &ReplicasetName) {
        if let Some(owner) = &self.owner {
            owner.replicasets.lock().unwrap_or_else(PoisonError::into_inner).insert(replicaset.clone());
        }
    }
}

impl Drop for SharedMoments {
    fn drop(&mut self) {
        if let Some(Owner { cluster, replicasets }) = &mut self.owner {
            let replicasets = std::mem::take(replicasets.get_mut().unwrap_or_else(PoisonError::into_inner));
            cluster.end_query(&self.key, replicasets.into_iter().collect());
        }
    }
}

impl std::fmt::Debug for SharedMoments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedMoments({:?})", self.key)
    }
}

/// Begins the moment in which `plan` runs at a site; None when it scans nothing there.
pub fn begin(site: &Site, plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<Moment>> {
    let scans = scans_here(plan);
    if scans.is_empty() {
        return None;
    }
    let query = site.shared.as_ref().map(|shared| (shared.key.clone(), site.deadline));
    let tables: BTreeSet<TableId> = match &site.shared {
        Some(shared) => shared.tables.iter().copied().collect(),
        None => scans.iter().copied().collect(),
    };
    Some(site.cluster.moment(tables.into_iter().collect(), scans.len(), query))
}

/// In how many parts a placed plan reads storages.
pub fn parts(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let gathers = count_gathers(plan);
    gathers + usize::from(!scans_here(plan).is_empty())
}

fn count_gathers(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let below: usize = plan.children().into_iter().map(count_gathers).sum();
    below + usize::from(plan.downcast_ref::<GatherExec>().is_some())
}

/// The tables of the scans that run in this process, once for each scan of the storage: a gather's fragment does not, but for what it sends along.
fn scans_here(plan: &Arc<dyn ExecutionPlan>) -> Vec<TableId> {
    if let Some(scan) = plan.downcast_ref::<ScanExec>() {
        return vec![scan.table.id; scan.scans()];
    }
    let fragments = usize::from(plan.downcast_ref::<GatherExec>().is_some());
    plan.children().into_iter().skip(fragments).flat_map(scans_here).collect()
}
