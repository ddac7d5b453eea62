//! Rows that share a long text go a few at a time to nodes that copy what they keep: aggregates and sorts. What these keep is
//! counted after each batch, and a batch of rows that are short by themselves may be terabytes once each has its own copy.

use super::bounds::{is_long, portions, size_of as size_of_array, size_of_scalar};
use super::gather::{GatherExec, change_here, with_children};
use super::hiding::HidingExec;
use super::lookups::TapExec;
use super::scan::ScanExec;
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use futures::stream::iter;
use std::fmt;
use std::sync::Arc;

/// Constants of so many bytes do not matter, also when each row of a batch has its own copy.
const SHORT_BYTES: usize = 1 << 10;

/// The plan, with portions where they are needed, of what runs here.
pub fn fed(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    change_here(plan, &mut |node| {
        if !copies(&*node) {
            return Ok(node);
        }
        let Some(input) = node.children().first().copied().cloned() else { return Ok(node) };
        let constants = constants_of(&*node, &input.schema())?;
        if constants <= SHORT_BYTES && !may_share(&*input)? {
            return Ok(node);
        }
        with_children(&node, vec![Arc::new(PortionsExec { input, constants })])
    })
}

/// Whether a node copies texts of many rows of a batch before its memory is counted.
fn copies(node: &dyn ExecutionPlan) -> bool {
    let Some(aggregate) = node.downcast_ref::<AggregateExec>() else { return node.is::<SortExec>() };
    let keeps_one = |name: &str| ["min", "max", "count", "sum", "avg", "bool_and", "bool_or"].contains(&name);
    let mut functions = aggregate.aggr_expr().iter();
    !aggregate.group_expr().is_empty()
        || functions.any(|function| function.is_distinct() || !keeps_one(function.fun().name()))
}

/// The bytes of the constants that a node's expressions may answer, for each row.
fn constants_of(node: &dyn ExecutionPlan, input: &Schema) -> DfResult<usize> {
    let mut bytes = 0_usize;
    node.apply_expressions(&mut |root| {
        root.apply(|part| {
            // What compares texts answers none. Of columns that a second step of an aggregate names nothing is known, nor wanted.
            if !part.data_type(input).is_ok_and(|ty| is_long(&ty)) {
                return Ok(TreeNodeRecursion::Jump);
            }
            let Some(bytes_here) = constant_bytes(part)? else { return Ok(TreeNodeRecursion::Continue) };
            bytes = bytes.saturating_add(bytes_here);
            Ok(TreeNodeRecursion::Jump)
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(bytes)
}

/// The bytes of an expression that is the same for all rows: a literal, or a call that was too long to be made one.
fn constant_bytes(expr: &Arc<dyn PhysicalExpr>) -> DfResult<Option<usize>> {
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return size_of_scalar(literal.value()).map(|size| Some(size.total()));
    }
    if !expr.is::<ScalarFunctionExpr>() || expr.exists(|part| Ok(part.is::<Column>()))? {
        return Ok(None);
    }
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)?;
    match expr.evaluate(&row) {
        Ok(value) => Ok(Some(size_of_array(&value.into_array(1)?).total())),
        // It fails again where a row needs it, if one does.
        Err(_) => Ok(None),
    }
}

/// Whether rows of a node may have a long text in common.
fn may_share(node: &dyn ExecutionPlan) -> DfResult<bool> {
    let schema = node.schema();
    if !schema.fields().iter().any(|field| is_long(field.data_type())) {
        return Ok(false);
    }
    // Each row of these has its own.
    if node.is::<ScanExec>() || node.is::<AggregateExec>() {
        return Ok(false);
    }
    let passes = node.is::<FilterExec>()
        || node.is::<CooperativeExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<RepartitionExec>()
        || node.is::<SortExec>()
        || node.is::<UnionExec>()
        || node.is::<GatherExec>()
        || node.is::<HidingExec>()
        || node.is::<TapExec>();
    let is_projection = node.is::<ProjectionExec>();
    if let Some(input) = node.children().first().filter(|_| is_projection)
        && constants_of(node, &input.schema())? > SHORT_BYTES
    {
        return Ok(true);
    }
    if !passes && !is_projection {
        return Ok(true);
    }
    node.children().into_iter().try_fold(false, |shares, child| Ok(shares || may_share(&**child)?))
}

/// Passes rows on, so many at a time that copies of their texts have some megabytes.
#[derive(Debug)]
pub struct PortionsExec {
    input: Arc<dyn ExecutionPlan>,
    /// The bytes of what each row is given above.
    constants: usize,
}

impl PortionsExec {
    pub const NAME: &str = "PortionsExec";
}

impl DisplayAs for PortionsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAME)
    }
}

impl ExecutionPlan for PortionsExec {
    fn name(&self) -> &str {
        Self::NAME
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
        Ok(Arc::new(Self { input, constants: self.constants }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let constants = self.constants;
        let parts = self.input.execute(partition, context)?.flat_map(move |batch| match batch {
            Ok(batch) => iter(parts(batch, constants).map(Ok)).left_stream(),
            error => iter([error]).right_stream(),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), parts)))
    }
}

/// A batch in parts, all of it.
fn parts(batch: RecordBatch, constants: usize) -> impl Iterator<Item = RecordBatch> {
    let mut first = 0;
    portions(&batch, constants).into_iter().map(move |rows| {
        let part = batch.slice(first, rows);
        first += rows;
        part
    })
}
