//! The dependent join, pushed down: a subquery answered for all values of its outer columns at once.
//!
//! `domain` holds each combination of outer values once. `push` makes of a subquery a plan that stands alone: its rows
//! are those that the subquery gives for some combination, with that combination in columns beside them (the *keys*).
//! The rules are those of Neumann and Kemper, 'Unnesting Arbitrary Queries' (BTW 2015): the domain sinks through the plan
//! until nothing below looks outside, where it is joined.

use super::free::{Outer, free, lateral_of, rename_free, subquery_of, with_subquery};
use super::{Unnester, column_exprs, same_keys, unsupported};
use crate::engine::functions::ranks::row_number;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::error::Result as DfResult;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprFunctionExt, GroupingSet, Join, Limit, LogicalPlan, LogicalPlanBuilder, SortExpr,
    SubqueryAlias, Union, Values, cast, lit,
};
use std::sync::Arc;

/// Outer columns, and a plan of their distinct values.
pub struct Domain {
    pub outer: Vec<Outer>,
    /// Its columns are those of `outer`, in this order.
    pub plan: LogicalPlan,
}

/// A plan that stands alone, and its columns that hold the outer values.
pub type Pushed = (LogicalPlan, Vec<Column>);

impl Domain {
    fn position(&self, column: &Column) -> Option<usize> {
        self.outer.iter().position(|(_, known)| known == column)
    }

    fn is_seen_by(&self, plan: &LogicalPlan) -> DfResult<bool> {
        Ok(free(plan)?.iter().any(|(_, column)| self.position(column).is_some()))
    }

    /// Whether a node's own expressions look at the domain.
    fn is_seen_at(&self, node: &LogicalPlan) -> DfResult<bool> {
        let here = merge_schema(&node.inputs());
        let mut seen = false;
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                seen |= match part {
                    Expr::OuterReferenceColumn(_, column) => self.position(column).is_some(),
                    part => match subquery_of(part) {
                        Some(subquery) => free(&subquery.subquery)?
                            .iter()
                            .any(|(_, column)| !here.has_column(column) && self.position(column).is_some()),
                        None => false,
                    },
                };
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(seen)
    }

    /// The expression with the keys in the places of the outer columns, in subqueries inside of it too.
    fn inside(&self, expr: Expr, keys: &[Column], here: &DFSchema) -> DfResult<Expr> {
        let replaced = expr.transform_up(|part| {
            if let Expr::OuterReferenceColumn(_, column) = &part {
                return Ok(match self.position(column) {
                    Some(at) => Transformed::yes(Expr::Column(keys[at].clone())),
                    None => Transformed::no(part),
                });
            }
            let Some(subquery) = subquery_of(&part) else { return Ok(Transformed::no(part)) };
            let inner = subquery.subquery.as_ref().clone();
            let inner = rename_free(inner, &|column| {
                if here.has_column(column) { None } else { self.renamed(column, keys) }
            })?;
            Ok(Transformed::yes(with_subquery(part, inner)))
        })?;
        Ok(replaced.data)
    }

    fn renamed(&self, column: &Column, keys: &[Column]) -> Option<Outer> {
        self.position(column).map(|at| (self.outer[at].0.clone(), keys[at].clone()))
    }

    /// A node's expressions inside, under their old names.
    fn exprs_inside(&self, node: &LogicalPlan, keys: &[Column]) -> DfResult<Vec<Expr>> {
        let here = merge_schema(&node.inputs());
        let names = NamePreserver::new(node);
        let inside = |expr: Expr| {
            let name = names.save(&expr);
            self.inside(expr, keys, &here).map(|expr| name.restore(expr))
        };
        node.expressions().into_iter().map(inside).collect()
    }
}

impl Unnester {
    /// The domain under names of its own.
    fn instance(&mut self, domain: &Domain) -> DfResult<Pushed> {
        let names: Vec<String> = domain.outer.iter().map(|_| self.name("key")).collect();
        let columns = domain.plan.schema().columns();
        let exprs = columns.into_iter().zip(&names).map(|(column, name)| Expr::Column(column).alias(name));
        let plan = LogicalPlanBuilder::from(domain.plan.clone()).project(exprs)?.build()?;
        Ok((plan, names.into_iter().map(Column::new_unqualified).collect()))
    }

    pub(super) fn push(&mut self, plan: &LogicalPlan, domain: &Domain) -> DfResult<Pushed> {
        if !domain.is_seen_by(plan)? {
            let (left, keys) = self.instance(domain)?;
            let is_one_row = matches!(plan, LogicalPlan::EmptyRelation(empty) if empty.produce_one_row);
            let plan =
                if is_one_row { left } else { LogicalPlanBuilder::from(left).cross_join(plan.clone())?.build()? };
            return Ok((plan, keys));
        }
        match plan {
            LogicalPlan::Filter(_) => {
                let (input, keys) = self.push_input(plan, domain)?;
                let exprs = domain.exprs_inside(plan, &keys)?;
                Ok((plan.with_new_exprs(exprs, vec![input])?, keys))
            }
            LogicalPlan::Projection(_) => {
                let (input, keys) = self.push_input(plan, domain)?;
                let mut exprs = domain.exprs_inside(plan, &keys)?;
                exprs.extend(column_exprs(&keys));
                Ok((plan.with_new_exprs(exprs, vec![input])?, keys))
            }
            // The rows of a subquery have no order of their own; LIMIT takes its order from below.
            LogicalPlan::Sort(sort) => self.push(&sort.input, domain),
            LogicalPlan::Limit(limit) => self.push_limit(limit, domain),
            LogicalPlan::SubqueryAlias(alias) => {
                let (input, keys) = self.push(&alias.input, domain)?;
                let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?);
                Ok((plan, keys.into_iter().map(|key| Column::new(Some(alias.alias.clone()), key.name)).collect()))
            }
            LogicalPlan::Aggregate(aggregate) => self.push_aggregate(plan, aggregate, domain),
            LogicalPlan::Distinct(distinct) => self.push_distinct(distinct, domain),
            LogicalPlan::Window(_) => self.push_window(plan, domain),
            LogicalPlan::Join(join) => self.push_join(plan, join, domain),
            LogicalPlan::Union(union) => self.push_union(union, domain),
            LogicalPlan::Values(values) => self.push_values(values, domain),
            other => Err(unsupported(other)),
        }
    }

    fn push_input(&mut self, plan: &LogicalPlan, domain: &Domain) -> DfResult<Pushed> {
        match plan.inputs()[..] {
            [input] => self.push(input, domain),
            _ => Err(unsupported(plan)),
        }
    }

    /// LIMIT is for each combination of outer values: rows are numbered within it.
    fn push_limit(&mut self, limit: &Limit, domain: &Domain) -> DfResult<Pushed> {
        // A projection above the sort gives the same rows.
        if let LogicalPlan::Projection(projection) = &*limit.input
            && !matches!(&*projection.input, LogicalPlan::Projection(_))
        {
            let below = LogicalPlan::Limit(Limit { input: projection.input.clone(), ..limit.clone() });
            let swapped =
                LogicalPlan::Projection(projection.clone()).with_new_exprs(projection.expr.clone(), vec![below])?;
            return self.push(&swapped, domain);
        }
        let (input, order) = match &*limit.input {
            LogicalPlan::Sort(sort) => (&sort.input, sort.expr.clone()),
            _ => (&limit.input, Vec::new()),
        };
        let here = input.schema().clone();
        let (input, keys) = self.push(input, domain)?;
        let columns = input.schema().columns();
        let inside = |expr: Expr| domain.inside(expr, &keys, &here);
        let order = order
            .into_iter()
            .map(|key| Ok(SortExpr { expr: inside(key.expr)?, ..key }))
            .collect::<DfResult<Vec<_>>>()?;
        let mut number = row_number().partition_by(column_exprs(&keys));
        if !order.is_empty() {
            number = number.order_by(order);
        }
        let name = self.name("row");
        let number = number.build()?.alias(&name);
        let number_column = Expr::Column(Column::new_unqualified(&name));
        let whole =
            |expr: &Expr| inside(expr.clone()).map(|expr| coalesce(vec![cast(expr, DataType::Int64), lit(0_i64)]));
        let skip = limit.skip.as_deref().map(whole).transpose()?.unwrap_or(lit(0_i64));
        let mut wanted = number_column.clone().gt(skip.clone());
        if let Some(fetch) = limit.fetch.as_deref() {
            let fetch = cast(inside(fetch.clone())?, DataType::Int64);
            wanted = wanted.and(fetch.clone().is_null().or((number_column - skip).lt_eq(fetch)));
        }
        let plan = LogicalPlanBuilder::from(input).window(vec![number])?.filter(wanted)?;
        Ok((plan.project(column_exprs(&columns))?.build()?, keys))
    }

    fn push_aggregate(&mut self, plan: &LogicalPlan, aggregate: &Aggregate, domain: &Domain) -> DfResult<Pushed> {
        let (input, keys) = self.push(&aggregate.input, domain)?;
        let mut exprs = domain.exprs_inside(plan, &keys)?;
        let aggregates = exprs.split_off(aggregate.group_expr.len());
        let groups = match &exprs[..] {
            [Expr::GroupingSet(sets)] => {
                vec![Expr::GroupingSet(sets_with(sets, &keys).ok_or_else(|| unsupported(plan))?)]
            }
            groups => column_exprs(&keys).into_iter().chain(groups.iter().cloned()).collect(),
        };
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), groups, aggregates)?);
        if !aggregate.group_expr.is_empty() {
            return Ok((grouped, keys));
        }
        // Without GROUP BY there is a row even where the input has none.
        let (domain, outer_keys) = self.instance(domain)?;
        let same = same_keys(&outer_keys, &keys, domain.schema(), grouped.schema())?;
        let joined = LogicalPlanBuilder::from(domain).join_on(grouped, JoinType::Left, same)?;
        let columns = aggregate.schema.columns();
        let values = columns.into_iter().zip(&aggregate.aggr_expr).map(|(column, expr)| {
            let value = Expr::Column(column.clone());
            if counts(expr) {
                coalesce(vec![value, lit(0_i64)]).alias_qualified(column.relation, column.name)
            } else {
                value
            }
        });
        let projected = joined.project(values.chain(column_exprs(&outer_keys)).collect::<Vec<_>>())?;
        Ok((projected.build()?, outer_keys))
    }

    fn push_distinct(&mut self, distinct: &Distinct, domain: &Domain) -> DfResult<Pushed> {
        let on = match distinct {
            Distinct::All(input) => {
                let (input, keys) = self.push(input, domain)?;
                return Ok((LogicalPlan::Distinct(Distinct::All(Arc::new(input))), keys));
            }
            Distinct::On(on) => on,
        };
        let here = on.input.schema().clone();
        let (input, keys) = self.push(&on.input, domain)?;
        let inside = |expr: &Expr| domain.inside(expr.clone(), &keys, &here);
        let all_inside = |exprs: &[Expr]| exprs.iter().map(inside).collect::<DfResult<Vec<_>>>();
        let order = match &on.sort_expr {
            None => None,
            Some(order) => {
                let first = column_exprs(&keys).into_iter().map(|key| Ok(key.sort(true, false)));
                let rest = order.iter().map(|key| Ok(SortExpr { expr: inside(&key.expr)?, ..key.clone() }));
                Some(first.chain(rest).collect::<DfResult<Vec<_>>>()?)
            }
        };
        let by = [column_exprs(&keys), all_inside(&on.on_expr)?].concat();
        let selected = [all_inside(&on.select_expr)?, column_exprs(&keys)].concat();
        Ok((LogicalPlanBuilder::from(input).distinct_on(by, selected, order)?.build()?, keys))
    }

    fn push_window(&mut self, plan: &LogicalPlan, domain: &Domain) -> DfResult<Pushed> {
        let (input, keys) = self.push_input(plan, domain)?;
        let partitioned = domain.exprs_inside(plan, &keys)?.into_iter().map(|expr| {
            let name = expr.schema_name().to_string();
            let expr = expr.transform_up(|part| match part {
                Expr::WindowFunction(mut window) => {
                    window.params.partition_by.extend(column_exprs(&keys));
                    Ok(Transformed::yes(Expr::WindowFunction(window)))
                }
                part => Ok(Transformed::no(part)),
            })?;
            expr.data.alias_if_changed(name)
        });
        let exprs = partitioned.collect::<DfResult<Vec<_>>>()?;
        Ok((plan.with_new_exprs(exprs, vec![input])?, keys))
    }

    fn push_join(&mut self, plan: &LogicalPlan, join: &Join, domain: &Domain) -> DfResult<Pushed> {
        use JoinType as J;
        let (sees_left, sees_right) = (domain.is_seen_by(&join.left)?, domain.is_seen_by(&join.right)?);
        let sees_here = domain.is_seen_at(plan)?;
        if lateral_of(join).is_some() {
            // The right side follows when the join itself is taken apart: it looks at the keys as it looks at the left.
            let (left, keys) = self.push(&join.left, domain)?;
            let right = rename_free(join.right.as_ref().clone(), &|column| {
                if join.left.schema().has_column(column) { None } else { domain.renamed(column, &keys) }
            })?;
            let exprs = domain.exprs_inside(plan, &keys)?;
            return Ok((plan.with_new_exprs(exprs, vec![left, right])?, keys));
        }
        let keeps_left = matches!(join.join_type, J::Left | J::LeftSemi | J::LeftAnti | J::LeftMark);
        let keeps_right = matches!(join.join_type, J::Right | J::RightSemi | J::RightAnti | J::RightMark);
        let is_inner = join.join_type == J::Inner;
        // One side is enough when each of its rows is about one combination, and rows of the other alone never come out.
        if !sees_right && (is_inner || keeps_left) {
            let (left, keys) = self.push(&join.left, domain)?;
            let exprs = domain.exprs_inside(plan, &keys)?;
            return Ok((plan.with_new_exprs(exprs, vec![left, join.right.as_ref().clone()])?, keys));
        }
        if !sees_left && (keeps_right || is_inner && !sees_here) {
            let (right, keys) = self.push(&join.right, domain)?;
            let exprs = domain.exprs_inside(plan, &keys)?;
            return Ok((plan.with_new_exprs(exprs, vec![join.left.as_ref().clone(), right])?, keys));
        }
        self.push_both(plan, join, domain)
    }

    fn push_both(&mut self, plan: &LogicalPlan, join: &Join, domain: &Domain) -> DfResult<Pushed> {
        use JoinType as J;
        if join.null_aware {
            return Err(unsupported(plan));
        }
        let (left, left_keys) = self.push(&join.left, domain)?;
        let (right, right_keys) = self.push(&join.right, domain)?;
        let exprs =
            domain.exprs_inside(plan, if matches!(join.join_type, J::Right) { &right_keys } else { &left_keys })?;
        let LogicalPlan::Join(joined) = plan.with_new_exprs(exprs, vec![left, right])? else {
            return Err(unsupported(plan));
        };
        let same = same_keys(&left_keys, &right_keys, joined.left.schema(), joined.right.schema())?;
        let met = same.into_iter().chain(joined.filter).reduce(Expr::and);
        let joined = Join::try_new(
            joined.left,
            joined.right,
            joined.on,
            met,
            joined.join_type,
            joined.join_constraint,
            joined.null_equality,
            false,
        )?;
        let joined = LogicalPlan::Join(joined);
        Ok(match join.join_type {
            J::Right | J::RightSemi | J::RightAnti | J::RightMark => (joined, right_keys),
            J::Full => {
                let names: Vec<String> = left_keys.iter().map(|_| self.name("key")).collect();
                let either =
                    left_keys.into_iter().zip(right_keys).zip(&names).map(|((left, right), name)| {
                        coalesce(vec![Expr::Column(left), Expr::Column(right)]).alias(name)
                    });
                let exprs: Vec<Expr> = column_exprs(&join.schema.columns()).into_iter().chain(either).collect();
                let plan = LogicalPlanBuilder::from(joined).project(exprs)?.build()?;
                (plan, names.into_iter().map(Column::new_unqualified).collect())
            }
            _ => (joined, left_keys),
        })
    }

    fn push_union(&mut self, union: &Union, domain: &Domain) -> DfResult<Pushed> {
        let names: Vec<String> = domain.outer.iter().map(|_| self.name("key")).collect();
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let (pushed, keys) = self.push(input, domain)?;
            let keys = column_exprs(&keys).into_iter().zip(&names).map(|(key, name)| key.alias(name));
            let exprs: Vec<Expr> = column_exprs(&input.schema().columns()).into_iter().chain(keys).collect();
            inputs.push(Arc::new(LogicalPlanBuilder::from(pushed).project(exprs)?.build()?));
        }
        let plan = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        let first = plan.schema().fields().len() - names.len();
        let keys = plan.schema().columns().split_off(first);
        Ok((plan, keys))
    }

    /// Rows that are written down look outside one by one.
    fn push_values(&mut self, values: &Values, domain: &Domain) -> DfResult<Pushed> {
        let names = values.schema.columns();
        let mut inputs = Vec::with_capacity(values.values.len());
        for row in &values.values {
            let (input, keys) = self.instance(domain)?;
            let cells = row
                .iter()
                .zip(&names)
                .map(|(cell, name)| Ok(domain.inside(cell.clone(), &keys, &DFSchema::empty())?.alias(&name.name)));
            let mut exprs = cells.collect::<DfResult<Vec<_>>>()?;
            exprs.extend(column_exprs(&keys));
            inputs.push((LogicalPlanBuilder::from(input).project(exprs)?.build()?, keys));
        }
        let out: Vec<String> = domain.outer.iter().map(|_| self.name("key")).collect();
        let renamed = inputs.into_iter().map(|(input, keys)| {
            let keys = column_exprs(&keys).into_iter().zip(&out).map(|(key, name)| key.alias(name));
            let exprs: Vec<Expr> = column_exprs(&names).into_iter().chain(keys).collect();
            LogicalPlanBuilder::from(input).project(exprs)?.build().map(Arc::new)
        });
        let plan = LogicalPlan::Union(Union::try_new_with_loose_types(renamed.collect::<DfResult<_>>()?)?);
        Ok((plan, out.into_iter().map(Column::new_unqualified).collect()))
    }
}

/// Whether an aggregate answers 0, and not NULL, where there are no rows.
pub fn counts(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => counts(&alias.expr),
        Expr::AggregateFunction(function) => {
            matches!(function.func.name(), "count" | "regr_count" | "approx_distinct")
        }
        _ => false,
    }
}

/// Grouping sets with the keys in each. None when one of them groups by nothing: it has a row without input.
fn sets_with(sets: &GroupingSet, keys: &[Column]) -> Option<GroupingSet> {
    let GroupingSet::GroupingSets(sets) = sets else { return None };
    let with_keys = |set: &Vec<Expr>| {
        (!set.is_empty()).then(|| column_exprs(keys).into_iter().chain(set.iter().cloned()).collect::<Vec<_>>())
    };
    sets.iter().map(with_keys).collect::<Option<Vec<_>>>().map(GroupingSet::GroupingSets)
}
