//! What result columns are called: as in PostgreSQL where the engine would show its inner names.

use super::types::shown_type;
use crate::front::parse::fold;
use datafusion::arrow::datatypes::Schema;
use sqlparser::ast::{Expr, Ident, ObjectNamePart, Query, Select, SelectItem, SetExpr, TrimWhereField};
use std::collections::{HashMap, HashSet};

/// Names and types of a query's columns.
pub fn columns(query: &Query, schema: &Schema) -> Vec<(String, String)> {
    let named = written(&query.body, schema.fields().len());
    let name = |(at, inner): (usize, &String)| match named.get(at).cloned().flatten() {
        Some(written) => written,
        None => shown(inner).to_owned(),
    };
    let fields = schema.fields().iter().enumerate();
    fields.map(|(at, field)| (name((at, field.name())), shown_type(field))).collect()
}

/// What begins the name of a column of a derived table that has another of the same name; its place and the name follow.
const TWIN: &str = "__twin_";

/// What begins the name of a column that has the name of another one of a result; a number follows, and its name if it has one.
pub const AGAIN: &str = "__again_";
/// What begins the name of a column that ORDER BY goes by; a number follows.
pub const SHOWN: &str = "__shown_";

/// Gives the columns of a derived table that have one name names of their own: a reference to any of them is ambiguous.
/// Answers whether there are such.
pub fn tell_twins(items: &mut [SelectItem]) -> bool {
    let names: Vec<Option<String>> = items.iter().map(written_name).collect();
    let twins: HashSet<String> = twice(names.iter().flatten()).into_iter().collect();
    for (at, item) in items.iter_mut().enumerate() {
        let (Some(name), SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
            (names[at].as_ref().filter(|name| twins.contains(*name)), &*item)
        else {
            continue;
        };
        let alias = Ident::with_quote('"', format!("{TWIN}{at}_{name}"));
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
    !twins.is_empty()
}

/// The names that come more than once.
pub fn twice<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut counts: HashMap<&String, usize> = HashMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    counts.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name.clone()).collect()
}

/// What a column was called that `tell_twins` has renamed.
pub fn of_twin(name: &str) -> Option<&str> {
    name.strip_prefix(TWIN)?.split_once('_').map(|(_, name)| name)
}

/// What a column is called outside that has a name of ours.
fn shown(inner: &str) -> &str {
    let again = |name: &str| name.split_once('_').map(|(_, name)| name.len());
    match (of_twin(inner), inner.strip_prefix(AGAIN), inner.starts_with(SHOWN)) {
        (Some(name), ..) => name,
        (_, Some(rest), _) => again(rest).map_or("?column?", |length| &inner[inner.len() - length..]),
        (.., true) => "?column?",
        _ => inner,
    }
}

/// What a column is called, where it is a column or has an alias.
pub fn written_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) | SelectItem::ExprWithAlias { alias: name, .. } => {
            Some(fold(name).text)
        }
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => names.last().map(|name| fold(name).text),
        _ => None,
    }
}

/// What the columns of a result are called where their text gives them no name, as PostgreSQL has it; None for one that can not
/// be named. None when a wildcard hides how many there are.
pub fn implied(select: &Select) -> Option<Vec<Option<String>>> {
    let name = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) => Some(implied_name(expr)),
        SelectItem::ExprWithAlias { alias, .. } => Some(Some(fold(alias).text)),
        _ => None,
    };
    select.projection.iter().map(name).collect()
}

fn implied_name(expr: &Expr) -> Option<String> {
    let word = match expr {
        Expr::Identifier(name) => return Some(fold(name).text),
        Expr::CompoundIdentifier(names) => return names.last().map(|name| fold(name).text),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => return implied_name(inner),
        Expr::Function(function) => match function.name.0.last()? {
            ObjectNamePart::Identifier(name) => return Some(fold(name).text),
            _ => return None,
        },
        Expr::Case { else_result: Some(other), .. } => return implied_name(other).or_else(|| Some("case".to_owned())),
        Expr::Subquery(query) => {
            return implied(first_select(&query.body)?)?.into_iter().next()?;
        }
        Expr::Case { .. } => "case",
        Expr::Exists { .. } => "exists",
        Expr::Substring { shorthand: true, .. } => "substr",
        Expr::Substring { .. } => "substring",
        Expr::Position { .. } => "position",
        Expr::Overlay { .. } => "overlay",
        Expr::Extract { .. } => "extract",
        Expr::Ceil { .. } => "ceil",
        Expr::Floor { .. } => "floor",
        Expr::Trim { trim_where: Some(TrimWhereField::Leading), .. } => "ltrim",
        Expr::Trim { trim_where: Some(TrimWhereField::Trailing), .. } => "rtrim",
        Expr::Trim { .. } => "btrim",
        _ => return None,
    };
    Some(word.to_owned())
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
