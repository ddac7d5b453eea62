//! What holds below a node and not above it: that columns are constant on a side of an outer join that is filled up with
//! NULLs; that columns are constant, equal or in order below grouping sets, of which some leave them out.
//!
//! The engine takes it to hold above too, and then leaves columns out of ORDER BY, or takes rows to be grouped already: a
//! wrong order, or several rows for one group. So below such a node stands one that says nothing of its rows. It stays in the
//! plan, also at the storages, because the nodes above ask again whenever a plan is put together.
//!
//! Another stands above a filter with an equality of which one side is a part of the other (`a + b = b`): with it the engine
//! does not recognise an order that it has made itself.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use std::fmt;
use std::sync::Arc;

/// Puts the nodes in; before all rules that look at what is constant.
#[derive(Debug)]
pub struct HideConstants;

impl PhysicalOptimizerRule for HideConstants {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> DfResult<Arc<dyn ExecutionPlan>> {
        let optimized = plan.transform_up(|node| {
            if has_tangled_equality(&*node)? {
                return Ok(Transformed::yes(Arc::new(HidingExec::new(node)) as Arc<dyn ExecutionPlan>));
            }
            let mut is_changed = false;
            let children = node.children().into_iter().zip(loses_constants(&*node)).map(|(child, loses)| {
                // Other rules move nodes, and then more is known of a side of a join; of a scan nothing ever is. Grouping sets lose
                // orders too, which a scan has.
                let is_harmless = child.children().is_empty() && !node.is::<AggregateExec>();
                if !loses || is_harmless {
                    return child.clone();
                }
                is_changed = true;
                Arc::new(HidingExec::new(child.clone())) as Arc<dyn ExecutionPlan>
            });
            let children: Vec<_> = children.collect();
            if !is_changed {
                return Ok(Transformed::no(node));
            }
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            node.replace_children(children, options).map(Transformed::yes)
        })?;
        Ok(optimized.data)
    }

    fn name(&self) -> &str {
        "hide_constants"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether a filter takes an expression to be equal to a part of it.
fn has_tangled_equality(node: &dyn ExecutionPlan) -> DfResult<bool> {
    let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(false) };
    for conjunct in split_conjunction(filter.predicate()) {
        let Some(equality) = conjunct.downcast_ref::<BinaryExpr>().filter(|binary| *binary.op() == Operator::Eq) else {
            continue;
        };
        let (left, right) = (equality.left(), equality.right());
        // Of other pairs the engine concludes nothing.
        if !left.is::<Column>() && !right.is::<Column>() {
            continue;
        }
        if left.exists(|part| Ok(part == right))? || right.exists(|part| Ok(part == left))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// For each input, whether its columns can be NULL in the rows of the node wherever they are not in the input's.
fn loses_constants(node: &dyn ExecutionPlan) -> [bool; 2] {
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return [!aggregate.group_expr().is_single(), false];
    }
    let hash = node.downcast_ref::<HashJoinExec>().map(|join| *join.join_type());
    match hash.or_else(|| node.downcast_ref::<NestedLoopJoinExec>().map(|join| *join.join_type())) {
        Some(JoinType::Left) => [false, true],
        Some(JoinType::Right) => [true, false],
        Some(JoinType::Full) => [true, true],
        _ => [false, false],
    }
}

/// Passes rows on, of which nothing is known.
#[derive(Debug)]
pub struct HidingExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl HidingExec {
    pub const NAME: &str = "HidingExec";

    pub fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, properties: Arc::new(properties) }
    }
}

impl DisplayAs for HidingExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAME)
    }
}

impl ExecutionPlan for HidingExec {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
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
        Ok(Arc::new(Self::new(children.pop().unwrap_or_else(|| self.input.clone()))))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        Ok(inputs[0].clone())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
