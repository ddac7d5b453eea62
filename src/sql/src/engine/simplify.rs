//! Expressions that the engine's rule simplifies wrongly, kept from it or put into a form that it gets right.
//!
//! **Two IN lists about the same.** Of `x IN (1, 2) AND x IN (3, 4)` the rule makes FALSE, and of `x NOT IN (1, 2) OR x NOT IN (3, 4)`
//! TRUE, also when x is NULL and so is the answer. Among the conjuncts of a filter that makes no difference, and lists are left
//! to it there. Elsewhere one of the two goes through a function of which the rule knows nothing; it is taken out again when the
//! plan is optimised.
//!
//! **Products and quotients of decimals with 0 and 1.** The rule makes one of the operands of them, which has fewer digits than
//! the product, and a comparison that was planned with the product's type can then not be made. So a CAST to that type stands
//! around each.

use super::dependencies::apart;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{Cast, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

/// The engine's rule.
#[derive(Debug)]
pub struct SimplifiedRightly(pub Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for SimplifiedRightly {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        if !has_candidates(&plan)? {
            return self.0.rewrite(plan, config);
        }
        let schema = merge_schema(&plan.inputs());
        let is_filter = matches!(plan, LogicalPlan::Filter(_));
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            if !is_filter {
                let name = names.save(&expr);
                return Ok(prepared(expr, &schema)?.update_data(|expr| name.restore(expr)));
            }
            let conjuncts = split_conjunction_owned(expr.clone()).into_iter().map(|expr| prepared(expr, &schema));
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

/// Whether there may be something to do: most plans have nothing.
fn has_candidates(plan: &LogicalPlan) -> DfResult<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= expr.exists(|part| Ok(merged_lists(part).is_some() || is_of_neutral(part)))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn prepared(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    expr.transform_down(|part| {
        if let Expr::Cast(Cast { expr, field }) = &part
            && is_of_neutral(expr)
            && expr.get_type(schema).is_ok_and(|ty| ty == *field.data_type())
        {
            // One that has its type.
            return Ok(Transformed::new(part, false, TreeNodeRecursion::Jump));
        }
        if is_of_neutral(&part)
            && let Ok(ty @ DataType::Decimal128(..)) = part.get_type(schema)
        {
            return Ok(Transformed::new(cast(part, ty), true, TreeNodeRecursion::Jump));
        }
        let may_be_null = merged_lists(&part).is_some_and(|list| list.expr.nullable(schema).unwrap_or(true));
        match part {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if may_be_null => {
                let right = Box::new(apart(*right));
                Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })))
            }
            part => Ok(Transformed::no(part)),
        }
    })
}

/// The first of two lists of which the rule takes what is in both, or in one of them alone, and there may be nothing.
fn merged_lists(expr: &Expr) -> Option<&InList> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
    let (Expr::InList(l), Expr::InList(r)) = (&**left, &**right) else { return None };
    let cuts = match op {
        Operator::And => !l.negated || !r.negated,
        Operator::Or => l.negated && r.negated,
        _ => false,
    };
    (cuts && l.expr == r.expr).then_some(l)
}

/// A product or quotient with 0 or 1.
fn is_of_neutral(expr: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return false };
    let is_neutral = |side: &Expr| {
        let inner = match side {
            Expr::Cast(cast) => &cast.expr,
            side => side,
        };
        let Expr::Literal(value, _) = inner else { return false };
        matches!(value.cast_to(&DataType::Float64), Ok(ScalarValue::Float64(Some(0.0 | 1.0))))
    };
    matches!(op, Operator::Multiply | Operator::Divide | Operator::Modulo) && (is_neutral(left) || is_neutral(right))
}
