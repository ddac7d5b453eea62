//! Joins by expressions, as joins by columns.
//!
//! The engine makes columns of the expressions only when it plans the join physically, under names that may collide with
//! those that are there: then it calls the sides `left` and `right`, and refuses when a side has two columns of one name, of
//! different tables. Here they become columns before, under names that nobody has.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Projection};
use std::sync::Arc;

/// The optimised plan with its joins by columns only.
pub fn as_columns(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let mut names = 0;
    let rewritten = plan.transform_up(|node| match node {
        LogicalPlan::Join(join) if !join.on.iter().all(|(l, r)| is_column(l) && is_column(r)) => {
            by_columns(join, &mut names).map(Transformed::yes)
        }
        node => Ok(Transformed::no(node)),
    })?;
    Ok(rewritten.data)
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}

fn by_columns(join: Join, names: &mut usize) -> DfResult<LogicalPlan> {
    let columns = join.schema.columns().into_iter().map(Expr::Column).collect();
    let (left, right): (Vec<Expr>, Vec<Expr>) = join.on.into_iter().unzip();
    let (left, left_keys) = with_keys(&join.left, left, names)?;
    let (right, right_keys) = with_keys(&join.right, right, names)?;
    let joined = Join::try_new(
        left,
        right,
        left_keys.into_iter().zip(right_keys).collect(),
        join.filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    Projection::try_new(columns, Arc::new(LogicalPlan::Join(joined))).map(LogicalPlan::Projection)
}

/// One side with columns for its keys, and these.
fn with_keys(side: &Arc<LogicalPlan>, keys: Vec<Expr>, names: &mut usize) -> DfResult<(Arc<LogicalPlan>, Vec<Expr>)> {
    if keys.iter().all(is_column) {
        return Ok((side.clone(), keys));
    }
    let mut exprs: Vec<Expr> = side.schema().columns().into_iter().map(Expr::Column).collect();
    let mut columns = Vec::with_capacity(keys.len());
    for key in keys {
        if is_column(&key) {
            columns.push(key);
            continue;
        }
        *names += 1;
        let name = format!("__on_{names}");
        exprs.push(key.alias(&name));
        columns.push(Expr::Column(Column::new_unqualified(name)));
    }
    let projected = Projection::try_new(exprs, side.clone())?;
    Ok((Arc::new(LogicalPlan::Projection(projected)), columns))
}
