//! A bound on how deep expressions are.
//!
//! The engine's planner takes time by the cube of an expression's depth (0.1 s at 128 levels, 8 s at 500, a minute at
//! 1,000), and does not look up meanwhile to see that its query was cancelled.

use crate::walk;
use model::{Code, Error, Result};
use sqlparser::ast::{Expr, Query};

/// Levels of operators and functions inside one another. Chains of AND and OR are balanced by the front and so are short.
pub const EXPR_DEPTH_MAX: usize = 128;

struct Depth {
    now: usize,
}

impl walk::Read for Depth {
    fn enter_expr(&mut self, _: &Expr) -> Result<()> {
        self.now += 1;
        if self.now <= EXPR_DEPTH_MAX {
            return Ok(());
        }
        let message = format!("an expression is nested more than {EXPR_DEPTH_MAX} levels deep");
        Err(Error::new(Code::LimitExceeded, message).with_hint("chains of operators count a level each: split them"))
    }

    fn leave_expr(&mut self, _: &Expr) -> Result<()> {
        self.now -= 1;
        Ok(())
    }
}

/// Errors: `LimitExceeded`.
pub fn check(query: &Query) -> Result<()> {
    walk::read(query, &mut Depth { now: 0 })
}
