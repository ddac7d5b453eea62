//! Where a plan runs: what its leaves find in the task context.

use super::errors::wrap;
use super::moments::{self, SharedMoments};
use crate::cluster::{BucketRange, Cluster, Moment, Schema};
use crate::stop::Stop;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::Result as DfResult;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use model::Error;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// A plan's surroundings in this process: the router's for the whole query, or a storage's for one fragment.
pub struct Site {
    pub cluster: Arc<dyn Cluster>,
    pub schema: Arc<dyn Schema>,
    pub deadline: Instant,
    pub memory_bytes_max: usize,
    /// Which buckets each scan of a sharded table reads here, by the scan's number.
    pub buckets: BTreeMap<u32, Vec<BucketRange>>,
    /// Rows that the router sent along, by their number.
    pub shipped: BTreeMap<u32, Arc<Vec<RecordBatch>>>,
    /// Whether plans are to be answered with their metrics.
    pub analyze: bool,
    /// What the scans of this plan see together; None for a plan that scans nothing here.
    pub moment: Option<Arc<Moment>>,
    /// Set when the query has several parts that must see one moment of each replicaset.
    pub shared: Option<Arc<SharedMoments>>,
    /// Set when rows to be sent along turned out too many; the query is then planned again without sending any.
    pub shipping_failed: Arc<AtomicBool>,
    /// Nobody waits for the plan any more.
    pub stop: Stop,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("buckets", &self.buckets).finish_non_exhaustive()
    }
}

impl Site {
    pub fn of(context: &TaskContext) -> DfResult<Arc<Site>> {
        let site = context.session_config().get_extension::<Site>();
        site.ok_or_else(|| wrap(Error::internal("a plan runs outside of any site")))
    }

    /// The same site for one fragment in this process.
    pub fn for_fragment(
        &self,
        buckets: BTreeMap<u32, Vec<BucketRange>>,
        shipped: BTreeMap<u32, Arc<Vec<RecordBatch>>>,
    ) -> Self {
        Self {
            cluster: self.cluster.clone(),
            schema: self.schema.clone(),
            deadline: self.deadline,
            memory_bytes_max: self.memory_bytes_max,
            buckets,
            shipped,
            analyze: self.analyze,
            moment: None,
            shared: self.shared.clone(),
            shipping_failed: self.shipping_failed.clone(),
            stop: self.stop.clone(),
        }
    }

    /// The same site at the moment in which `plan` is to run here.
    pub fn at_moment(&self, plan: &Arc<dyn ExecutionPlan>) -> Self {
        let moment = moments::begin(self, plan);
        Self { moment, ..self.for_fragment(self.buckets.clone(), self.shipped.clone()) }
    }
}

/// The context with another site.
pub fn at_site(context: &TaskContext, site: Site) -> Arc<TaskContext> {
    let config = context.session_config().clone().with_extension(Arc::new(site));
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        config,
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    ))
}
