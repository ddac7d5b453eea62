//! Lists in several orders: aggregates with ORDER BY get their rows in it, and of two orders the engine keeps one, reads it
//! backwards for the other, which is forgotten on the way to a storage, or refuses. So where they differ, values are collected
//! with their sort keys, and put in order above.

use super::functions::sorted::{sorted_list, sorted_text};
use datafusion::error::Result as DfResult;
use datafusion::functions::core::expr_fn::r#struct;
use datafusion::functions_aggregate::expr_fn::array_agg;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, NullTreatment};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, SortExpr};
use datafusion::prelude::ident;
use std::sync::Arc;

/// The aggregate itself when its lists are in one order.
pub fn collected(aggregate: Aggregate) -> DfResult<LogicalPlan> {
    let orders: Vec<&[SortExpr]> =
        aggregate.aggr_expr.iter().filter_map(ordered).map(|call| &call.params.order_by[..]).collect();
    if orders.iter().all(|order| *order == orders[0]) {
        return Ok(LogicalPlan::Aggregate(aggregate));
    }
    let columns = aggregate.schema.columns();
    let groups = columns.len() - aggregate.aggr_expr.len();
    let (mut calls, mut shown) = (Vec::new(), Vec::new());
    shown.extend(columns[..groups].iter().cloned().map(Expr::Column));
    for (expr, column) in aggregate.aggr_expr.iter().zip(&columns[groups..]) {
        let Some(call) = ordered(expr) else {
            calls.push(expr.clone());
            shown.push(Expr::Column(column.clone()));
            continue;
        };
        let AggregateFunctionParams { args, filter, order_by, .. } = &call.params;
        let keys = order_by.iter().map(|key| key.expr.clone());
        let entry = r#struct(args.iter().take(1).cloned().chain(keys).collect());
        let name = format!("__entries_{}", calls.len());
        let collected = match array_agg(entry) {
            Expr::AggregateFunction(mut all) => {
                all.params.filter.clone_from(filter);
                Expr::AggregateFunction(all)
            }
            other => other,
        };
        calls.push(collected.alias(&name));
        let list = match args.get(1) {
            Some(delimiter) => sorted_text(ident(name), order_by, delimiter.clone()),
            None => sorted_list(ident(name), order_by),
        };
        shown.push(list.alias_qualified(column.relation.clone(), column.name.clone()));
    }
    let unordered = Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr, calls)?;
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(unordered)).project(shown)?.build()
}

/// A call that makes a list, in an order.
fn ordered(expr: &Expr) -> Option<&AggregateFunction> {
    let mut expr = expr;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    let Expr::AggregateFunction(call) = expr else { return None };
    let is_list = ["array_agg", "string_agg"].contains(&call.func.name());
    let AggregateFunctionParams { distinct, order_by, null_treatment, .. } = &call.params;
    let is_plain = !distinct && *null_treatment != Some(NullTreatment::IgnoreNulls);
    (is_list && is_plain && !order_by.is_empty()).then_some(call)
}
