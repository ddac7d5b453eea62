//! The query engine half of the SQL room: from a query to rows, wherever they lie.
//!
//! In: a query's syntax tree without placeholders (or with parameters for them), limits, a `Cluster`. Out: Arrow batches
//! with the names and types that users see, or an error of ours. DataFusion plans and computes; ours are the tables it
//! sees (`provider`), which part of them is read (`ranges`), how stored tuples become columns (`scan`, `decode`), where
//! each part of a plan runs (`place`) and how rows come together (`gather`, `frames`, `fragment`).
//!
//! Everything here needs a deep stack and takes its time: it runs on the threads of `runtime`, never on a fiber.

pub mod bounds;
mod codec;
mod counted;
mod dates;
mod decode;
mod dependencies;
mod depth;
pub mod encode;
pub mod errors;
pub mod explain;
mod filters;
mod fragment;
mod frames;
mod functions;
mod gather;
mod hiding;
mod join_keys;
mod join_order;
mod lookups;
mod meaning;
mod memory;
mod moments;
mod names;
mod ordered;
mod orders;
mod place;
mod portions;
mod provider;
mod ranges;
mod scan;
mod series;
mod session;
mod sets;
mod simplify;
mod site;
mod spelling;
mod subquery;
pub mod types;
mod unnest;
mod watch;
mod yields;

#[cfg(test)]
mod tests;

use crate::cluster::Cluster;
use crate::stop::Stop;
use bounds::size_of_scalar;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use errors::translate;
pub use fragment::FrameStream;
use frames::Request;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use model::{Code, Error, Result, TableId, Value};
use moments::SharedMoments;
use place::PlaceOptions;
use session::Session;
use site::Site;
use sqlparser::ast::Query;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Planning needs a megabyte of stack and more.
pub const STACK_BYTES: usize = 8 << 20;

/// What the values of subqueries that run first may have together: they become parts of the plan.
const SUBQUERY_BYTES_MAX: usize = 64 << 20;

/// Plans and runs queries and fragments. One an instance; share it behind an `Arc`.
pub struct Engine {
    session: Session,
    pool: Arc<dyn MemoryPool>,
}

/// What a query may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub rows_max: usize,
    pub memory_bytes_max: usize,
    pub deadline: Instant,
}

/// A query to run.
#[derive(Clone, Debug)]
pub struct QueryInput {
    pub query: Query,
    /// For `$1` and so on, when they are still in the query.
    pub params: Vec<Value>,
    pub limits: Limits,
    /// Ends it in the middle of a step, too.
    pub stop: Stop,
}

/// Rows, and how users see them.
#[derive(Clone, Debug)]
pub struct QueryOutput {
    /// Names and types.
    pub columns: Vec<(String, String)>,
    pub batches: Vec<RecordBatch>,
    /// The memory of the batches; None for rows from elsewhere.
    _held: Option<Arc<MemoryReservation>>,
}

impl QueryOutput {
    pub fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Makes the threads that queries run on.
///
/// Errors: `Storage` when the system has no threads left.
pub fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .thread_name("picodata-sql")
        .thread_stack_size(STACK_BYTES)
        .enable_time()
        .build()
        .map_err(|error| Error::new(Code::Storage, format!("no threads for queries: {error}")))
}

/// Collected rows and their memory.
struct Rows {
    batches: Vec<RecordBatch>,
    held: MemoryReservation,
}

/// A query on its way: what all steps need.
struct Running {
    site: Arc<Site>,
    limits: Limits,
    /// Every table of the query, of its subqueries too.
    tables: Vec<TableId>,
    /// Made when the query turns out to have several parts.
    shared: OnceLock<Arc<SharedMoments>>,
}

impl Running {
    /// From now on all parts of the query see one moment of each replicaset.
    fn share_moments(&self) {
        self.shared.get_or_init(|| Arc::new(SharedMoments::new(self.site.cluster.clone(), self.tables.clone())));
    }

    /// Where a plan of the query runs: here, at a moment.
    fn site_for(&self, plan: &Arc<dyn ExecutionPlan>) -> Arc<Site> {
        if moments::parts(plan) > 1 {
            self.share_moments();
        }
        let site = self.site.for_fragment(BTreeMap::new(), BTreeMap::new());
        Arc::new(Site { shared: self.shared.get().cloned(), ..site }.at_moment(plan))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.site.stop.set();
    }
}

impl Engine {
    /// `memory_bytes_max` bounds all queries of this instance together.
    pub fn new(memory_bytes_max: usize) -> Self {
        counted::follow_tasks();
        Self { session: Session::new(), pool: Arc::new(GreedyMemoryPool::new(memory_bytes_max)) }
    }

    /// What all queries hold now.
    pub fn memory_bytes(&self) -> usize {
        self.pool.reserved()
    }

    /// Runs a query. Dropping the future cancels it everywhere.
    pub async fn query(&self, cluster: Arc<dyn Cluster>, input: QueryInput) -> Result<QueryOutput> {
        let limits = input.limits;
        guarded(limits.deadline, self.run(cluster, &input, false).map(|run| run.map(|(output, _)| output))).await
    }

    /// Describes the plan of a query. Its scalar subqueries do run, since the plan depends on their values.
    pub async fn explain(&self, cluster: Arc<dyn Cluster>, input: QueryInput) -> Result<Vec<String>> {
        let limits = input.limits;
        let explain = async {
            let mut running = self.start(cluster, &input, false);
            let logical = self.logical(&mut running, &input).await?;
            let plan = self.physical(&running, &logical, PlaceOptions { ship: true }).await?;
            let plan = lookups::shown(plan, &running.site).map_err(translate)?;
            Ok(explain::plan_lines(&plan))
        };
        guarded(limits.deadline, explain).await
    }

    /// Runs a query and describes what it took, by stage and replicaset.
    pub async fn explain_analyze(&self, cluster: Arc<dyn Cluster>, input: QueryInput) -> Result<Vec<String>> {
        let (limits, began) = (input.limits, Instant::now());
        let analyze = async {
            let (output, plan) = self.run(cluster, &input, true).await?;
            Ok(explain::analyzed_lines(&plan, output.row_count(), began.elapsed()))
        };
        guarded(limits.deadline, analyze).await
    }

    /// Answers a fragment at its storage. Everything that goes wrong, now or later, is a frame.
    pub async fn run_fragment(&self, cluster: Arc<dyn Cluster>, request: Vec<u8>, stop: Stop) -> Result<FrameStream> {
        let request = Request::decode(&request)?;
        let site = Arc::new(fragment::site_of(cluster, &request, stop).await?);
        let context = self.session.context(site.clone(), &self.pool);
        FrameStream::start(&request.plan, context, &site)
    }

    fn start(&self, cluster: Arc<dyn Cluster>, input: &QueryInput, analyze: bool) -> Running {
        let limits = input.limits;
        let site = Site {
            schema: cluster.schema(),
            cluster,
            deadline: limits.deadline,
            memory_bytes_max: limits.memory_bytes_max,
            buckets: Default::default(),
            shipped: Default::default(),
            analyze,
            moment: None,
            shared: None,
            shipping_failed: Arc::default(),
            stop: input.stop.of_part(),
        };
        Running { site: Arc::new(site), limits, tables: Vec::new(), shared: OnceLock::new() }
    }

    /// Runs a query once. When buckets or tables changed under it, whoever asked may ask again: no row has left.
    async fn run(
        &self,
        cluster: Arc<dyn Cluster>,
        input: &QueryInput,
        analyze: bool,
    ) -> Result<(QueryOutput, Arc<dyn ExecutionPlan>)> {
        let mut running = self.start(cluster, input, analyze);
        let logical = self.logical(&mut running, input).await?;
        let (rows, plan) = self.execute(&running, &logical).await?;
        let columns = names::columns(&input.query, &plan.schema());
        Ok((QueryOutput { columns, batches: rows.batches, _held: Some(Arc::new(rows.held)) }, plan))
    }

    /// The logical plan with parameters and scalar subqueries as literals.
    async fn logical(&self, running: &mut Running, input: &QueryInput) -> Result<LogicalPlan> {
        depth::check(&input.query)?;
        let plan = self.session.logical(&running.site.schema, &input.query, &input.params)?;
        running.tables = provider::tables_of(&plan).map_err(translate)?;
        self.without_subqueries(running, plan).await
    }

    fn without_subqueries<'a>(&'a self, running: &'a Running, plan: LogicalPlan) -> BoxFuture<'a, Result<LogicalPlan>> {
        async move {
            let subqueries = subquery::find(&plan).map_err(translate)?;
            if subqueries.is_empty() {
                return Ok(plan);
            }
            running.share_moments();
            let mut values = Vec::with_capacity(subqueries.len());
            let mut bytes = 0_usize;
            for subquery in subqueries {
                let inner = self.without_subqueries(running, subquery.subquery.as_ref().clone()).await?;
                let value = self.scalar(running, &inner).await?;
                bytes = bytes.saturating_add(size_of_scalar(&value).map_err(translate)?.total());
                if bytes > SUBQUERY_BYTES_MAX {
                    let max_mib = SUBQUERY_BYTES_MAX >> 20;
                    let message = format!("subqueries that stand for values give more than {max_mib} MiB together");
                    return Err(Error::new(Code::LimitExceeded, message).with_hint("join with them instead"));
                }
                values.push((subquery, value));
            }
            subquery::replace(plan, &values).map_err(translate)
        }
        .boxed()
    }

    /// The only value of a subquery, NULL when it gives no row.
    async fn scalar(&self, running: &Running, plan: &LogicalPlan) -> Result<ScalarValue> {
        let (Rows { batches, .. }, _) = self.execute(running, plan).await?;
        let mut rows = batches.iter().filter(|batch| batch.num_rows() > 0);
        let (first, second) = (rows.next(), rows.next());
        if second.is_some() || first.is_some_and(|batch| batch.num_rows() > 1) {
            return Err(functions::several_rows());
        }
        match first {
            Some(batch) => ScalarValue::try_from_array(batch.column(0), 0).map_err(translate),
            None => ScalarValue::try_new_null(plan.schema().field(0).data_type()).map_err(translate),
        }
    }

    async fn physical(
        &self,
        running: &Running,
        logical: &LogicalPlan,
        options: PlaceOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let logical = unnest::unnest(logical.clone()).map_err(translate)?;
        let plan = self.session.physical(&logical).await?;
        place::place(plan, &*running.site.schema, options).map_err(translate)
    }

    /// The plan to be run: its joins end when the query does, and what it copies comes in portions.
    async fn runnable(
        &self,
        running: &Running,
        logical: &LogicalPlan,
        options: PlaceOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = portions::fed(self.physical(running, logical, options).await?).map_err(translate)?;
        watch::joins(plan, &running.site).map_err(translate)
    }

    /// Runs a plan; once more without sending rows along, when these were many after all.
    async fn execute(&self, running: &Running, logical: &LogicalPlan) -> Result<(Rows, Arc<dyn ExecutionPlan>)> {
        let plan = self.runnable(running, logical, PlaceOptions { ship: true }).await?;
        match self.collect(running, plan.clone()).await {
            Err(_) if running.site.shipping_failed.swap(false, Ordering::Relaxed) => {}
            result => return result.map(|rows| (rows, plan)),
        }
        let plan = self.runnable(running, logical, PlaceOptions { ship: false }).await?;
        self.collect(running, plan.clone()).await.map(|rows| (rows, plan))
    }

    async fn collect(&self, running: &Running, plan: Arc<dyn ExecutionPlan>) -> Result<Rows> {
        let context = self.session.context(running.site_for(&plan), &self.pool);
        let held = MemoryConsumer::new("result").register(context.memory_pool());
        let mut bytes = RecordBatchMemoryCounter::new();
        let mut stream = counted::rows_of(plan, context).map_err(translate)?;
        let (mut batches, mut rows) = (Vec::new(), 0);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(translate)?;
            rows += batch.num_rows();
            if rows > running.limits.rows_max {
                let message = format!("the result has more than {} rows", running.limits.rows_max);
                return Err(Error::new(Code::LimitExceeded, message).with_hint("add LIMIT, or raise the limit on rows"));
            }
            held.try_grow(bytes.count_batch(&batch)).map_err(translate)?;
            batches.push(batch);
        }
        Ok(Rows { batches, held })
    }
}

/// Ends work at its deadline, and makes a panic of the engine an error.
async fn guarded<T>(deadline: Instant, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout_at(deadline.into(), AssertUnwindSafe(work).catch_unwind()).await {
        Err(_) => Err(Error::new(Code::Timeout, "the query took longer than it may")),
        Ok(Err(_)) => Err(Error::internal("the query engine panicked")),
        Ok(Ok(result)) => result,
    }
}
