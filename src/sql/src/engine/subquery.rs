//! Scalar subqueries that do not look outside: each runs once, before its statement is optimised, and stands in it as the
//! literal that it gave. So a comparison with one can choose an index, and one that gives two rows is an error.

use super::unnest::free;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};
use datafusion::scalar::ScalarValue;

/// The subqueries to run first, none of which is inside of another.
pub fn find(plan: &LogicalPlan) -> DfResult<Vec<Subquery>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::ScalarSubquery(subquery) = part
                    && free(&subquery.subquery)?.is_empty()
                    && !found.contains(subquery)
                {
                    found.push(subquery.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let nested: Vec<Subquery> = found.iter().map(|s| find(&s.subquery)).collect::<DfResult<Vec<_>>>()?.concat();
    found.retain(|subquery| !nested.contains(subquery));
    Ok(found)
}

/// Puts values in the places of subqueries.
pub fn replace(plan: LogicalPlan, values: &[(Subquery, ScalarValue)]) -> DfResult<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|part| {
                let Expr::ScalarSubquery(subquery) = &part else { return Ok(Transformed::no(part)) };
                Ok(match values.iter().find(|(known, _)| known == subquery) {
                    Some((_, value)) => Transformed::yes(Expr::Literal(value.clone(), None)),
                    None => Transformed::no(part),
                })
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        node.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(replaced.data)
}
