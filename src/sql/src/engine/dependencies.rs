//! GROUP BY, without the dependencies that the engine makes up.
//!
//! Where rows are grouped by `a, b`, and `a` was grouped by before, the engine takes `a` to determine all columns of the
//! result, also when the rows were joined with others since and have several `b` each. It then leaves out a DISTINCT, a
//! grouping column or a join that is needed: wrong rows, and no error. So the result of such a grouping goes through a
//! projection in which `a` is `apart(a)`, of which the engine knows nothing; it is `a` again when the plan is optimised.

use super::errors::wrap;
use super::functions::Function;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, LogicalPlan, Projection, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use model::Error;
use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

static APART: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Function::new(
        "apart",
        |types| Ok(types.to_vec()),
        |args: &ReturnFieldArgs<'_>| Ok(args.arg_fields[0].as_ref().clone()),
        |_, _: &ScalarFunctionArgs| Err(wrap(Error::internal("a plan still has what was put in to optimise it"))),
    )
    .udf()
});

/// The expression, of which the engine knows nothing until the plan is optimised.
pub fn apart(expr: Expr) -> Expr {
    APART.call(vec![expr])
}

/// Puts columns apart. Runs before each of the engine's rules that look at dependencies.
#[derive(Debug)]
pub struct PutApart;

impl OptimizerRule for PutApart {
    fn name(&self) -> &str {
        "put_apart"
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        if groupings(&plan)? < 2 { Ok(Transformed::no(plan)) } else { put_apart(plan, None) }
    }
}

fn groupings(plan: &LogicalPlan) -> DfResult<usize> {
    let mut count = 0;
    plan.apply_with_subqueries(|node| {
        count += usize::from(matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(count)
}

/// The plan after all rules, without what was put in.
pub fn together(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let together = plan.transform_up_with_subqueries(|node| {
        let node = node.map_expressions(|expr| {
            expr.transform_up(|part| match part {
                Expr::ScalarFunction(mut call) if call.func == *APART && call.args.len() == 1 => {
                    Ok(Transformed::yes(call.args.remove(0)))
                }
                part => Ok(Transformed::no(part)),
            })
        })?;
        if node.transformed { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
    })?;
    Ok(together.data)
}

/// `passed` are the columns of the plan that its projection passes on as they are; None when all are.
fn put_apart(plan: LogicalPlan, passed: Option<&HashSet<Column>>) -> DfResult<Transformed<LogicalPlan>> {
    let below = match &plan {
        LogicalPlan::Projection(projection) => Some(columns_of(&projection.expr)),
        _ => None,
    };
    let plan = plan
        .map_subqueries(|subquery| put_apart(subquery, None))?
        .transform_data(|plan| plan.map_children(|child| put_apart(child, below.as_ref())))?;
    // Dependencies are of the schema; the rules before have not always passed them on.
    plan.map_data(LogicalPlan::recompute_schema)?.transform_data(|plan| match plan {
        // The engine's rule would make this of it too, and look at dependencies on the way.
        LogicalPlan::Distinct(Distinct::All(input)) if !input.schema().fields().is_empty() => {
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
            let grouped = LogicalPlan::Aggregate(Aggregate::try_new(input, columns, Vec::new())?);
            Ok(Transformed::yes(without(grouped, passed)?.data))
        }
        plan => without(plan, passed),
    })
}

/// The columns that come out under whatever name.
fn columns_of(exprs: &[Expr]) -> HashSet<Column> {
    exprs.iter().filter_map(|expr| expr.clone().unalias_nested().data.try_as_col().cloned()).collect()
}

/// A grouping without made-up dependencies, as far as these come out of it.
fn without(plan: LogicalPlan, passed: Option<&HashSet<Column>>) -> DfResult<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
    let doubtful = doubtful(aggregate);
    let comes_out = |column: &Column| passed.is_none_or(|passed| passed.contains(column));
    if !doubtful.iter().any(comes_out) {
        return Ok(Transformed::no(plan));
    }
    let put = |column: Column| match doubtful.contains(&column) {
        true => apart(Expr::Column(column.clone())).alias_qualified(column.relation, column.name),
        false => Expr::Column(column),
    };
    let exprs = plan.schema().columns().into_iter().map(put).collect();
    Projection::try_new(exprs, Arc::new(plan)).map(LogicalPlan::Projection).map(Transformed::yes)
}

/// The grouping columns that are taken to determine all others and do not.
fn doubtful(aggregate: &Aggregate) -> HashSet<Column> {
    let columns = aggregate.input.schema().columns();
    let groups: Vec<Option<&Column>> = aggregate.group_expr.iter().map(Expr::try_as_col).collect();
    let mut doubtful = HashSet::new();
    for dependency in aggregate.input.schema().functional_dependencies().iter() {
        let all_of = |indices: &[usize]| indices.iter().map(|index| &columns[*index]).collect::<Vec<_>>();
        let (source, target) = (all_of(&dependency.source_indices), all_of(&dependency.target_indices));
        let is_grouped_by = source.iter().all(|column| groups.contains(&Some(*column)));
        let is_of_all = groups.iter().all(|group| group.is_some_and(|column| target.contains(&column)));
        if is_grouped_by && !is_of_all {
            doubtful.extend(source.into_iter().cloned());
        }
    }
    doubtful
}
