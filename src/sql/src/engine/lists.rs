//! Two IN lists about the same, which the engine's rule does not make one list of.
//!
//! Of `x IN (1, 2) AND x IN (3, 4)` the rule makes FALSE, and of `x NOT IN (1, 2) OR x NOT IN (3, 4)` TRUE, also when x is NULL and so
//! is the answer. Among the conjuncts of a filter that makes no difference, and lists are left to it there. Elsewhere one of the
//! two goes through a function of which the rule knows nothing; it is taken out again when the plan is optimised.

use super::dependencies::apart;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// The engine's rule that simplifies expressions.
#[derive(Debug)]
pub struct KeepsLists(pub Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for KeepsLists {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        let may_be_null = |expr: &Expr| expr.nullable(&schema).unwrap_or(true);
        let put_apart = |expr: Expr| {
            expr.transform_up(|part| match part {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) if are_merged(&left, op, &right, &may_be_null) => {
                    let right = Box::new(apart(*right));
                    Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })))
                }
                part => Ok(Transformed::no(part)),
            })
        };
        let is_filter = matches!(plan, LogicalPlan::Filter(_));
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            if !is_filter {
                let name = names.save(&expr);
                return Ok(put_apart(expr)?.update_data(|expr| name.restore(expr)));
            }
            let conjuncts = split_conjunction_owned(expr.clone()).into_iter().map(&put_apart);
            let conjuncts = conjuncts.collect::<DfResult<Vec<_>>>()?;
            if !conjuncts.iter().any(|conjunct| conjunct.transformed) {
                return Ok(Transformed::no(expr));
            }
            let together = conjunction(conjuncts.into_iter().map(|conjunct| conjunct.data));
            Ok(Transformed::yes(together.unwrap_or(expr)))
        })?;
        plan.transform_data(|plan| self.0.rewrite(plan, config))
    }
}

/// Whether the rule takes what is in both lists, or in one of them alone, and there may be nothing.
fn are_merged(left: &Expr, op: Operator, right: &Expr, may_be_null: &dyn Fn(&Expr) -> bool) -> bool {
    let (Expr::InList(l), Expr::InList(r)) = (left, right) else { return false };
    let cuts = match op {
        Operator::And => !l.negated || !r.negated,
        Operator::Or => l.negated && r.negated,
        _ => false,
    };
    cuts && l.expr == r.expr && may_be_null(&l.expr)
}
