//! The order of inner joins, chosen by the engine's rule without losing conditions.
//!
//! The rule takes a tree of inner joins apart and puts it together along the equalities that join two of its inputs. An
//! equality of the tree with columns of several inputs on one side (`a.x + b.y = c.z`), which the new order has no use for, is
//! forgotten; and all joins take NULLs for equal when the topmost does. So what was forgotten is put above as a filter, and
//! trees of both kinds of joins are left as they are.

use datafusion::common::NullEquality;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, Operator, binary_expr};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::collections::HashSet;
use std::sync::Arc;

/// The engine's rule.
#[derive(Debug)]
pub struct KeepsConditions(pub Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for KeepsConditions {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let plan = plan.map_subqueries(|subquery| self.rewrite(subquery, config))?;
        plan.transform_data(|plan| {
            let is_tree = match &plan {
                LogicalPlan::Filter(filter) => inner_join(&filter.input).is_some(),
                plan => inner_join(plan).is_some(),
            };
            if !is_tree {
                return plan.map_children(|child| self.rewrite(child, config));
            }
            let plan = plan.map_children(|child| self.inputs(child, config))?;
            plan.transform_data(|plan| self.tree(plan, config))
        })
    }
}

impl KeepsConditions {
    /// The trees below the inputs of one.
    fn inputs(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        match inner_join(&plan) {
            Some(_) => plan.map_children(|child| self.inputs(child, config)),
            None => self.rewrite(plan, config),
        }
    }

    fn tree(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let (mut before, mut after, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        conditions(&plan, &mut before, &mut kinds);
        if kinds.iter().any(|kind| *kind != kinds[0]) {
            return Ok(Transformed::no(plan));
        }
        let rewritten = self.0.rewrite(plan, config)?;
        conditions(&rewritten.data, &mut after, &mut kinds);
        let after: HashSet<&(Expr, Expr)> = after.iter().collect();
        let is_forgotten = |(left, right): &(Expr, Expr)| {
            !after.contains(&(left.clone(), right.clone())) && !after.contains(&(right.clone(), left.clone()))
        };
        let equal = |(left, right): (Expr, Expr)| match kinds.first() {
            Some(NullEquality::NullEqualsNull) => binary_expr(left, Operator::IsNotDistinctFrom, right),
            _ => left.eq(right),
        };
        match conjunction(before.into_iter().filter(is_forgotten).map(equal)) {
            None => Ok(rewritten),
            Some(forgotten) => {
                let filter = Filter::try_new(forgotten, Arc::new(rewritten.data))?;
                Ok(Transformed::yes(LogicalPlan::Filter(filter)))
            }
        }
    }
}

fn inner_join(plan: &LogicalPlan) -> Option<&Join> {
    match plan {
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => Some(join),
        _ => None,
    }
}

/// The equalities of a tree of inner joins, and whether each join takes NULLs for equal.
fn conditions(plan: &LogicalPlan, found: &mut Vec<(Expr, Expr)>, kinds: &mut Vec<NullEquality>) {
    match plan {
        LogicalPlan::Filter(filter) => conditions(&filter.input, found, kinds),
        LogicalPlan::Projection(projection) => conditions(&projection.input, found, kinds),
        plan => {
            let Some(join) = inner_join(plan) else { return };
            found.extend(join.on.iter().cloned());
            if !join.on.is_empty() {
                kinds.push(join.null_equality);
            }
            for side in [&join.left, &join.right] {
                if inner_join(side).is_some() {
                    conditions(side, found, kinds);
                }
            }
        }
    }
}
