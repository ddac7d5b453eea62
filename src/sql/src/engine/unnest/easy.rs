//! Which subqueries the engine's own rules answer rightly: they make shorter plans of them.

use super::free::{free, subquery_of};
use super::push::counts;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use std::collections::HashSet;

/// Whether an expression has a subquery at its own level.
pub fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|part| Ok(subquery_of(part).is_some())).unwrap_or(true)
}

/// `x IN (subquery)` as a conjunct of WHERE, whose subquery looks at nothing outside: whatever it is made of, a semi join with
/// it takes the rows for which it is true. Its own subqueries have to be taken apart before.
pub fn stands_alone(expr: &Expr) -> Option<&InSubquery> {
    let Expr::InSubquery(within) = expr else { return None };
    let has_columns = !within.expr.column_refs().is_empty() && !has_subquery(&within.expr);
    (has_columns && !within.negated && !is_correlated(&within.subquery.subquery)).then_some(within)
}

/// A conjunct of WHERE that becomes a semi join: EXISTS and IN over plain selections, NOT IN of a column alone, and comparisons
/// with aggregates over rows that are tied to the outer row by equality.
pub fn is_conjunct(expr: &Expr) -> bool {
    match expr {
        Expr::Exists(exists) => is_correlated(&exists.subquery.subquery) && is_selection(&exists.subquery.subquery),
        Expr::Not(inner) => matches!(&**inner, Expr::Exists(_)) && is_conjunct(inner),
        Expr::InSubquery(within) => {
            let plan = &within.subquery.subquery;
            let has_columns = !within.expr.column_refs().is_empty();
            let thinks_of_nulls = !within.negated || !is_correlated(plan) && is_column(&within.expr);
            let is_plain = thinks_of_nulls && !has_subquery(&within.expr) && is_selection(plan);
            has_columns && is_plain && are_told_apart(plan, Some(plan))
        }
        other => is_projected(other),
    }
}

/// An expression whose subqueries are all aggregates over rows that are tied to the outer row by equality.
pub fn is_projected(expr: &Expr) -> bool {
    let mut easy = true;
    let walked = expr.apply(|part| {
        easy &= match part {
            Expr::ScalarSubquery(subquery) => {
                let plan = &subquery.subquery;
                is_tied_aggregate(plan) && are_told_apart(plan, None)
            }
            part => subquery_of(part).is_none(),
        };
        Ok(TreeNodeRecursion::Continue)
    });
    easy && walked.is_ok()
}

/// A column, perhaps as another type. Of anything else the engine does not know for NOT IN that it can be NULL where its
/// columns can not, as NULLIF can, and what becomes a constant, as `NULL || a` does, makes it forget the NULLs on the right.
fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => is_column(&cast.expr),
        expr => matches!(expr, Expr::Column(_)),
    }
}

fn is_correlated(plan: &LogicalPlan) -> bool {
    free(plan).map_or(true, |outer| !outer.is_empty())
}

/// Rows of tables, joined, filtered and projected; only the filters look outside.
fn is_selection(plan: &LogicalPlan) -> bool {
    is_made_of(plan, &|predicate| !has_subquery(predicate)) && are_told_apart(plan, None)
}

/// Whether the columns of a subquery that are compared with columns outside have names of their own, among all that come out
/// of it and of the projections inside: the engine gives all of them one qualifier, and takes `x.id` for `y.id`, or for the
/// `x.id` outside. `compared` is what comes out, where that is compared too.
fn are_told_apart(plan: &LogicalPlan, compared: Option<&LogicalPlan>) -> bool {
    let Ok(outer) = free(plan) else { return false };
    let mut ties: HashSet<Column> = compared.iter().flat_map(|plan| plan.schema().columns()).collect();
    let mut others: HashSet<Column> = plan.schema().columns().into_iter().collect();
    let walked = plan.apply(|node| {
        match node {
            LogicalPlan::Filter(filter) => {
                let conjuncts = split_conjunction(&filter.predicate).into_iter();
                let compares = conjuncts.filter(|conjunct| conjunct.contains_outer());
                ties.extend(compares.flat_map(Expr::column_refs).cloned());
            }
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => others.extend(node.schema().columns()),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    let is_clear = |tie: &Column| {
        let mut namesakes = ties.iter().chain(&others).filter(|other| other.name == tie.name);
        namesakes.all(|other| other == tie) && !outer.iter().any(|(_, column)| column == tie)
    };
    walked.is_ok() && ties.iter().all(is_clear)
}

fn is_made_of(plan: &LogicalPlan, filter: &dyn Fn(&Expr) -> bool) -> bool {
    let inner = |plan: &LogicalPlan| is_made_of(plan, filter);
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::SubqueryAlias(alias) => inner(&alias.input),
        LogicalPlan::Projection(projection) => projection.expr.iter().all(is_inside) && inner(&projection.input),
        LogicalPlan::Filter(node) => filter(&node.predicate) && inner(&node.input),
        LogicalPlan::Join(join) => {
            join.join_type == JoinType::Inner
                && join.filter.iter().all(is_inside)
                && !is_correlated(&join.left)
                && !is_correlated(&join.right)
                && inner(&join.left)
                && inner(&join.right)
        }
        _ => false,
    }
}

/// Whether an expression looks at its own rows only.
fn is_inside(expr: &Expr) -> bool {
    !has_subquery(expr) && !expr.contains_outer()
}

/// One aggregate without GROUP BY over a selection whose filters look outside by equality only.
fn is_tied_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(is_inside) && is_tied_aggregate(&projection.input)
        }
        LogicalPlan::Aggregate(aggregate) => {
            aggregate.group_expr.is_empty()
                && !aggregate.aggr_expr.iter().any(counts)
                && aggregate.aggr_expr.iter().all(is_inside)
                && is_made_of(&aggregate.input, &|predicate| split_conjunction(predicate).into_iter().all(is_tie))
        }
        _ => false,
    }
}

/// A condition on inner rows alone, or an equality of an outer column with a column inside.
fn is_tie(predicate: &Expr) -> bool {
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let is_outer = |expr: &Expr| matches!(expr, Expr::OuterReferenceColumn(..));
            let is_column = |expr: &Expr| matches!(expr, Expr::Column(_));
            is_inside(predicate) || is_outer(left) && is_column(right) || is_outer(right) && is_column(left)
        }
        other => is_inside(other),
    }
}
