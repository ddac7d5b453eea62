//! The leaf of every plan: reads stored tuples of one table in this process and decodes the wanted columns.
//!
//! Of a sharded table it reads the buckets that its site names; of a global one all rows, anywhere. While one slice is
//! decoded and computed on, the next is already asked for.

use super::decode::Decoder;
use super::errors::wrap;
use super::lookups::{self, Keys, LOOKUP_ROWS};
use super::ranges::{Access, index_columns, merge};
use super::site::Site;
use super::types::table_schema;
use crate::cluster::{Bound, BucketRange, Columnar, KeyRange, Moment, Scan, ScanRequest, TupleBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use model::{Error, Result, Table, Value};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Rows of a key that is not unique, and bytes of a value, when nothing better is known.
const ROWS_PER_KEY: u64 = 100;
const VALUE_BYTES: u64 = 16;
/// Keys that are looked up to see how many rows they have, and the rows at which that is enough.
const SAMPLE_KEYS: usize = 16;
const SAMPLE_ROWS_MAX: usize = 2048;
/// The metric of keys that were looked up.
const LOOKUPS: &str = "lookups";
/// The metric of rows that the storage had the columns of.
const COLUMNAR_ROWS: &str = "columnar_rows";
/// Rows without columns in one batch.
const COUNTED_ROWS_MAX: usize = 8192;

/// Reads one table.
#[derive(Clone, Debug)]
pub struct ScanExec {
    pub table: Arc<Table>,
    /// The number of this scan in its statement.
    pub id: u32,
    /// Positions of the table's columns.
    pub projection: Vec<usize>,
    pub access: Access,
    pub fetch: Option<usize>,
    /// About how many rows there are in the whole table.
    pub table_rows: Option<u64>,
    /// Of a join that this scan is the other side of.
    keys: Option<Arc<Keys>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ScanExec {
    pub fn try_new(
        table: Arc<Table>,
        id: u32,
        projection: Vec<usize>,
        access: Access,
        fetch: Option<usize>,
    ) -> DfResult<Self> {
        let schema: SchemaRef = Arc::new(table_schema(&table).project(&projection)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            table,
            id,
            projection,
            access,
            fetch,
            table_rows: None,
            keys: None,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The same scan of a table of about so many rows.
    pub fn of_rows(self, table_rows: Option<u64>) -> Self {
        Self { table_rows, ..self }
    }

    /// The same scan as the other side of a join. Its metrics are its own.
    pub fn by_keys(self, keys: Arc<Keys>) -> Self {
        Self { keys: Some(keys), metrics: ExecutionPlanMetricsSet::new(), ..self }
    }

    /// About how many rows this scan reads in the whole cluster.
    pub fn rows(&self) -> Option<u64> {
        let table_rows = self.table_rows?;
        let by_key = match self.access.rows_max {
            Some(rows) => Some(rows as u64),
            None if self.access.ranges.iter().all(is_key) => Some(self.access.ranges.len() as u64 * ROWS_PER_KEY),
            None => None,
        };
        let fetch = self.fetch.map_or(u64::MAX, |fetch| fetch as u64);
        Some(table_rows.min(by_key.unwrap_or(u64::MAX)).min(fetch))
    }

    /// The requests that this scan makes of the storage, given the buckets to read: one, unless rows of several ranges could
    /// be in any bucket of a primary index, which begins with the bucket.
    fn requests(&self, index: u32, ranges: &[KeyRange], buckets: &[BucketRange]) -> VecDeque<ScanRequest> {
        let is_global = self.table.is_global();
        let is_here = |range: &&KeyRange| match range.bucket {
            _ if is_global => true,
            Some(bucket) => buckets.iter().any(|b| b.contains(bucket)),
            None => !buckets.is_empty(),
        };
        let mut ranges: Vec<KeyRange> = ranges.iter().filter(is_here).cloned().collect();
        let by_bucket = index == 0 && !is_global;
        let request = |ranges: Vec<KeyRange>| ScanRequest {
            table: self.table.clone(),
            index,
            buckets: if is_global { Vec::new() } else { buckets_of(&ranges).unwrap_or_else(|| buckets.to_vec()) },
            ranges,
            descending: false,
            rows_max: self.fetch,
            count_only: self.projection.is_empty(),
            columns: self.projection.clone(),
        };
        if self.is_split(index, &ranges) {
            return ranges.into_iter().map(|range| request(vec![range])).collect();
        }
        ranges.sort_by(|a, b| {
            let by_key = lookups::compare(first_key(a), first_key(b));
            if by_bucket { a.bucket.cmp(&b.bucket).then(by_key) } else { by_key }
        });
        if ranges.is_empty() { VecDeque::new() } else { VecDeque::from([request(ranges)]) }
    }
}

impl ScanExec {
    /// Whether ranges are read one after the other.
    fn is_split(&self, index: u32, ranges: &[KeyRange]) -> bool {
        let by_bucket = index == 0 && !self.table.is_global();
        by_bucket && ranges.len() > 1 && ranges.iter().any(|range| range.bucket.is_none())
    }

    /// How many scans of the storage have to see one moment.
    pub fn scans(&self) -> usize {
        if self.is_split(self.access.index, &self.access.ranges) { self.access.ranges.len() } else { 1 }
    }

    /// The requests of a scan by a join's keys: those that look them up, or that read everything when this is less.
    fn choose(
        &self,
        keys: Arc<Keys>,
        buckets: Vec<BucketRange>,
        site: &Arc<Site>,
        moment: &Arc<Moment>,
        partition: usize,
    ) -> BoxFuture<'static, Result<VecDeque<ScanRequest>>> {
        let (scan, site, moment) = (self.clone(), site.clone(), moment.clone());
        let lookups = MetricBuilder::new(&self.metrics).counter(LOOKUPS, partition);
        async move {
            if let Some(ranges) = keys.ranges()
                && (keys.is_unique || scan.is_worth_it(&keys, &ranges, &buckets, &site, &moment).await?)
            {
                let requests = scan.requests(keys.index, &ranges, &buckets);
                lookups.add(requests.iter().map(|request| request.ranges.len()).sum());
                return Ok(requests);
            }
            Ok(scan.requests(scan.access.index, &scan.access.ranges, &buckets))
        }
        .boxed()
    }

    /// Whether looking up the keys costs less than reading everything, judged by some of them.
    async fn is_worth_it(
        &self,
        keys: &Keys,
        ranges: &[KeyRange],
        buckets: &[BucketRange],
        site: &Site,
        moment: &Arc<Moment>,
    ) -> Result<bool> {
        let step = ranges.len().div_ceil(SAMPLE_KEYS).max(1);
        let sample: Vec<KeyRange> = ranges.iter().step_by(step).cloned().collect();
        let (mut rows, count) = (0, sample.len().max(1) as u64);
        for request in self.requests(keys.index, &sample, buckets) {
            let request = ScanRequest { rows_max: Some(SAMPLE_ROWS_MAX), count_only: false, ..request };
            let mut scan = site.cluster.scan(request, moment.clone()).await?;
            while let Some(slice) = scan.next().await? {
                rows += slice.rows() as u64;
            }
        }
        let looked_up = ranges.len() as u64 * (1 + rows / count);
        Ok(rows < SAMPLE_ROWS_MAX as u64 && looked_up.saturating_mul(LOOKUP_ROWS) <= keys.rows)
    }
}

/// Whether a range is one key, or a part of one.
fn is_key(range: &KeyRange) -> bool {
    range.lower.is_some() && range.lower == range.upper
}

/// Where a range begins.
fn first_key(range: &KeyRange) -> &[Value] {
    range.lower.as_ref().map_or(&[], |bound| &bound.values)
}

/// The buckets of ranges that have one each, sorted and without overlaps.
fn buckets_of(ranges: &[KeyRange]) -> Option<Vec<BucketRange>> {
    ranges.iter().map(|range| range.bucket).collect::<Option<_>>().map(merge)
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.table.is_global() { "global" } else { "sharded" };
        write!(f, "Scan {} ({kind})", self.table.name)?;
        let names = self.projection.iter().map(|at| self.table.columns[*at].name.as_str()).collect::<Vec<_>>();
        write!(f, ": columns=[{}]", names.join(", "))?;
        if self.access != Access::full() {
            write!(f, ", index={}", index_name(&self.table, self.access.index))?;
            write_ranges(f, &self.table, &self.access)?;
        }
        if let Some(buckets) = &self.access.buckets {
            let list = buckets.iter().map(show_buckets).collect::<Vec<_>>();
            write!(f, ", buckets=[{}]", shorten(&list))?;
        }
        if let Some(fetch) = self.fetch {
            write!(f, ", fetch={fetch}")?;
        }
        if let Some(keys) = &self.keys {
            let index = index_name(&self.table, keys.index);
            match self.metrics.clone_inner().sum_by_name(LOOKUPS) {
                Some(count) => write!(f, ", lookups={} by {index}", count.as_usize())?,
                None => write!(f, ", may look up by {index}")?,
            }
        }
        match self.rows() {
            Some(rows) => write!(f, ", rows~{rows}"),
            None => Ok(()),
        }
    }
}

fn show_buckets(range: &BucketRange) -> String {
    if range.first == range.last { range.first.to_string() } else { range.to_string() }
}

/// A list for people: its first members, and how many more.
fn shorten(list: &[String]) -> String {
    const SHOWN_MAX: usize = 8;
    let shown = list.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if list.len() > SHOWN_MAX { format!("{shown}, ... {} in all", list.len()) } else { shown }
}

fn index_name(table: &Table, index: u32) -> &str {
    table.indexes.iter().find(|i| i.id == index).map_or("primary key", |i| i.name.as_str())
}

fn write_ranges(f: &mut fmt::Formatter<'_>, table: &Table, access: &Access) -> fmt::Result {
    let columns: Vec<&str> =
        index_columns(table, access.index).iter().map(|at| table.columns[*at].name.as_str()).collect();
    let shown = access.ranges.iter().filter_map(|range| show_range(&columns, range)).collect::<Vec<_>>();
    if access.ranges.is_empty() {
        return f.write_str(", ranges=[none]");
    }
    if shown.is_empty() { Ok(()) } else { write!(f, ", ranges=[{}]", shorten(&shown)) }
}

fn show_range(columns: &[&str], range: &KeyRange) -> Option<String> {
    let show = |bound: &Bound| {
        let values: Vec<String> = bound.values.iter().map(ToString::to_string).collect();
        match values.as_slice() {
            [one] => (columns[0].to_owned(), one.clone()),
            many => (format!("({})", columns[..many.len()].join(", ")), format!("({})", many.join(", "))),
        }
    };
    let op = |bound: &Bound, sign: char| if bound.inclusive { format!("{sign}=") } else { sign.to_string() };
    match (&range.lower, &range.upper) {
        (Some(lower), Some(upper)) if lower == upper => {
            let (names, values) = show(lower);
            Some(format!("{names} = {values}"))
        }
        (None, None) => None,
        (lower, upper) => {
            let lower = lower.as_ref().map(|bound| (show(bound), op(bound, '>')));
            let upper = upper.as_ref().map(|bound| (show(bound), op(bound, '<')));
            let parts = lower.into_iter().chain(upper).map(|((names, values), op)| format!("{names} {op} {values}"));
            Some(parts.collect::<Vec<_>>().join(" and "))
        }
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &str {
        "ScanExec"
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

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, fetch: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self { fetch, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    /// Never exact: the engine would answer count(*) from it.
    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        let schema = self.schema();
        let Some(rows) = self.rows() else { return Ok(Arc::new(Statistics::new_unknown(&schema))) };
        let bytes = rows.saturating_mul(VALUE_BYTES).saturating_mul(schema.fields().len().max(1) as u64);
        Ok(Arc::new(Statistics {
            num_rows: Precision::Inexact(rows as usize),
            total_byte_size: Precision::Inexact(bytes as usize),
            column_statistics: schema.fields().iter().map(|_| ColumnStatistics::new_unknown()).collect(),
        }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let site = Site::of(&context)?;
        let buckets = site.buckets.get(&self.id).map_or(&[][..], Vec::as_slice);
        let moment = site.moment.clone().ok_or_else(|| wrap(Error::internal("a scan outside of any moment")))?;
        let (requests, choice) = match &self.keys {
            Some(keys) => {
                (VecDeque::new(), Some(self.choose(keys.clone(), buckets.to_vec(), &site, &moment, partition)))
            }
            None => (self.requests(self.access.index, &self.access.ranges, buckets), None),
        };
        let stream = ScanStream {
            requests,
            choice,
            moment,
            decoder: Decoder::new(&self.table, &self.projection, self.schema()),
            rows_left: self.fetch.unwrap_or(usize::MAX),
            counted: 0,
            metrics: BaselineMetrics::new(&self.metrics, partition),
            columnar_rows: MetricBuilder::new(&self.metrics).counter(COLUMNAR_ROWS, partition),
            pending: None,
            site,
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

/// The answer to a slice that was asked for, with the scan it came from, when there is more to come.
type Slice = Result<Option<(Box<dyn Scan>, TupleBatch)>>;

/// Runs the requests one after the other.
struct ScanStream {
    requests: VecDeque<ScanRequest>,
    /// Which they are is to be found out, once the first row is asked for.
    choice: Option<BoxFuture<'static, Result<VecDeque<ScanRequest>>>>,
    site: Arc<Site>,
    moment: Arc<Moment>,
    decoder: Decoder,
    rows_left: usize,
    /// Rows that were counted and are to be given yet.
    counted: usize,
    metrics: BaselineMetrics,
    columnar_rows: Count,
    pending: Option<BoxFuture<'static, Slice>>,
}

impl ScanStream {
    /// Asks for the first slice of the next request; false when there is none.
    fn open_next(&mut self) -> bool {
        let Some(request) = self.requests.pop_front() else { return false };
        let (site, moment) = (self.site.clone(), self.moment.clone());
        self.pending = Some(
            async move {
                let scan = site.cluster.scan(request, moment).await?;
                next_slice(scan).await
            }
            .boxed(),
        );
        true
    }

    /// The next of the rows that were counted.
    fn give_counted(&mut self) -> DfResult<RecordBatch> {
        let rows = self.counted.min(COUNTED_ROWS_MAX).min(self.rows_left);
        self.counted -= rows;
        self.rows_left -= rows;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.decoder.schema(), Vec::new(), &options)?)
    }

    fn decode(&mut self, slice: &TupleBatch) -> DfResult<RecordBatch> {
        let timer = self.metrics.elapsed_compute().timer();
        if let Some(Columnar::Whole(columns)) = &slice.columnar {
            self.columnar_rows.add(columns.rows);
        }
        let batch = self.decoder.decode(slice).map_err(wrap)?;
        timer.done();
        let batch = if batch.num_rows() > self.rows_left { batch.slice(0, self.rows_left) } else { batch };
        self.rows_left -= batch.num_rows();
        Ok(batch)
    }
}

async fn next_slice(mut scan: Box<dyn Scan>) -> Slice {
    Ok(scan.next().await?.map(|slice| (scan, slice)))
}

impl Stream for ScanStream {
    type Item = Result<RecordBatch, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.rows_left == 0 {
                (this.pending, this.requests, this.counted) = (None, VecDeque::new(), 0);
            }
            if this.counted > 0 {
                let batch = this.give_counted();
                return this.metrics.record_poll(Poll::Ready(Some(batch)));
            }
            if let Some(choice) = &mut this.choice {
                match choice.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(requests)) => (this.requests, this.choice) = (requests, None),
                    Poll::Ready(Err(error)) => {
                        this.choice = None;
                        return Poll::Ready(Some(Err(wrap(error))));
                    }
                }
            }
            let Some(pending) = &mut this.pending else {
                if this.open_next() {
                    continue;
                }
                return this.metrics.record_poll(Poll::Ready(None));
            };
            match pending.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    (this.pending, this.requests) = (None, VecDeque::new());
                    return Poll::Ready(Some(Err(wrap(error))));
                }
                Poll::Ready(Ok(None)) => this.pending = None,
                Poll::Ready(Ok(Some((scan, slice)))) => {
                    this.counted = slice.counted;
                    if slice.rows() < this.rows_left {
                        let mut next = next_slice(scan).boxed();
                        // Polled once so that the storage works on it while this slice is decoded. A future that is
                        // done already must not be polled again, so its answer is kept.
                        this.pending = Some(match next.as_mut().poll(context) {
                            Poll::Ready(answer) => std::future::ready(answer).boxed(),
                            Poll::Pending => next,
                        });
                    } else {
                        (this.pending, this.requests) = (None, VecDeque::new());
                    }
                    if slice.rows() == 0 {
                        continue;
                    }
                    let batch = this.decode(&slice);
                    return this.metrics.record_poll(Poll::Ready(Some(batch)));
                }
            }
        }
    }
}
