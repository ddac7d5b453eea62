//! Walks over a statement's tree, for all who read or change it.
//!
//! The parser's own walk is generic: every type of visitor compiles the grammar's whole walk once more, which was more
//! than half of this room's compile time. Here the walk is compiled once for reading and once for changing, and calls
//! the visitor through a trait object.

use model::{Error, Result};
use sqlparser::ast::{self, Expr, Query, Select, TableFactor, ValueWithSpan, VisitMut, VisitorMut};
use std::ops::ControlFlow;

/// What is done at each place of a walk. An error ends the walk.
///
/// What `enter` leaves in a place is walked, not what was there before; `leave` sees a place with all below it walked.
pub trait Change {
    fn enter_query(&mut self, _: &mut Query) -> Result<()> {
        Ok(())
    }

    fn leave_query(&mut self, _: &mut Query) -> Result<()> {
        Ok(())
    }

    fn enter_select(&mut self, _: &mut Select) -> Result<()> {
        Ok(())
    }

    fn enter_table(&mut self, _: &mut TableFactor) -> Result<()> {
        Ok(())
    }

    fn enter_expr(&mut self, _: &mut Expr) -> Result<()> {
        Ok(())
    }

    fn leave_expr(&mut self, _: &mut Expr) -> Result<()> {
        Ok(())
    }

    fn enter_value(&mut self, _: &mut ValueWithSpan) -> Result<()> {
        Ok(())
    }
}

/// The same for a walk that changes nothing.
pub trait Read {
    fn enter_query(&mut self, _: &Query) -> Result<()> {
        Ok(())
    }

    fn enter_expr(&mut self, _: &Expr) -> Result<()> {
        Ok(())
    }

    fn leave_expr(&mut self, _: &Expr) -> Result<()> {
        Ok(())
    }
}

/// Walks a tree that may change.
///
/// Errors: those of `changer`.
pub fn change(tree: &mut impl VisitMut, changer: &mut dyn Change) -> Result<()> {
    outcome(tree.visit(&mut Changing(changer)))
}

/// Walks a tree.
///
/// Errors: those of `reader`.
pub fn read(tree: &impl ast::Visit, reader: &mut dyn Read) -> Result<()> {
    outcome(tree.visit(&mut Reading(reader)))
}

fn flow(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

fn outcome(flow: ControlFlow<Error>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Changing<'a>(&'a mut dyn Change);

impl VisitorMut for Changing<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        flow(self.0.enter_query(query))
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        flow(self.0.leave_query(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        flow(self.0.enter_select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        flow(self.0.enter_table(factor))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        flow(self.0.enter_expr(expr))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        flow(self.0.leave_expr(expr))
    }

    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<Error> {
        flow(self.0.enter_value(value))
    }
}

struct Reading<'a>(&'a mut dyn Read);

impl ast::Visitor for Reading<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        flow(self.0.enter_query(query))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        flow(self.0.enter_expr(expr))
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        flow(self.0.leave_expr(expr))
    }
}
