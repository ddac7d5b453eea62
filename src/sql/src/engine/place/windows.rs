//! The order that windows rely on, where the engine takes it for granted: above a boundary, and above joins that forget in a late
//! rule of the engine's that a column of theirs is constant.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode, WindowExpr};
use std::sync::Arc;

/// Sorts the inputs of windows that can not see that they are sorted. Runs before the engine checks its plan.
#[derive(Debug)]
pub struct WindowsInOrder;

impl PhysicalOptimizerRule for WindowsInOrder {
    fn name(&self) -> &str {
        "WindowsInOrder"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> DfResult<Arc<dyn ExecutionPlan>> {
        let checked = |node: Arc<dyn ExecutionPlan>| {
            // Of partitions it knows more here than above a boundary.
            if is_met(&*node) { Ok(Transformed::no(node)) } else { in_order(node).map(Transformed::yes) }
        };
        plan.transform_up(checked).map(|sorted| sorted.data)
    }
}

/// The plan with its rows sorted for it, when it is a window that needs them so and can not see that they are.
///
/// The engine planned the window over rows of which it knew more: that a column is constant, for one, takes it out of the
/// order that is needed. Not all of that is known of rows that were gathered.
pub(super) fn in_order(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    if let Some(window) = plan.downcast_ref::<BoundedWindowAggExec>() {
        if matches!(window.input_order_mode, InputOrderMode::Linear)
            || is_sorted(window.partition_by_sort_keys(), &*plan)
        {
            return Ok(plan);
        }
        let can_repartition = !window.partition_keys().is_empty();
        let (exprs, input) = (window.window_expr().to_vec(), sorted(window.window_expr(), window.input()));
        return Ok(Arc::new(BoundedWindowAggExec::try_new(exprs, input, InputOrderMode::Sorted, can_repartition)?));
    }
    let Some(window) = plan.downcast_ref::<WindowAggExec>() else { return Ok(plan) };
    if is_sorted(window.partition_by_sort_keys(), &*plan) {
        return Ok(plan);
    }
    let can_repartition = !window.partition_keys().is_empty();
    let (exprs, input) = (window.window_expr().to_vec(), sorted(window.window_expr(), window.input()));
    Ok(Arc::new(WindowAggExec::try_new(exprs, input, can_repartition)?))
}

/// Whether the window finds its partitions in the order of its input, and the input is in the order that it asks for.
fn is_sorted(partitions: DfResult<Vec<PhysicalSortExpr>>, plan: &dyn ExecutionPlan) -> bool {
    partitions.is_ok() && is_met(plan)
}

/// Whether the input is known to be in the order that the window asks for.
fn is_met(plan: &dyn ExecutionPlan) -> bool {
    let wanted = plan.required_input_ordering().into_iter().next().flatten();
    let input = plan.children().first().map(|input| input.properties().equivalence_properties());
    match (wanted, input) {
        (Some(wanted), Some(known)) => known.ordering_satisfy_requirement(wanted.into_single()).unwrap_or(false),
        _ => true,
    }
}

fn sorted(exprs: &[Arc<dyn WindowExpr>], input: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let Some(first) = exprs.first() else { return input.clone() };
    let partitions = first.partition_by().iter().map(|expr| PhysicalSortExpr::new_default(expr.clone()));
    match LexOrdering::new(partitions.chain(first.order_by().iter().cloned())) {
        Some(order) => Arc::new(SortExec::new(order, input.clone())),
        None => input.clone(),
    }
}
