//! The order of inner joins, chosen by the engine's rule without losing conditions.
//!
//! The rule takes a tree of inner joins apart and puts it together along the equalities that join two of its inputs. An
//! equality of the tree with columns of several inputs on one side (`a.x + b.y = c.z`), which the new order has no use for, is
//! forgotten. So what was forgotten is put above as a filter. All joins take NULLs for equal when the topmost does, also of
//! the trees below: a plan with a join that does is left as it is.

use datafusion::common::NullEquality;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan};
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
        if takes_nulls_for_equal(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let before = conditions(&plan);
        let rewritten = self.0.rewrite(plan, config)?;
        let after: HashSet<(Expr, Expr)> = conditions(&rewritten.data).into_iter().collect();
        let is_forgotten = |(left, right): &(Expr, Expr)| {
            [(left, right), (right, left)].iter().all(|(l, r)| !after.contains(&((*l).clone(), (*r).clone())))
        };
        let forgotten = before.into_iter().filter(is_forgotten).map(|(left, right)| left.eq(right));
        match conjunction(forgotten) {
            None => Ok(rewritten),
            Some(forgotten) => {
                let filter = Filter::try_new(forgotten, Arc::new(rewritten.data))?;
                Ok(Transformed::yes(LogicalPlan::Filter(filter)))
            }
        }
    }
}

fn takes_nulls_for_equal(plan: &LogicalPlan) -> DfResult<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= inner_join(node).is_some_and(|join| join.null_equality == NullEquality::NullEqualsNull);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn inner_join(plan: &LogicalPlan) -> Option<&Join> {
    match plan {
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => Some(join),
        _ => None,
    }
}

/// The equalities of a tree of inner joins.
fn conditions(plan: &LogicalPlan) -> Vec<(Expr, Expr)> {
    match plan {
        LogicalPlan::Filter(filter) => conditions(&filter.input),
        LogicalPlan::Projection(projection) => conditions(&projection.input),
        plan => {
            let Some(join) = inner_join(plan) else { return Vec::new() };
            let sides = [&join.left, &join.right].into_iter().filter(|side| inner_join(side).is_some());
            join.on.iter().cloned().chain(sides.flat_map(|side| conditions(side))).collect()
        }
    }
}
