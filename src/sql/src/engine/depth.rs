//! A bound on how deep expressions are.
//!
//! The engine's planner takes time by the cube of an expression's depth (0.1 s at 128 levels, 8 s at 500, a minute at
//! 1,000), and does not look up meanwhile to see that its query was cancelled.

use model::{Code, Error, Result};
use sqlparser::ast::{Expr, Query, Visit, Visitor};
use std::ops::ControlFlow;

/// Levels of operators and functions inside one another. Chains of AND and OR are balanced by the front and so are short.
pub const EXPR_DEPTH_MAX: usize = 128;

struct Depth {
    now: usize,
}

impl Visitor for Depth {
    type Break = ();

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.now += 1;
        if self.now > EXPR_DEPTH_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.now -= 1;
        ControlFlow::Continue(())
    }
}

/// Errors: `LimitExceeded`.
pub fn check(query: &Query) -> Result<()> {
    match query.visit(&mut Depth { now: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => {
            let message = format!("an expression is nested more than {EXPR_DEPTH_MAX} levels deep");
            Err(Error::new(Code::LimitExceeded, message)
                .with_hint("chains of operators count a level each: split them"))
        }
    }
}
