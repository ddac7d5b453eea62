//! The sides of outer joins that are filled up with NULLs: what is constant in one is not constant in the join.
//!
//! The engine takes it to be, and then leaves it out of ORDER BY, or takes rows to be grouped already: a wrong order, or
//! several rows for one group. So such a side stands below a node that says nothing of its rows. It stays in the plan, also at the
//! storages, because the nodes above ask again whenever a plan is put together.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
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
pub struct OuterSides;

impl PhysicalOptimizerRule for OuterSides {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> DfResult<Arc<dyn ExecutionPlan>> {
        let optimized = plan.transform_up(|node| {
            let [left, right] = filled_up(&*node);
            let [l, r] = node.children()[..] else { return Ok(Transformed::no(node)) };
            let is_constant = |side: &Arc<dyn ExecutionPlan>| !side.equivalence_properties().constants().is_empty();
            let (left, right) = (left && is_constant(l), right && is_constant(r));
            if !left && !right {
                return Ok(Transformed::no(node));
            }
            let side = |input: &Arc<dyn ExecutionPlan>, is_filled: bool| -> Arc<dyn ExecutionPlan> {
                if is_filled { Arc::new(OuterSideExec::new(input.clone())) } else { input.clone() }
            };
            let children = vec![side(l, left), side(r, right)];
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            node.clone().replace_children(children, options).map(Transformed::yes)
        })?;
        Ok(optimized.data)
    }

    fn name(&self) -> &str {
        "outer_sides"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether the left and the right side of a join are filled up with NULLs.
fn filled_up(node: &dyn ExecutionPlan) -> [bool; 2] {
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
pub struct OuterSideExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl OuterSideExec {
    pub const NAME: &str = "OuterSideExec";

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

impl DisplayAs for OuterSideExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAME)
    }
}

impl ExecutionPlan for OuterSideExec {
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
