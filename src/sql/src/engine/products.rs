//! Products and quotients of decimals with 0 and 1, of which the engine's rule makes one of the operands.
//!
//! The operand has fewer digits than the product, and a comparison that was planned with the product's type can then not be
//! made. So a CAST to that type stands around each.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

/// The engine's rule that simplifies expressions.
#[derive(Debug)]
pub struct KeepsTypes(pub Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for KeepsTypes {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let typed = expr.transform_down(|part| match &part {
                // One that has its type.
                Expr::Cast(Cast { expr, field }) if is_simplified(expr) => {
                    let is_typed = expr.get_type(&schema).is_ok_and(|ty| ty == *field.data_type());
                    let next = if is_typed { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue };
                    Ok(Transformed::new(part, false, next))
                }
                _ if is_simplified(&part) => match part.get_type(&schema) {
                    Ok(ty @ DataType::Decimal128(..)) => {
                        Ok(Transformed::new(cast(part, ty), true, TreeNodeRecursion::Jump))
                    }
                    _ => Ok(Transformed::no(part)),
                },
                _ => Ok(Transformed::no(part)),
            })?;
            Ok(typed.update_data(|expr| name.restore(expr)))
        })?;
        plan.transform_data(|plan| self.0.rewrite(plan, config))
    }
}

fn is_simplified(expr: &Expr) -> bool {
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
