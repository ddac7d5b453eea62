//! The boundary between router and storages: below it a fragment runs at every replicaset that owns buckets it needs,
//! above it the router works on what comes back.
//!
//! The fragment for a replicaset whose master is this process runs here, without being serialised. The others are one
//! call each; their frames are decoded by a task each, so that no storage waits for another. Dropping the stream ends
//! the tasks, which cancels the calls.

use super::bounds::text_bytes;
use super::errors::wrap;
use super::fragment::{fragment_here, plan_bytes};
use super::frames::{Frame, FrameDecoder, Request, Summary, ship, unship};
use super::site::{Site, at_site};
use crate::cluster::BucketRange;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{AcrossPartitions, EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::limit::LimitStream;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions, execute_stream,
};
use futures::{StreamExt, TryStreamExt};
use model::msgpack::{Reader, write_array_len, write_bin, write_bool, write_uint};
use model::{Code, Error, ReplicasetName, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc::Sender;

/// Batches that wait between a storage's task and the router's plan.
const BATCHES_WAITING_MAX: usize = 2;
/// Bytes of rows that are sent along with a fragment.
const SHIPPED_BYTES_MAX: usize = 32 << 20;

/// Changes the nodes of a plan that run here, from below: those of a gather's fragment run at other places.
pub fn change_here(
    plan: Arc<dyn ExecutionPlan>,
    change: &mut dyn FnMut(Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let elsewhere = usize::from(plan.is::<GatherExec>());
    let below = plan.children().into_iter().cloned().enumerate();
    let children: Vec<Arc<dyn ExecutionPlan>> = below
        .map(|(at, child)| if at < elsewhere { Ok(child) } else { change_here(child, change) })
        .collect::<DfResult<_>>()?;
    let is_same = plan.children().iter().zip(&children).all(|(old, new)| Arc::ptr_eq(old, new));
    change(if is_same { plan } else { with_children(&plan, children)? })
}

pub fn with_children(
    node: &Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    node.clone().replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// A replicaset that a fragment runs at, and the buckets of each scan there.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub replicaset: ReplicasetName,
    pub buckets: BTreeMap<u32, Vec<BucketRange>>,
}

/// What one run of a fragment at a replicaset took, for EXPLAIN ANALYZE.
#[derive(Clone, Debug)]
pub struct Run {
    pub replicaset: ReplicasetName,
    pub is_local: bool,
    pub summary: Summary,
}

/// Runs a fragment at its targets and brings the rows together.
#[derive(Debug, Clone)]
pub struct GatherExec {
    fragment: Arc<dyn ExecutionPlan>,
    targets: Arc<Vec<Target>>,
    /// Each target's rows come in this order and are merged; without it they come as they come.
    order: Option<LexOrdering>,
    fetch: Option<usize>,
    /// Plans that run here first, and whose rows are sent along for the `ShippedExec` of that number.
    shipped: Vec<(u32, Arc<dyn ExecutionPlan>)>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    runs: Arc<Mutex<Vec<Run>>>,
}

/// What is known of the fragment's rows and holds wherever they come from: columns that are equal, and constants, which
/// come of literals and so are the same everywhere. Windows above rely on it for the orders that they do not ask for.
fn known_of_all(fragment: &Arc<dyn ExecutionPlan>) -> EquivalenceProperties {
    let mut known = EquivalenceProperties::new(fragment.schema());
    let below = fragment.properties().equivalence_properties();
    for class in below.eq_group().iter() {
        let exprs: Vec<_> = class.iter().cloned().collect();
        for pair in exprs.windows(2) {
            // What can not be added is not known, which is no harm.
            let _ = known.add_equal_conditions(pair[0].clone(), pair[1].clone());
        }
    }
    let constants = below.constants().into_iter();
    let _ = known
        .add_constants(constants.filter(|constant| matches!(constant.across_partitions, AcrossPartitions::Uniform(_))));
    known
}

impl GatherExec {
    pub fn new(
        fragment: Arc<dyn ExecutionPlan>,
        targets: Vec<Target>,
        order: Option<LexOrdering>,
        fetch: Option<usize>,
        shipped: Vec<(u32, Arc<dyn ExecutionPlan>)>,
    ) -> Self {
        let mut equivalences = known_of_all(&fragment);
        if let Some(order) = &order {
            equivalences.add_ordering(order.iter().cloned());
        }
        let properties = PlanProperties::new(
            equivalences,
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            fragment,
            targets: Arc::new(targets),
            order,
            fetch,
            shipped,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            runs: Arc::default(),
        }
    }

    /// What the runs so far took, by replicaset.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        runs.sort_by(|a, b| a.replicaset.cmp(&b.replicaset));
        runs
    }

    /// Runs the plans whose rows are sent along, side by side.
    async fn ship_rows(&self, context: &Arc<TaskContext>) -> DfResult<BTreeMap<u32, Shipped>> {
        let all = self.shipped.iter().map(|(id, plan)| async move {
            Ok::<_, DataFusionError>((*id, collect_small(plan.clone(), context).await?))
        });
        Ok(futures::future::try_join_all(all).await?.into_iter().collect())
    }

    /// Starts all targets; answers their rows.
    async fn start(self, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let site = Site::of(&context)?;
        let shipped = self.ship_rows(&context).await?;
        let is_local = |target: &Target| site.cluster.is_master_of(&target.replicaset);
        let mut remote = None;
        if !self.targets.iter().all(is_local) {
            remote = Some(self.request(&site, &shipped)?);
        }
        let schema = self.schema();
        let mut streams = Vec::new();
        let mut together = RecordBatchReceiverStream::builder(schema.clone(), BATCHES_WAITING_MAX);
        for target in self.targets.iter() {
            let work = self.work(target, &site, &context, &shipped, remote.clone().filter(|_| !is_local(target)))?;
            if self.order.is_some() {
                let mut alone = RecordBatchReceiverStream::builder(schema.clone(), BATCHES_WAITING_MAX);
                let rows = alone.tx();
                alone.spawn(work.run(rows));
                streams.push(alone.build());
            } else {
                let rows = together.tx();
                together.spawn(work.run(rows));
            }
        }
        let metrics = BaselineMetrics::new(&self.metrics, 0);
        match self.order {
            // A merge wants something to merge.
            Some(_) if streams.is_empty() => Ok(together.build()),
            Some(order) => StreamingMergeBuilder::new()
                .with_streams(streams)
                .with_schema(schema)
                .with_expressions(&order)
                .with_metrics(metrics)
                .with_batch_size(context.session_config().batch_size())
                .with_fetch(self.fetch)
                .with_reservation(MemoryConsumer::new("merge of replicasets").register(context.memory_pool()))
                .build(),
            None if self.fetch.is_some() => Ok(Box::pin(LimitStream::new(together.build(), 0, self.fetch, metrics))),
            None => Ok(together.build()),
        }
    }

    /// The request, but for the buckets, that all remote targets get.
    fn request(&self, site: &Site, shipped: &BTreeMap<u32, Shipped>) -> DfResult<Request> {
        let encoded = shipped.iter().map(|(id, rows)| {
            let stream = ship(&rows.schema, &rows.batches).map_err(wrap)?;
            Ok((*id, Arc::new(stream)))
        });
        Ok(Request {
            catalog_version: site.schema.version(),
            time_left_ms: 0,
            memory_bytes_max: site.memory_bytes_max as u64,
            analyze: site.analyze,
            query: site.shared.as_ref().map(|shared| (shared.key.clone(), shared.tables.clone())),
            buckets: BTreeMap::new(),
            shipped: encoded.collect::<DfResult<_>>()?,
            plan: plan_bytes(self.fragment.clone())?,
        })
    }

    fn work(
        &self,
        target: &Target,
        site: &Arc<Site>,
        context: &Arc<TaskContext>,
        shipped: &BTreeMap<u32, Shipped>,
        remote: Option<Request>,
    ) -> DfResult<Work> {
        let shipped = shipped.iter().map(|(id, rows)| (*id, rows.batches.clone())).collect();
        if let Some(shared) = &site.shared {
            shared.runs_at(&target.replicaset);
        }
        let (context, fragment) = match remote {
            Some(_) => (context.clone(), self.fragment.clone()),
            None => {
                let here = site.for_fragment(target.buckets.clone(), shipped);
                let fragment = fragment_here(self.fragment.clone(), &here)?;
                (at_site(context, here.at_moment(&fragment)), fragment)
            }
        };
        Ok(Work {
            target: target.clone(),
            is_prepared: !Arc::ptr_eq(&fragment, &self.fragment),
            fragment,
            site: site.clone(),
            context,
            remote,
            runs: self.runs.clone(),
        })
    }
}

/// Rows that are sent along.
struct Shipped {
    schema: SchemaRef,
    batches: Arc<Vec<RecordBatch>>,
}

/// Collects rows that are expected to be few. When they are not, the query is told to do without.
async fn collect_small(plan: Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> DfResult<Shipped> {
    let schema = plan.schema();
    let mut stream = execute_stream(plan, context.clone())?;
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await? {
        bytes += batch.get_array_memory_size().max(text_bytes(&batch));
        if bytes > SHIPPED_BYTES_MAX {
            Site::of(context)?.shipping_failed.store(true, std::sync::atomic::Ordering::Relaxed);
            return Err(wrap(Error::new(Code::LimitExceeded, "too many rows to send along with a fragment")));
        }
        batches.push(batch);
    }
    Ok(Shipped { schema, batches: Arc::new(batches) })
}

/// One fragment at one replicaset.
struct Work {
    target: Target,
    fragment: Arc<dyn ExecutionPlan>,
    /// It is another than the gather's, for its metrics.
    is_prepared: bool,
    site: Arc<Site>,
    context: Arc<TaskContext>,
    /// None runs it in this process.
    remote: Option<Request>,
    runs: Arc<Mutex<Vec<Run>>>,
}

type Rows = Sender<DfResult<RecordBatch>>;

impl Work {
    async fn run(mut self, rows: Rows) -> DfResult<()> {
        let remote = self.remote.take();
        let is_local = remote.is_none();
        let summary = match remote {
            Some(request) => self.run_remote(request, &rows).await?,
            None => self.run_here(&rows).await?,
        };
        if let Some(summary) = summary {
            let run = Run { replicaset: self.target.replicaset, is_local, summary };
            self.runs.lock().unwrap_or_else(PoisonError::into_inner).push(run);
        }
        Ok(())
    }

    /// None when the reader went away.
    async fn run_here(&self, rows: &Rows) -> DfResult<Option<Summary>> {
        let began = Instant::now();
        let mut stream = execute_stream(self.fragment.clone(), self.context.clone())?;
        let mut summary = Summary::default();
        while let Some(batch) = stream.try_next().await? {
            summary.rows += batch.num_rows() as u64;
            if rows.send(Ok(batch)).await.is_err() {
                return Ok(None);
            }
        }
        summary.elapsed_us = began.elapsed().as_micros() as u64;
        let shown = || DisplayableExecutionPlan::with_metrics(&*self.fragment).indent(false).to_string();
        summary.plan = (self.is_prepared && self.site.analyze).then(shown);
        Ok(Some(summary))
    }

    async fn run_remote(&self, mut request: Request, rows: &Rows) -> DfResult<Option<Summary>> {
        let deadline = self.site.deadline;
        request.buckets = self.target.buckets.clone();
        request.time_left_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
        let replicaset = &self.target.replicaset;
        let mut frames = self.site.cluster.fragment(replicaset, request.encode(), deadline).await.map_err(wrap)?;
        let mut decoder = FrameDecoder::new(self.fragment.schema());
        while let Some(frame) = frames.next().await.map_err(wrap)? {
            match decoder.decode(frame).map_err(wrap)? {
                Frame::Batch(batch) => {
                    if rows.send(Ok(batch)).await.is_err() {
                        return Ok(None);
                    }
                }
                Frame::End(summary) => return Ok(Some(summary)),
            }
        }
        let message = format!("the answer of replicaset \"{replicaset}\" broke off");
        Err(wrap(Error::new(Code::Unreachable, message)))
    }
}

impl DisplayAs for GatherExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.targets.iter().map(|target| target.replicaset.as_str()).collect();
        write!(f, "Gather from [{}]", names.join(", "))?;
        if let Some(order) = &self.order {
            write!(f, ", merged by [{order}]")?;
        }
        match self.fetch {
            Some(fetch) => write!(f, ", fetch={fetch}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for GatherExec {
    fn name(&self) -> &str {
        "GatherExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        std::iter::once(&self.fragment).chain(self.shipped.iter().map(|(_, plan)| plan)).collect()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let mut children = children.into_iter();
        let fragment = children.next().ok_or_else(|| wrap(Error::internal("a gather without a fragment")))?;
        let shipped = self.shipped.iter().zip(children).map(|((id, _), plan)| (*id, plan)).collect();
        Ok(Arc::new(Self { fragment, shipped, ..Self::clone(&self) }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, _: Option<usize>) -> Vec<ChildStats> {
        let shipped = self.shipped.iter().map(|_| ChildStats::Skip);
        std::iter::once(ChildStats::At(None)).chain(shipped).collect()
    }

    /// Scans speak of the whole cluster, so a fragment's rows are those of all its targets.
    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        Ok(inputs.first().cloned().unwrap_or_else(|| Arc::new(Statistics::new_unknown(&self.schema()))))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let stream = futures::stream::once(self.clone().start(context)).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream.boxed())))
    }
}

/// Reads rows that came with the fragment.
#[derive(Clone, Debug)]
pub struct ShippedExec {
    id: u32,
    /// About how many rows; known to the planner only.
    rows: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl ShippedExec {
    pub fn new(id: u32, schema: SchemaRef, rows: Option<usize>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { id, rows, properties: Arc::new(properties) }
    }

    /// The same with rows in an order, as far as it is one of columns; joins pass it on, and what is above them relies on it.
    pub fn in_order(self, order: Option<LexOrdering>) -> Self {
        let columns = order.into_iter().flatten().map_while(|sort| sort.expr.is::<Column>().then_some(sort));
        let Some(order) = LexOrdering::new(columns) else { return self };
        let mut known = EquivalenceProperties::new(self.schema());
        known.add_ordering(order);
        Self { properties: Arc::new(PlanProperties::clone(&self.properties).with_eq_properties(known)), ..self }
    }

    pub fn encode(&self, out: &mut Vec<u8>) -> DfResult<()> {
        write_uint(out, self.id.into());
        write_bin(out, &ship(&self.schema(), &[]).map_err(wrap)?);
        let order = self.properties.output_ordering().into_iter().flatten();
        let columns = order.filter_map(|sort| Some((sort.expr.downcast_ref::<Column>()?.index(), sort.options)));
        let columns: Vec<_> = columns.collect();
        write_array_len(out, columns.len());
        for (index, SortOptions { descending, nulls_first }) in columns {
            write_uint(out, index as u64);
            write_bool(out, descending);
            write_bool(out, nulls_first);
        }
        Ok(())
    }

    pub fn decode(reader: &mut Reader<'_>) -> DfResult<Self> {
        let decode = |reader: &mut Reader<'_>| -> Result<_> {
            let id = u32::try_from(reader.uint()?).map_err(|_| Error::new(Code::Argument, "a leaf's number"))?;
            let schema = unship(reader.bin()?)?.0;
            let mut order = Vec::new();
            for _ in 0..reader.array_len()? {
                let at = usize::try_from(reader.uint()?).ok().filter(|at| *at < schema.fields().len());
                let at =
                    at.ok_or_else(|| Error::new(Code::Argument, "rows in the order of a column that is not there"))?;
                let options = SortOptions { descending: reader.bool()?, nulls_first: reader.bool()? };
                order.push(PhysicalSortExpr::new(Arc::new(Column::new(schema.field(at).name(), at)), options));
            }
            Ok((id, schema, LexOrdering::new(order)))
        };
        let (id, schema, order) = decode(reader).map_err(wrap)?;
        Ok(Self::new(id, schema, None).in_order(order))
    }
}

impl DisplayAs for ShippedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rows sent along, number {}", self.id)
    }
}

impl ExecutionPlan for ShippedExec {
    fn name(&self) -> &str {
        "ShippedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = self.rows.map_or(Precision::Absent, Precision::Inexact);
        Ok(Arc::new(statistics))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let site = Site::of(&context)?;
        let batches = site.shipped.get(&self.id).cloned();
        let batches = batches.ok_or_else(|| wrap(Error::new(Code::Argument, "a fragment came without its rows")))?;
        Ok(Box::pin(MemoryStream::try_new(batches.to_vec(), self.schema(), None)?))
    }
}
