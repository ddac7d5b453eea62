//! References to columns outside of a subquery, with the types that these have.
//!
//! A reference is planned with its column's type. Where the meaning of an expression gives the column another one (a CASE
//! whose branches differ, a set operation), the reference would go on with the old one.

use super::free::{Outer, free, lateral_of, rename_free, subquery_of, with_subquery};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::utils::merge_schema;
use std::sync::Arc;

/// The plan with its references as of now; says whether one was not.
pub fn refreshed(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::Join(mut join) if lateral_of(&join).is_some() => {
            let Some(right) = within(&join.right, join.left.schema())? else {
                return Ok(Transformed::no(LogicalPlan::Join(join)));
            };
            join.right = Arc::new(right);
            Ok(Transformed::yes(LogicalPlan::Join(join)))
        }
        node => {
            let schema = merge_schema(&node.inputs());
            node.map_expressions(|expr| {
                expr.transform_up(|part| match subquery_of(&part).map(|inner| within(&inner.subquery, &schema)) {
                    Some(inner) => Ok(match inner? {
                        Some(inner) => Transformed::yes(with_subquery(part, inner)),
                        None => Transformed::no(part),
                    }),
                    None => Ok(Transformed::no(part)),
                })
            })
        }
    })
}

/// A plan that looks at columns of a schema outside; None when it knows them as they are.
fn within(plan: &LogicalPlan, outside: &DFSchema) -> DfResult<Option<LogicalPlan>> {
    let now = |column: &Column| -> Option<Outer> {
        let field = outside.field_from_column(column).ok()?;
        Some((field.clone(), column.clone()))
    };
    let is_old = |(field, column): &Outer| now(column).is_some_and(|(now, _)| now.data_type() != field.data_type());
    if !free(plan)?.iter().any(is_old) {
        return Ok(None);
    }
    rename_free(plan.clone(), &now).map(Some)
}
