//! What result columns are called: as in PostgreSQL where the engine would show its inner names.

use super::types::shown_type;
use crate::front::parse::fold;
use datafusion::arrow::datatypes::Schema;
use sqlparser::ast::{Expr, Query, Select, SelectItem, SetExpr};

/// Names and types of a query's columns.
pub fn columns(query: &Query, schema: &Schema) -> Vec<(String, String)> {
    let named = written(&query.body, schema.fields().len());
    let name = |(at, inner): (usize, &String)| named.get(at).cloned().flatten().unwrap_or_else(|| inner.clone());
    let fields = schema.fields().iter().enumerate();
    fields.map(|(at, field)| (name((at, field.name())), shown_type(field))).collect()
}

/// The names that a query's columns are shown by; None when its text does not say them all.
pub fn of_outputs(body: &SetExpr) -> Option<Vec<String>> {
    first_select(body)?.projection.iter().map(item_name).collect()
}

/// Whose columns a query shows: of a set operation, those of its first operand.
pub fn first_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Query(query) => first_select(&query.body),
        SetExpr::SetOperation { left, .. } => first_select(left),
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

/// For each column the name that its text gives it; None where the engine's own is right.
fn written(body: &SetExpr, count: usize) -> Vec<Option<String>> {
    let Some(select) = first_select(body) else { return Vec::new() };
    let is_wild = |item: &&SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let wild = select.projection.iter().filter(is_wild).count();
    // One wildcard stands for all columns that no other item names.
    let hidden = (count + wild).saturating_sub(select.projection.len());
    if wild > 1 {
        return Vec::new();
    }
    let names = |item: &SelectItem| if is_wild(&item) { vec![None; hidden] } else { vec![item_name(item)] };
    select.projection.iter().flat_map(names).collect()
}

fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => expr_name(expr),
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias).text),
        _ => None,
    }
}

/// A function's own name, or the expression as it was written.
fn expr_name(expr: &Expr) -> Option<String> {
    const CHARS_MAX: usize = 60;
    match expr {
        Expr::Identifier(name) => Some(fold(name).text),
        Expr::CompoundIdentifier(names) => names.last().map(|name| fold(name).text),
        Expr::Nested(inner) => expr_name(inner),
        Expr::Cast { expr, .. } if matches!(**expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) => {
            expr.to_string().rsplit('.').next().map(|name| name.trim_matches('"').to_owned())
        }
        Expr::Function(function) => Some(function.name.to_string().to_lowercase()),
        Expr::Case { .. } => Some("case".to_owned()),
        Expr::Exists { .. } => Some("exists".to_owned()),
        other => {
            let text = other.to_string();
            Some(if text.chars().count() > CHARS_MAX { "?column?".to_owned() } else { text })
        }
    }
}
