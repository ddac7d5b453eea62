//! Subqueries that look outside, as joins.
//!
//! The engine's own rules turn the simple ones into semi joins and grouped joins, and refuse the rest: those without an
//! equality, under LIMIT or set operations, in places other than WHERE, across levels. What they would refuse, or answer
//! wrongly, is taken apart here, before them and by one method that always applies: the distinct values of the outer
//! columns (the *domain*) are joined with the subquery from the inside (`push`), and the subquery's answer for each
//! combination is joined back to the rows outside.
//!
//! | expression        | what is joined back by the outer columns                 | stands for it |
//! |-------------------|----------------------------------------------------------|---------------|
//! | EXISTS            | the combinations that have rows                           | whether one is there |
//! | scalar            | the value, or the first value and the number of rows      | the value; two rows are an error |
//! | IN                | counts of rows and of values; the distinct values         | CASE, with NULL where SQL has it |
//! | ANY, ALL          | counts, the least and the greatest value                  | CASE, with NULL where SQL has it |
//! | LATERAL           | the rows                                                  | |
//!
//! Comes in: a plan as the planner made it. Goes out: the same without such subqueries.

mod easy;
mod free;
mod predicate;
mod push;
mod refresh;

use super::errors::wrap;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema, JoinType};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Distinct, Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, SubqueryAlias, Union, lit,
};
use datafusion::scalar::ScalarValue;
pub use easy::has_subquery;
pub use free::free;
use free::{lateral_of, subquery_of, with_subquery};
use model::{Code, Error};
use push::{Domain, Pushed};
pub use refresh::refreshed;
use std::sync::Arc;

/// Takes the subqueries of a plan apart.
///
/// Errors: `Unsupported` for what cannot be: subqueries that look outside from within WITH RECURSIVE, UNNEST, or a grouping
/// set of nothing.
pub fn unnest(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let has_some = plan.exists(|node| {
        let is_lateral = matches!(node, LogicalPlan::Join(join) if lateral_of(join).is_some());
        Ok(is_lateral || node.expressions().iter().any(easy::has_subquery))
    })?;
    if has_some { Unnester { names: 0 }.plan(plan) } else { Ok(plan) }
}

struct Unnester {
    /// Names that were given away.
    names: usize,
}

fn unsupported(plan: &LogicalPlan) -> DataFusionError {
    let what = plan.display().to_string();
    let what = what.split([':', ' ']).next().unwrap_or_default().to_lowercase();
    let message = format!("a subquery that looks outside of itself from within this step is not supported: {what}");
    wrap(Error::new(Code::Unsupported, message).with_hint("write it as a join, or look outside in its WHERE clause"))
}

fn column_exprs(columns: &[Column]) -> Vec<Expr> {
    columns.iter().cloned().map(Expr::Column).collect()
}

/// A column with its type, as one side of a join has it.
fn typed(column: &Column, schema: &DFSchema) -> DfResult<(Expr, DataType, bool)> {
    let field = schema.field_from_column(column)?;
    Ok((Expr::Column(column.clone()), field.data_type().clone(), field.is_nullable()))
}

/// That rows are of the same combination, NULLs included.
///
/// By plain equalities of what is never NULL: a join that takes NULLs for equal would do so for every condition that the
/// optimiser moves into it.
fn same_keys(
    left: &[Column],
    right: &[Column],
    left_schema: &DFSchema,
    right_schema: &DFSchema,
) -> DfResult<Vec<Expr>> {
    let mut same = Vec::with_capacity(left.len());
    for (left, right) in left.iter().zip(right) {
        let (l, ty, l_nullable) = typed(left, left_schema)?;
        let (r, _, r_nullable) = typed(right, right_schema)?;
        same.extend(same_values(l, r, l_nullable || r_nullable, &ty));
    }
    Ok(same)
}

/// That two values of a type are equal, or both NULL, as equalities that a join can look up.
pub fn same_values(l: Expr, r: Expr, is_nullable: bool, ty: &DataType) -> Vec<Expr> {
    if !is_nullable {
        return vec![l.eq(r)];
    }
    let Ok(filler) = ScalarValue::new_default(ty) else {
        let both_null = l.clone().is_null().and(r.clone().is_null());
        return vec![l.eq(r).or(both_null)];
    };
    let filled = |value: Expr| coalesce(vec![value, Expr::Literal(filler.clone(), None)]);
    vec![filled(l.clone()).eq(filled(r.clone())), l.is_null().eq(r.is_null())]
}

/// The node with what its inputs, whose subqueries are joins by now, have NULLs in: a scalar subquery passes for never NULL
/// when what it selects never is, but gives NULL when it finds no row.
fn with_nulls(node: LogicalPlan) -> DfResult<LogicalPlan> {
    match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::SubqueryAlias(_) => node.recompute_schema(),
        LogicalPlan::Union(Union { inputs, schema }) => {
            let has_nulls = |at: usize| inputs.iter().any(|input| input.schema().field(at).is_nullable());
            let fields = schema.iter().enumerate().map(|(at, (qualifier, field))| {
                (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(has_nulls(at))))
            });
            let schema = DFSchema::new_with_metadata(fields.collect(), schema.as_arrow().metadata().clone())?;
            Ok(LogicalPlan::Union(Union { inputs, schema: Arc::new(schema) }))
        }
        node => Ok(node),
    }
}

impl Unnester {
    /// A name that no user's column has.
    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("__{what}_{}", self.names)
    }

    fn plan(&mut self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        Ok(plan.transform_up(|node| self.node(with_nulls(node)?))?.data)
    }

    fn node(&mut self, node: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
        if let LogicalPlan::Join(join) = &node
            && lateral_of(join).is_some()
        {
            return self.lateral(join).map(Transformed::yes);
        }
        if !node.expressions().iter().any(easy::has_subquery) {
            return Ok(Transformed::no(node));
        }
        match node {
            LogicalPlan::Filter(filter) => self.filter(filter).map(Transformed::yes),
            LogicalPlan::Join(join) => self.join(join).map(Transformed::yes),
            node => self.other(node),
        }
    }

    /// WHERE: conjuncts that the engine's semi joins get right are left to them.
    fn filter(&mut self, filter: Filter) -> DfResult<LogicalPlan> {
        let (mut hard, mut easy) = (Vec::new(), Vec::new());
        for expr in split_conjunction_owned(filter.predicate) {
            if let Some(within) = easy::stands_alone(&expr) {
                let inner = self.plan(within.subquery.subquery.as_ref().clone())?;
                let columns = column_exprs(&inner.schema().columns());
                // The engine's rule wants a projection, which VALUES for one is not.
                let inner = LogicalPlanBuilder::from(inner).project(columns)?.build()?;
                easy.push(with_subquery(expr, inner));
            } else if easy::has_subquery(&expr) && !easy::is_conjunct(&expr) {
                hard.push(expr);
            } else {
                easy.push(expr);
            }
        }
        let mut input = filter.input.as_ref().clone();
        if let Some(easy) = conjunction(easy) {
            input = LogicalPlanBuilder::from(input).filter(easy)?.build()?;
        }
        if hard.is_empty() {
            return Ok(input);
        }
        let columns = input.schema().columns();
        let mut predicates = Vec::with_capacity(hard.len());
        for expr in hard {
            predicates.push(self.expression(expr, &mut input)?);
        }
        let filtered =
            LogicalPlan::Filter(Filter::try_new(conjunction(predicates).unwrap_or(lit(true)), Arc::new(input))?);
        LogicalPlanBuilder::from(filtered).project(column_exprs(&columns))?.build()
    }

    /// A node of one input, which gets columns for its subqueries.
    fn other(&mut self, node: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
        let is_easy = matches!(node, LogicalPlan::Projection(_)) && node.expressions().iter().all(easy::is_projected);
        let [input] = node.inputs()[..] else {
            return Ok(Transformed::no(node));
        };
        if is_easy {
            return Ok(Transformed::no(node));
        }
        let (columns, names) = (node.schema().columns(), NamePreserver::new(&node));
        let mut input = input.clone();
        let mut exprs = Vec::new();
        for expr in node.expressions() {
            let name = names.save(&expr);
            exprs.push(name.restore(self.expression(expr, &mut input)?));
        }
        let plan = node.with_new_exprs(exprs, vec![input])?;
        // What passes its input on passes the new columns on too.
        let plan = match plan.schema().fields().len() == columns.len() {
            true => plan,
            false => LogicalPlanBuilder::from(plan).project(column_exprs(&columns))?.build()?,
        };
        Ok(Transformed::yes(plan))
    }

    /// ON: of an inner join it is a filter; of an outer join, a subquery may look at one side.
    fn join(&mut self, join: Join) -> DfResult<LogicalPlan> {
        let columns = join.schema.columns();
        let Some(condition) = join.filter.clone() else { return Err(unsupported(&LogicalPlan::Join(join))) };
        if join.join_type == JoinType::Inner {
            let plain = Join { filter: None, ..join };
            let filter = Filter::try_new(condition, Arc::new(LogicalPlan::Join(plain)))?;
            return self.filter(filter);
        }
        let (mut left, mut right) = (join.left.as_ref().clone(), join.right.as_ref().clone());
        let condition = condition.transform_up(|part| {
            let Some(subquery) = subquery_of(&part) else { return Ok(Transformed::no(part)) };
            let mut seen: Vec<Column> = free(&subquery.subquery)?.into_iter().map(|(_, column)| column).collect();
            if let Expr::InSubquery(within) = &part {
                seen.extend(within.expr.column_refs().into_iter().cloned());
            }
            if let Expr::SetComparison(comparison) = &part {
                seen.extend(comparison.expr.column_refs().into_iter().cloned());
            }
            if seen.iter().all(|column| left.schema().has_column(column)) {
                self.subquery(part, &mut left).map(Transformed::yes)
            } else if seen.iter().all(|column| right.schema().has_column(column)) {
                self.subquery(part, &mut right).map(Transformed::yes)
            } else {
                let message = "a subquery in ON of an outer join looks at both sides of it: this is not supported";
                Err(wrap(Error::new(Code::Unsupported, message)))
            }
        })?;
        let joined = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            join.on,
            Some(condition.data),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(column_exprs(&columns))?.build()
    }

    /// LATERAL: for each row on the left, the rows that the right gives for it.
    fn lateral(&mut self, join: &Join) -> DfResult<LogicalPlan> {
        let whole = LogicalPlan::Join(join.clone());
        let Some(subquery) = lateral_of(join) else { return Err(unsupported(&whole)) };
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return Err(unsupported(&whole));
        }
        let left = join.left.as_ref().clone();
        let (inner, mut keys, outer) = self.dependent(&left, &subquery.subquery)?;
        let mut right = inner;
        if let LogicalPlan::SubqueryAlias(alias) = &*join.right {
            right = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(right), alias.alias.clone())?);
            keys.iter_mut().for_each(|key| key.relation = Some(alias.alias.clone()));
        }
        let same = same_keys(&outer, &keys, left.schema(), right.schema())?;
        let met = same.into_iter().chain(join.filter.clone()).reduce(Expr::and);
        let joined = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            join.on.clone(),
            met,
            join.join_type,
            join.join_constraint,
            join.null_equality,
            false,
        )?;
        let columns = column_exprs(&join.schema.columns());
        let joined = match joined.filter.as_ref().is_some_and(easy::has_subquery) {
            true => self.join(joined)?,
            false => LogicalPlan::Join(joined),
        };
        LogicalPlanBuilder::from(joined).project(columns)?.build()
    }

    /// An expression over `input`, which gets columns for its subqueries.
    fn expression(&mut self, expr: Expr, input: &mut LogicalPlan) -> DfResult<Expr> {
        let replaced = expr.transform_up(|part| match subquery_of(&part) {
            Some(_) => self.subquery(part, input).map(Transformed::yes),
            None => Ok(Transformed::no(part)),
        })?;
        Ok(replaced.data)
    }

    /// The subquery for all combinations of values that `input` has; its keys, and the outer columns that they are.
    fn dependent(
        &mut self,
        input: &LogicalPlan,
        plan: &LogicalPlan,
    ) -> DfResult<(LogicalPlan, Vec<Column>, Vec<Column>)> {
        let outer = free(plan)?;
        let columns: Vec<Column> = outer.iter().map(|(_, column)| column.clone()).collect();
        if columns.is_empty() {
            return Ok((self.plan(plan.clone())?, Vec::new(), columns));
        }
        let values = LogicalPlanBuilder::from(input.clone()).project(column_exprs(&columns))?.build()?;
        let domain = Domain { outer, plan: LogicalPlan::Distinct(Distinct::All(Arc::new(values))) };
        let (pushed, keys): Pushed = self.push(plan, &domain)?;
        Ok((self.plan(pushed)?, keys, columns))
    }
}
