//! What stands for a subquery expression once its answer is joined to the rows outside.

use super::{Unnester, column_exprs, same_keys, unsupported};
use crate::engine::functions::only_row;
use datafusion::common::{Column, JoinType, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{count, first_value, max, min};
use datafusion::logical_expr::expr::{InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, lit, when};

/// A subquery's answer beside the rows outside: its one column, and the keys it is found by.
struct Answer {
    plan: LogicalPlan,
    value: Column,
    keys: Vec<Column>,
    outer: Vec<Column>,
}

fn null() -> Expr {
    Expr::Literal(ScalarValue::Boolean(None), None)
}

impl Unnester {
    /// Puts the subquery's answer beside the rows of `input`, and gives what stands for it.
    pub(super) fn subquery(&mut self, expr: Expr, input: &mut LogicalPlan) -> DfResult<Expr> {
        match expr {
            Expr::Exists(exists) => {
                let found = self.exists(&exists.subquery.subquery, input)?;
                Ok(if exists.negated { found.is_null() } else { found.is_not_null() })
            }
            Expr::ScalarSubquery(subquery) => self.scalar(&subquery.subquery, input),
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let found = self.within(*expr, &subquery.subquery, input)?;
                Ok(if negated { Expr::Not(Box::new(found)) } else { found })
            }
            Expr::SetComparison(comparison) => self.quantified(comparison, input),
            other => Ok(other),
        }
    }

    fn answer(&mut self, input: &LogicalPlan, plan: &LogicalPlan) -> DfResult<Answer> {
        let Some(value) = plan.schema().columns().into_iter().next() else { return Err(unsupported(plan)) };
        let (inner, keys, outer) = self.dependent(input, plan)?;
        let name = self.name("value");
        let mut exprs = vec![Expr::Column(value).alias(&name)];
        let names: Vec<String> = keys.iter().map(|_| self.name("key")).collect();
        exprs.extend(column_exprs(&keys).into_iter().zip(&names).map(|(key, name)| key.alias(name)));
        let plan = LogicalPlanBuilder::from(inner).project(exprs)?.build()?;
        let keys = names.into_iter().map(Column::new_unqualified).collect();
        Ok(Answer { plan, value: Column::new_unqualified(name), keys, outer })
    }

    /// A column that is not NULL beside the rows that the subquery has rows for.
    fn exists(&mut self, plan: &LogicalPlan, input: &mut LogicalPlan) -> DfResult<Expr> {
        let (inner, keys, outer) = self.dependent(input, plan)?;
        let (mark, names) = (self.name("mark"), keys.iter().map(|_| self.name("key")).collect::<Vec<_>>());
        let named = column_exprs(&keys).into_iter().zip(&names).map(|(key, name)| key.alias(name));
        let found = if keys.is_empty() {
            LogicalPlanBuilder::from(inner).limit(0, Some(1))?.project([lit(true).alias(&mark)])?
        } else {
            LogicalPlanBuilder::from(inner).project(named)?.distinct()?.project(
                names.iter().map(|name| Expr::Column(Column::new_unqualified(name))).chain([lit(true).alias(&mark)]),
            )?
        };
        let keys: Vec<Column> = names.iter().map(Column::new_unqualified).collect();
        beside(input, found.build()?, Vec::new(), &outer, &keys)?;
        Ok(Expr::Column(Column::new_unqualified(mark)))
    }

    fn scalar(&mut self, plan: &LogicalPlan, input: &mut LogicalPlan) -> DfResult<Expr> {
        let Answer { plan: inner, value, keys, outer } = self.answer(input, plan)?;
        if gives_one_row(plan) {
            beside(input, inner, Vec::new(), &outer, &keys)?;
            return Ok(Expr::Column(value));
        }
        let (first, rows) = (self.name("first"), self.name("rows"));
        let aggregates = [first_value(Expr::Column(value), Vec::new()).alias(&first), count(lit(1_i64)).alias(&rows)];
        let inner = LogicalPlanBuilder::from(inner).aggregate(column_exprs(&keys), aggregates)?.build()?;
        beside(input, inner, Vec::new(), &outer, &keys)?;
        let column = |name: String| Expr::Column(Column::new_unqualified(name));
        Ok(only_row(column(first), column(rows)))
    }

    /// `x IN (subquery)`: counts tell an empty subquery and one with a NULL, the distinct values tell a match.
    fn within(&mut self, x: Expr, plan: &LogicalPlan, input: &mut LogicalPlan) -> DfResult<Expr> {
        let Answer { plan: inner, value, keys, outer } = self.answer(input, plan)?;
        let [rows, values] = self.counts(&inner, &value, &keys, &outer, input)?;
        let (mark, same) = (self.name("mark"), self.name("same"));
        let names: Vec<String> = keys.iter().map(|_| self.name("key")).collect();
        let mut exprs = vec![Expr::Column(value.clone()).alias(&same)];
        exprs.extend(column_exprs(&keys).into_iter().zip(&names).map(|(key, name)| key.alias(name)));
        let distinct =
            LogicalPlanBuilder::from(inner).filter(Expr::Column(value).is_not_null())?.project(exprs)?.distinct()?;
        let columns = column_exprs(&distinct.schema().columns());
        let marked = distinct.project(columns.into_iter().chain([lit(true).alias(&mark)]))?.build()?;
        let keys: Vec<Column> = names.into_iter().map(Column::new_unqualified).collect();
        let met = vec![x.clone().eq(Expr::Column(Column::new_unqualified(same)))];
        beside(input, marked, met, &outer, &keys)?;
        let found = Expr::Column(Column::new_unqualified(mark)).is_not_null();
        when(rows.clone().eq(lit(0_i64)), lit(false))
            .when(found, lit(true))
            .when(x.is_null().or(values.lt(rows)), null())
            .otherwise(lit(false))
    }

    /// Columns with the number of the subquery's rows, and of those that are not NULL; 0 where it has none.
    fn counts(
        &mut self,
        inner: &LogicalPlan,
        value: &Column,
        keys: &[Column],
        outer: &[Column],
        input: &mut LogicalPlan,
    ) -> DfResult<[Expr; 2]> {
        let (rows, values) = (self.name("rows"), self.name("values"));
        let aggregates = vec![count(lit(1_i64)).alias(&rows), count(Expr::Column(value.clone())).alias(&values)];
        self.aggregates(inner, aggregates, keys, outer, input)?;
        Ok([rows, values].map(|name| coalesce(vec![Expr::Column(Column::new_unqualified(name)), lit(0_i64)])))
    }

    fn aggregates(
        &mut self,
        inner: &LogicalPlan,
        aggregates: Vec<Expr>,
        keys: &[Column],
        outer: &[Column],
        input: &mut LogicalPlan,
    ) -> DfResult<()> {
        let grouped = LogicalPlanBuilder::from(inner.clone()).aggregate(column_exprs(keys), aggregates.clone())?;
        let names: Vec<String> = keys.iter().map(|_| self.name("key")).collect();
        let named = column_exprs(keys).into_iter().zip(&names).map(|(key, name)| key.alias(name));
        let values =
            aggregates.iter().map(|expr| Expr::Column(Column::new_unqualified(expr.schema_name().to_string())));
        let grouped = grouped.project(named.chain(values).collect::<Vec<_>>())?.build()?;
        let keys: Vec<Column> = names.into_iter().map(Column::new_unqualified).collect();
        beside(input, grouped, Vec::new(), outer, &keys)
    }

    /// `x op ANY | ALL (subquery)`: equality with any is IN, the rest follows from the least and the greatest value.
    fn quantified(&mut self, comparison: SetComparison, input: &mut LogicalPlan) -> DfResult<Expr> {
        use Operator as O;
        let SetComparison { expr: x, subquery, op, quantifier } = comparison;
        let (x, plan, is_any) = (*x, &subquery.subquery, quantifier == SetQuantifier::Any);
        match (op, is_any) {
            (O::Eq, true) => return self.within(x, plan, input),
            (O::NotEq, false) => return self.within(x, plan, input).map(|found| Expr::Not(Box::new(found))),
            _ => {}
        }
        let Answer { plan: inner, value, keys, outer } = self.answer(input, plan)?;
        let [rows, values] = self.counts(&inner, &value, &keys, &outer, input)?;
        let (least, greatest) = (self.name("least"), self.name("greatest"));
        let aggregates =
            vec![min(Expr::Column(value.clone())).alias(&least), max(Expr::Column(value)).alias(&greatest)];
        self.aggregates(&inner, aggregates, &keys, &outer, input)?;
        let [least, greatest] = [least, greatest].map(|name| Expr::Column(Column::new_unqualified(name)));
        let compared = |with: &Expr| binary_expr(x.clone(), op, with.clone());
        // What decides: a value that satisfies ANY, or one that spoils ALL.
        let decides = match (op, is_any) {
            (O::Lt | O::LtEq, true) => compared(&greatest),
            (O::Gt | O::GtEq, true) => compared(&least),
            (O::Lt | O::LtEq, false) => Expr::Not(Box::new(compared(&least))),
            (O::Gt | O::GtEq, false) => Expr::Not(Box::new(compared(&greatest))),
            (O::NotEq, true) => compared(&least).or(compared(&greatest)),
            (O::Eq, false) => Expr::Not(Box::new(compared(&least).and(compared(&greatest)))),
            _ => return Err(unsupported(plan)),
        };
        when(rows.clone().eq(lit(0_i64)), lit(!is_any))
            .when(decides, lit(is_any))
            .when(x.is_null().or(values.lt(rows)), null())
            .otherwise(lit(!is_any))
    }
}

/// Joins to each row of `input` what it meets by the keys and by `met`, or NULLs.
fn beside(
    input: &mut LogicalPlan,
    with: LogicalPlan,
    mut met: Vec<Expr>,
    outer: &[Column],
    keys: &[Column],
) -> DfResult<()> {
    met.extend(same_keys(outer, keys, input.schema(), with.schema())?);
    if met.is_empty() {
        met.push(lit(true));
    }
    *input = LogicalPlanBuilder::from(input.clone()).join_on(with, JoinType::Left, met)?.build()?;
    Ok(())
}

/// Whether a subquery gives at most one row, whatever it looks at.
fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => gives_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one_row(&alias.input),
        LogicalPlan::Filter(filter) => gives_one_row(&filter.input),
        LogicalPlan::Sort(sort) => gives_one_row(&sort.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Limit(limit) => {
            gives_one_row(&limit.input)
                || matches!(limit.fetch.as_deref(), Some(Expr::Literal(ScalarValue::Int64(Some(0 | 1)), _)))
        }
        _ => false,
    }
}
