//! Where a plan lets other tasks run. The engine puts a node that does above each scan and each join, and such a node keeps a
//! unit of what its task may do at a time while it asks the node below. With more of them inside one another than a task has
//! units, which are 128, nothing below is ever asked: a join of 150 tables took its whole time and had no row.

use super::gather::with_children;
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result as DfResult;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use std::sync::Arc;

/// How many of them are inside one another, but for those above scans.
const NESTED_MAX: usize = 32;

/// Takes the nodes away that are too deep. Runs after the rule that puts them in.
#[derive(Debug)]
pub struct YieldsApart;

impl PhysicalOptimizerRule for YieldsApart {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> DfResult<Arc<dyn ExecutionPlan>> {
        apart(plan, 0)
    }

    fn name(&self) -> &str {
        "YieldsApart"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn apart(plan: Arc<dyn ExecutionPlan>, mut above: usize) -> DfResult<Arc<dyn ExecutionPlan>> {
    if plan.is::<CooperativeExec>()
        && let Some(below) = plan.children().first().copied().filter(|below| !below.children().is_empty())
    {
        if above == NESTED_MAX {
            return apart(below.clone(), above);
        }
        above += 1;
    }
    let children = plan.children().into_iter().map(|child| apart(child.clone(), above));
    let children = children.collect::<DfResult<Vec<_>>>()?;
    if plan.children().iter().zip(&children).all(|(old, new)| Arc::ptr_eq(old, new)) {
        return Ok(plan);
    }
    with_children(&plan, children)
}
