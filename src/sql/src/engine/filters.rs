//! Filters that are pushed down, in the one form that the engine's rule reads rightly.
//!
//! On its way down a filter meets others. Where two of them say `column = constant` in different ways (`'a' = x` beside
//! `x = 'a'`, 0 beside -0), the engine's rule takes them for contradictions, and the rows are lost; of two that bound a
//! column it keeps one, also when the other compares with NULL. Constants may come to where columns were at any step, so each filter is put in
//! order right before the rule looks at it.

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

/// The engine's rule that pushes filters down.
#[derive(Debug)]
pub struct PushedInOrder(pub Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for PushedInOrder {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, mut plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let mut at = &mut plan;
        // The rule joins filters that stand one above the other.
        while let LogicalPlan::Filter(filter) = at {
            if let Some(predicate) = in_order(&filter.predicate) {
                filter.predicate = predicate;
            }
            if !matches!(&*filter.input, LogicalPlan::Filter(_)) {
                break;
            }
            at = Arc::make_mut(&mut filter.input);
        }
        self.0.rewrite(plan, config)
    }
}

/// The predicate, when it was in another form.
fn in_order(predicate: &Expr) -> Option<Expr> {
    let conjuncts = split_conjunction(predicate);
    let ordered: Vec<Option<Expr>> = conjuncts.iter().map(|conjunct| comparison_in_order(conjunct)).collect();
    if ordered.iter().all(Option::is_none) {
        return None;
    }
    conjunction(ordered.into_iter().zip(conjuncts).map(|(ordered, conjunct)| ordered.unwrap_or(conjunct.clone())))
}

/// `column op constant` for a comparison of the two; None for all else, and for what has that form.
fn comparison_in_order(expr: &Expr) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
    let (column, op, constant, is_turned) = match (&**left, &**right) {
        (Expr::Column(_), Expr::Literal(constant, _)) => (left, *op, constant, false),
        (Expr::Literal(constant, _), Expr::Column(_)) => (right, op.swap()?, constant, true),
        _ => return None,
    };
    if !matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq) {
        return None;
    }
    if constant.is_null() {
        return Some(Expr::Literal(ScalarValue::Boolean(None), None));
    }
    let plain = match constant {
        ScalarValue::Float64(Some(0.0)) => ScalarValue::Float64(Some(0.0)),
        ScalarValue::Float32(Some(0.0)) => ScalarValue::Float32(Some(0.0)),
        constant => constant.clone(),
    };
    let is_plain = !is_turned && plain == *constant && matches!(&**right, Expr::Literal(_, None));
    let constant = Box::new(Expr::Literal(plain, None));
    (!is_plain).then(|| Expr::BinaryExpr(BinaryExpr::new(column.clone(), op, constant)))
}
