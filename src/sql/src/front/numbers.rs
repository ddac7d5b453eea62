//! `nextval('sequence')` in a statement: each becomes the number that it stands for before the engine sees it.
//!
//! So it can stand where an expression is computed once: in VALUES, in SET of no table, in a SELECT without FROM. Where
//! each row would need another number it is refused; a column's default is the way there.

use super::ddl_column::nextval_of;
use super::literal;
use crate::cluster::{Cluster, Schema};
use crate::walk;
use model::error::nearest;
use model::{Code, Error, Result, Value};
use sqlparser::ast::{Expr, Query, SetExpr};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Puts numbers in the place of all `nextval` of a query.
///
/// Errors: `NoSuchTable` for a sequence that is not there, `Unsupported` where it is computed for rows, and those of
/// `Cluster::numbers`.
pub(super) async fn settle(
    query: &mut Query,
    schema: &dyn Schema,
    cluster: &Arc<dyn Cluster>,
    deadline: Instant,
) -> Result<()> {
    let mut found = Finder(Vec::new());
    walk::change(query, &mut found)?;
    if found.0.is_empty() {
        return Ok(());
    }
    if !is_computed_once(&query.body) {
        return Err(Error::new(Code::Unsupported, "nextval for each row of a query is not supported")
            .with_hint("make it the DEFAULT of a column, or take the numbers in VALUES or a SELECT without FROM"));
    }
    let mut numbers = VecDeque::with_capacity(found.0.len());
    for name in found.0 {
        let sequence = schema.sequence(&name).ok_or_else(|| no_such_sequence(&name, schema))?;
        numbers.extend(cluster.numbers(&sequence, 1, deadline).await?);
    }
    walk::change(query, &mut Filler(numbers))
}

fn no_such_sequence(name: &str, schema: &dyn Schema) -> Error {
    let error = Error::new(Code::NoSuchTable, format!("sequence \"{name}\" does not exist"));
    let names = schema.sequence_names();
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None => error,
    }
}

/// Whether every expression of the query is computed for one row only.
fn is_computed_once(body: &SetExpr) -> bool {
    match body {
        SetExpr::Values(_) => true,
        SetExpr::Select(select) => select.from.is_empty() && select.selection.is_none(),
        SetExpr::Query(query) => is_computed_once(&query.body),
        _ => false,
    }
}

/// The names of the sequences, in the order of the walk.
struct Finder(Vec<String>);

impl walk::Change for Finder {
    fn enter_expr(&mut self, expr: &mut Expr) -> Result<()> {
        self.0.extend(nextval_of(expr));
        Ok(())
    }
}

/// Numbers for them, in the same order.
struct Filler(VecDeque<i64>);

impl walk::Change for Filler {
    fn enter_expr(&mut self, expr: &mut Expr) -> Result<()> {
        if nextval_of(expr).is_some()
            && let Some(number) = self.0.pop_front()
        {
            *expr = literal::expression_not_ordinal(&Value::Integer(number));
        }
        Ok(())
    }
}
