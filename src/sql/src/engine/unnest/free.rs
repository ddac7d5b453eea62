//! Which columns outside of itself a plan looks at, through any number of levels of subqueries.
//!
//! The engine's own list in a `Subquery` ends at its first level; a reference that skips a level would be missed.

use datafusion::arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Spans};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Subquery};
use std::sync::Arc;

/// A column of a query outside.
pub type Outer = (FieldRef, Column);

/// The subquery of an expression that has one.
pub fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(within) => Some(&within.subquery),
        Expr::SetComparison(comparison) => Some(&comparison.subquery),
        _ => None,
    }
}

/// The same expression about another plan.
pub fn with_subquery(expr: Expr, plan: LogicalPlan) -> Expr {
    let subquery =
        Subquery { outer_ref_columns: plan.all_out_ref_exprs(), subquery: Arc::new(plan), spans: Spans::new() };
    match expr {
        Expr::ScalarSubquery(_) => Expr::ScalarSubquery(subquery),
        Expr::Exists(exists) => Expr::Exists(datafusion::logical_expr::expr::Exists { subquery, ..exists }),
        Expr::InSubquery(within) => Expr::InSubquery(datafusion::logical_expr::expr::InSubquery { subquery, ..within }),
        Expr::SetComparison(comparison) => {
            Expr::SetComparison(datafusion::logical_expr::expr::SetComparison { subquery, ..comparison })
        }
        other => other,
    }
}

/// The lateral subquery that the right side of a join is, with the name it has there.
pub fn lateral_of(join: &Join) -> Option<&Subquery> {
    match &*join.right {
        LogicalPlan::Subquery(subquery) => Some(subquery),
        LogicalPlan::SubqueryAlias(alias) => match &*alias.input {
            LogicalPlan::Subquery(subquery) => Some(subquery),
            _ => None,
        },
        _ => None,
    }
}

/// Columns outside of `plan` that it looks at, each once.
pub fn free(plan: &LogicalPlan) -> DfResult<Vec<Outer>> {
    let mut found = Vec::new();
    collect(plan, &mut found)?;
    Ok(found)
}

fn collect(plan: &LogicalPlan, found: &mut Vec<Outer>) -> DfResult<()> {
    let here = merge_schema(&plan.inputs());
    plan.apply_expressions(|expr| {
        expr.apply(|part| {
            if let Expr::OuterReferenceColumn(field, column) = part {
                add(found, (field.clone(), column.clone()));
            } else if let Some(subquery) = subquery_of(part) {
                let inner = free(&subquery.subquery)?;
                inner.into_iter().filter(|(_, column)| !here.has_column(column)).for_each(|outer| add(found, outer));
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    match plan {
        LogicalPlan::Join(join) if lateral_of(join).is_some() => {
            collect(&join.left, found)?;
            let right = free(&join.right)?;
            let beside = right.into_iter().filter(|(_, column)| !join.left.schema().has_column(column));
            beside.for_each(|outer| add(found, outer));
            Ok(())
        }
        plan => plan.inputs().into_iter().try_for_each(|input| collect(input, found)),
    }
}

fn add(found: &mut Vec<Outer>, outer: Outer) {
    if !found.iter().any(|(_, column)| *column == outer.1) {
        found.push(outer);
    }
}

/// Gives columns outside of a plan other names, where `rename` knows one: at all levels that see the same column.
pub fn rename_free(plan: LogicalPlan, rename: &dyn Fn(&Column) -> Option<Outer>) -> DfResult<LogicalPlan> {
    let renamed = plan.transform_up(|node| {
        let here = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|part| rename_part(part, &here, rename))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        node.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(renamed.data)
}

fn rename_part(part: Expr, here: &DFSchema, rename: &dyn Fn(&Column) -> Option<Outer>) -> DfResult<Transformed<Expr>> {
    if let Expr::OuterReferenceColumn(_, column) = &part {
        return Ok(match rename(column) {
            Some((field, column)) => Transformed::yes(Expr::OuterReferenceColumn(field, column)),
            None => Transformed::no(part),
        });
    }
    let Some(subquery) = subquery_of(&part) else { return Ok(Transformed::no(part)) };
    let inner = subquery.subquery.as_ref().clone();
    let beyond = |column: &Column| if here.has_column(column) { None } else { rename(column) };
    let inner = rename_free(inner, &beyond)?;
    Ok(Transformed::yes(with_subquery(part, inner)))
}
