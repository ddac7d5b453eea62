//! ORDER BY in aggregates, and of DISTINCT ON, which becomes one: the engine counts an expression that stands there twice once
//! and panics.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};
use std::collections::HashSet;

/// The optimised plan with each expression once in an order.
pub fn without_repeats(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let rewritten = plan.transform_up(|node| {
        if !matches!(node, LogicalPlan::Aggregate(_)) {
            return Ok(Transformed::no(node));
        }
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|part| Ok(once(part)))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(rewritten.data)
}

fn once(expr: Expr) -> Transformed<Expr> {
    let Expr::AggregateFunction(mut call) = expr else { return Transformed::no(expr) };
    let before = call.params.order_by.len();
    let mut seen = HashSet::new();
    call.params.order_by.retain(|sort| seen.insert(sort.expr.clone()));
    let is_shorter = call.params.order_by.len() < before;
    Transformed::new_transformed(Expr::AggregateFunction(call), is_shorter)
}
