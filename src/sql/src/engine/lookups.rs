//! Joins that look up what they need: the keys of the side that a hash join reads first become ranges of an index of the
//! other side, which is then not read as a whole.
//!
//! Decided where the join runs, and while it runs, because only then is it known how many keys there are. A `TapExec` above the
//! first side notes its keys; the scan of the other side, which is asked for rows after that, looks them up when they are
//! few: few beside the rows that a scan would read, and few rows a key, which it finds out by looking up some of them.
//! The join itself stays as it is, so more rows than needed do no harm.

use super::gather::{GatherExec, with_children};
use super::hiding::HidingExec;
use super::ranges::{self, Access, bucket_of_range, index_columns};
use super::scan::ScanExec;
use super::site::Site;
use super::types::value_of;
use crate::cluster::{Bound, KeyRange};
use datafusion::arrow::array::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use model::{ColumnType, Distribution, Table, Value};
use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Keys that are looked up at most.
const KEYS_MAX: usize = 1 << 16;
/// A row that is looked up costs as much as so many that are passed over.
pub const LOOKUP_ROWS: u64 = 16;

/// The keys of a join's first side, for a scan of its other side.
#[derive(Debug)]
pub struct Keys {
    /// Their columns in the first side, in the order of the index.
    columns: Vec<usize>,
    pub index: u32,
    /// Whether there is at most one row a key.
    pub is_unique: bool,
    table: Arc<Table>,
    bucket_count: u32,
    /// About how many rows a scan would read here.
    pub rows: u64,
    found: Mutex<Found>,
}

#[derive(Debug)]
enum Found {
    /// The first side is read yet.
    Some(Vec<Vec<Value>>),
    All(Vec<Vec<Value>>),
    TooMany,
}

impl Keys {
    fn max(&self) -> usize {
        usize::try_from(self.rows / LOOKUP_ROWS).map_or(KEYS_MAX, |max| max.min(KEYS_MAX))
    }

    fn note(&self, batch: &RecordBatch) -> DfResult<()> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let Found::Some(keys) = &mut *found else { return Ok(()) };
        for row in 0..batch.num_rows() {
            let values = self.columns.iter().map(|at| ScalarValue::try_from_array(batch.column(*at), row));
            let values = values.collect::<DfResult<Vec<_>>>()?;
            if values.iter().any(ScalarValue::is_null) {
                continue; // Equals nothing.
            }
            let types = index_columns(&self.table, self.index).iter().map(|at| self.table.columns[*at].ty);
            match values.iter().zip(types).map(|(value, ty)| value_of(value, ty)).collect() {
                Some(key) => keys.push(key),
                None => {
                    *found = Found::TooMany;
                    return Ok(());
                }
            }
            if keys.len() > 2 * self.max() {
                sort(keys);
                if keys.len() > self.max() {
                    *found = Found::TooMany;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn complete(&self) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Found::Some(keys) = &mut *found {
            sort(keys);
            let keys = std::mem::take(keys);
            *found = if keys.len() > self.max() { Found::TooMany } else { Found::All(keys) };
        }
    }

    /// A range of the index for each key; None when they are too many, or not all known.
    pub fn ranges(&self) -> Option<Vec<KeyRange>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let Found::All(keys) = &*found else { return None };
        keys.iter().map(|key| self.range(key.clone())).collect()
    }

    fn range(&self, values: Vec<Value>) -> Option<KeyRange> {
        let bound = Some(Bound { values, inclusive: true });
        let mut range = KeyRange { lower: bound.clone(), upper: bound, bucket: None };
        if let (Distribution::Sharded { key, .. }, 0) = (&self.table.distribution, self.index) {
            range.bucket = Some(bucket_of_range(&self.table, self.index, key, &range, self.bucket_count)?);
        }
        Some(range)
    }
}

fn sort(keys: &mut Vec<Vec<Value>>) {
    keys.sort_by(|a, b| compare(a, b));
    keys.dedup_by(|a, b| compare(a, b).is_eq());
}

/// The order of keys in an index.
pub fn compare(a: &[Value], b: &[Value]) -> Ordering {
    a.iter().zip(b).map(|(a, b)| ranges::compare(a, b)).find(|order| order.is_ne()).unwrap_or(a.len().cmp(&b.len()))
}

/// Has the joins of a plan look up what they can, at a site.
pub fn prepare(plan: Arc<dyn ExecutionPlan>, site: &Site) -> DfResult<Arc<dyn ExecutionPlan>> {
    let prepared = plan.transform_up(|node| match looked_up(&node, site)? {
        Some(join) => Ok(Transformed::yes(join)),
        None => Ok(Transformed::no(node)),
    })?;
    Ok(prepared.data)
}

/// A router's plan as EXPLAIN shows it: with the joins that may look up where its fragments run.
pub fn shown(plan: Arc<dyn ExecutionPlan>, site: &Site) -> DfResult<Arc<dyn ExecutionPlan>> {
    let shown = plan.transform_up(|node| {
        if !node.is::<GatherExec>() {
            return Ok(Transformed::no(node));
        }
        let mut children: Vec<_> = node.children().into_iter().cloned().collect();
        if let Some(fragment) = children.first_mut() {
            *fragment = prepare(fragment.clone(), site)?;
        }
        with_children(&node, children).map(Transformed::yes)
    })?;
    Ok(shown.data)
}

fn looked_up(node: &Arc<dyn ExecutionPlan>, site: &Site) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(None) };
    // Rows of the right side that meet none on the left do not come out. NOT IN wants to know of them: whether there are any,
    // and whether one is NULL.
    let drops = matches!(
        join.join_type(),
        JoinType::Inner
            | JoinType::Left
            | JoinType::LeftSemi
            | JoinType::LeftAnti
            | JoinType::LeftMark
            | JoinType::RightSemi
    );
    if !drops || join.null_aware || join.null_equality() != NullEquality::NullEqualsNothing {
        return Ok(None);
    }
    let pairs = join.on().iter().filter_map(|(left, right)| {
        let (left, right) = (column_of(left)?, column_of(right)?);
        let [l, r] = [join.left().schema(), join.right().schema()];
        (l.field(left).data_type() == r.field(right).data_type()).then_some((left, right))
    });
    let Some((right, keys)) = by_keys(join.right(), pairs.collect(), site)? else { return Ok(None) };
    let left = Arc::new(TapExec { input: join.left().clone(), keys });
    with_children(node, vec![left, right]).map(Some)
}

fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

type Scanned = Option<(Arc<dyn ExecutionPlan>, Arc<Keys>)>;

/// A join's right side with a scan by keys; `pairs` are columns that have to be equal, on the left and in this plan.
fn by_keys(plan: &Arc<dyn ExecutionPlan>, pairs: Vec<(usize, usize)>, site: &Site) -> DfResult<Scanned> {
    if let Some(scan) = plan.downcast_ref::<ScanExec>() {
        return Ok(scan_by_keys(scan, &pairs, site));
    }
    let below: Vec<Option<usize>> = if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        projection.expr().iter().map(|expr| column_of(&expr.expr)).collect()
    } else if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        match filter.projection() {
            Some(kept) => kept.iter().map(|at| Some(*at)).collect(),
            None => (0..plan.schema().fields().len()).map(Some).collect(),
        }
    } else if plan.is::<CooperativeExec>() || plan.is::<HidingExec>() {
        (0..plan.schema().fields().len()).map(Some).collect()
    } else {
        return Ok(None);
    };
    let pairs = pairs.into_iter().filter_map(|(left, right)| Some((left, (*below.get(right)?)?))).collect();
    let Some(input) = plan.children().first().copied().cloned() else { return Ok(None) };
    match by_keys(&input, pairs, site)? {
        Some((input, keys)) => Ok(Some((with_children(plan, vec![input])?, keys))),
        None => Ok(None),
    }
}

fn scan_by_keys(scan: &ScanExec, pairs: &[(usize, usize)], site: &Site) -> Scanned {
    if scan.access.ranges != Access::full().ranges || scan.fetch.is_some() {
        return None;
    }
    let table = &scan.table;
    let (rows, bucket_count) = rows_here(scan, site)?;
    let known = |column: &usize| {
        let exact = !matches!(table.columns[*column].ty, ColumnType::Double | ColumnType::Real);
        let pair = pairs.iter().find(|(_, right)| scan.projection.get(*right) == Some(column));
        pair.filter(|_| exact).map(|(left, _)| *left)
    };
    let primary = (0, &table.primary_key, true);
    let secondary = table.indexes.iter().map(|index| (index.id, &index.columns, index.unique));
    let best = std::iter::once(primary).chain(secondary).filter_map(|(index, columns, unique)| {
        let prefix: Vec<usize> = columns.iter().map_while(known).collect();
        let has_bucket = match &table.distribution {
            Distribution::Sharded { key, .. } if index == 0 => {
                key.iter().all(|column| columns[..prefix.len()].contains(column))
            }
            _ => true,
        };
        let is_unique = unique && prefix.len() == columns.len();
        (has_bucket && !prefix.is_empty()).then_some((is_unique, prefix.len(), index, prefix))
    });
    // The first of the best: the primary index needs no second look.
    let best = best.reduce(|a, b| if (b.0, b.1) > (a.0, a.1) { b } else { a });
    let (is_unique, _, index, columns) = best?;
    let found = Mutex::new(Found::Some(Vec::new()));
    let keys = Arc::new(Keys { columns, index, is_unique, table: table.clone(), bucket_count, rows, found });
    Some((Arc::new(scan.clone().by_keys(keys.clone())), keys))
}

/// About how many rows a scan reads here, and how many buckets there are.
fn rows_here(scan: &ScanExec, site: &Site) -> Option<(u64, u32)> {
    let rows = scan.table_rows?;
    let Distribution::Sharded { tier, .. } = &scan.table.distribution else { return Some((rows, 1)) };
    let count = site.schema.bucket_count(tier)?;
    // A plan that is only shown runs nowhere.
    let Some(buckets) = site.buckets.get(&scan.id) else { return Some((rows, count)) };
    let here: u64 = buckets.iter().map(|range| u64::from(range.last - range.first) + 1).sum();
    Some((rows.saturating_mul(here) / u64::from(count.max(1)), count))
}

/// Passes rows on, and notes their keys.
#[derive(Debug)]
pub struct TapExec {
    input: Arc<dyn ExecutionPlan>,
    keys: Arc<Keys>,
}

impl TapExec {
    pub const NAME: &str = "KeysOfJoin";
}

impl DisplayAs for TapExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAME)
    }
}

impl ExecutionPlan for TapExec {
    fn name(&self) -> &str {
        "TapExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.pop().unwrap_or_else(|| self.input.clone());
        Ok(Arc::new(Self { input, keys: self.keys.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let (input, keys) = (self.input.execute(partition, context)?, self.keys.clone());
        let noted = input.map(Some).chain(futures::stream::iter([None])).filter_map(move |batch| {
            let passed = match batch {
                Some(Ok(batch)) => Some(keys.note(&batch).map(|()| batch)),
                Some(Err(error)) => Some(Err(error)),
                None => {
                    keys.complete();
                    None
                }
            };
            std::future::ready(passed)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), noted)))
    }
}
