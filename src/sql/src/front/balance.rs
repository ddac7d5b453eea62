//! Long chains of AND and OR as shallow trees.
//!
//! The parser makes of `a OR b OR c OR ...` a tree as deep as the chain is long, and everything after it walks trees
//! recursively. AND and OR are associative in three-valued logic, so the chain may as well be a balanced tree: 10,000
//! conditions are then 14 levels deep instead of 10,000. The parser's tree is taken apart without recursion.

use crate::walk;
use model::Result;
use sqlparser::ast::{BinaryOperator, Expr, Value, VisitMut};

/// Shorter chains stay as they were written.
const OPERANDS_MIN: usize = 16;

/// Balances all chains in a query or an expression.
pub fn balance(ast: &mut impl VisitMut) {
    // The balancer refuses nothing.
    let _ = walk::change(ast, &mut Balancer);
}

struct Balancer;

impl walk::Change for Balancer {
    // Before the children: the walk then descends into the balanced tree.
    fn enter_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if let Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } = expr {
            let op = op.clone();
            if chain_length(expr, &op) >= OPERANDS_MIN {
                let chain = std::mem::replace(expr, Expr::Value(Value::Null.into()));
                *expr = build(&mut operands(chain, &op), &op);
            }
        }
        Ok(())
    }
}

fn chain_length(mut expr: &Expr, op: &BinaryOperator) -> usize {
    let mut length = 1;
    while let Expr::BinaryOp { left, op: other, .. } = expr {
        if other != op {
            break;
        }
        (expr, length) = (left, length + 1);
    }
    length
}

/// The operands of the chain, in their order.
fn operands(mut expr: Expr, op: &BinaryOperator) -> Vec<Option<Expr>> {
    let mut reversed = Vec::new();
    loop {
        match expr {
            Expr::BinaryOp { left, op: other, right } if other == *op => {
                reversed.push(Some(*right));
                expr = *left;
            }
            first => {
                reversed.push(Some(first));
                reversed.reverse();
                return reversed;
            }
        }
    }
}

/// A balanced tree of the operands; the depth of the recursion is the logarithm of their number.
fn build(operands: &mut [Option<Expr>], op: &BinaryOperator) -> Expr {
    match operands {
        [] => Expr::Value(Value::Null.into()),
        [one] => one.take().unwrap_or(Expr::Value(Value::Null.into())),
        many => {
            let (left, right) = many.split_at_mut(many.len().div_ceil(2));
            Expr::BinaryOp { left: Box::new(build(left, op)), op: op.clone(), right: Box::new(build(right, op)) }
        }
    }
}
