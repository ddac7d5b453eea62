//! `SELECT *` over joins with USING and NATURAL joins: the common columns come first, then what else the left side has, then
//! what else the right side has. The engine leaves them where they stand on the left.
//!
//! A common column is the left side's, but of a RIGHT join the right side's, and of a FULL join whichever is there. So it is
//! written in WHERE too, where the engine takes one that is named alone for ambiguous. NATURAL RIGHT and FULL joins, which
//! the engine has not, get USING.

use super::{joins, names};
use crate::cluster::Schema;
use crate::front::PUBLIC;
use crate::front::parse::fold;
use model::Result;
use sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableFactor, TableWithJoins, Value,
};

/// A column of the joined rows: its name, and how it is written.
type Output = (String, Expr);

/// Writes the columns out when all sides are tables, or subqueries that name their columns; `is_other` tells names that stand
/// for something else in this query.
///
/// Errors: `Unsupported` for a LEFT join of other sides, of which the engine would show any side's column.
pub fn spell_out(select: &mut Select, schema: &dyn Schema, is_other: impl Fn(&str) -> bool) -> Result<()> {
    let joined: Vec<Option<Joined>> = select.from.iter_mut().map(|from| joined(from, schema, &is_other)).collect();
    let is_plain = |item: &SelectItem| matches!(item, SelectItem::Wildcard(options) if *options == Default::default());
    let [Some(Joined { columns, common })] = &joined[..] else {
        let is_left = |from: &TableWithJoins| from.joins.iter().any(|join| is_left_by_names(&join.join_operator));
        let shows_all = select.projection.iter().any(is_plain);
        if shows_all && select.from.iter().any(is_left) {
            return joins::unsupported("SELECT * over a LEFT join with USING of what is no table");
        }
        let is_joined = |from: &TableWithJoins| {
            let sides = std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation));
            !from.joins.is_empty() && sides.clone().any(is_joined_by_names)
        };
        if shows_all && select.from.iter().any(is_joined) {
            return joins::unsupported("SELECT * over a join with USING or NATURAL inside another join");
        }
        return Ok(());
    };
    let shown = |(name, expr): &Output| match expr {
        Expr::CompoundIdentifier(_) => SelectItem::UnnamedExpr(expr.clone()),
        whole => SelectItem::ExprWithAlias { expr: whole.clone(), alias: Ident::with_quote('"', name) },
    };
    let spelled = |item: SelectItem| match is_plain(&item) {
        true => columns.iter().map(shown).collect(),
        false => vec![item],
    };
    select.projection = std::mem::take(&mut select.projection).into_iter().flat_map(spelled).collect();
    match select.from.iter().all(|from| from.joins.len() < 2) {
        true => joins::write_whole(&mut select.selection, common.clone()),
        // A name that several joins have in common the planner takes for one of several tables.
        false => joins::coalesce(select, common.clone()),
    }
}

/// What the columns stand for that the sides of a join have in common, when all sides are tables.
pub fn common_columns(select: &Select, schema: &dyn Schema, is_other: impl Fn(&str) -> bool) -> Vec<Output> {
    match &select.from[..] {
        [from] if !from.joins.is_empty() => {
            joined(&mut from.clone(), schema, &is_other).map_or(Vec::new(), |j| j.common)
        }
        _ => Vec::new(),
    }
}

/// The columns that can be named alone, with their tables, when FROM has nothing but tables.
pub fn columns_by_name(select: &Select, schema: &dyn Schema, is_other: impl Fn(&str) -> bool) -> Vec<Output> {
    let joined = |from: &TableWithJoins| from.joins.iter().map(|join| join.relation.clone()).collect::<Vec<_>>();
    let relations = select.from.iter().flat_map(|from| std::iter::once(from.relation.clone()).chain(joined(from)));
    let columns: Option<Vec<Vec<Output>>> =
        relations.map(|relation| columns_of(&relation, schema, &is_other)).collect();
    let columns: Vec<Output> = columns.unwrap_or_default().into_iter().flatten().collect();
    let is_alone = |(name, _): &&Output| columns.iter().filter(|(other, _)| other == name).count() == 1;
    columns.iter().filter(is_alone).cloned().collect()
}

/// The names of the columns that the wildcards of a SELECT stand for; None where a side is no table.
pub fn names_brought(select: &Select, schema: &dyn Schema, is_other: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for item in &select.projection {
        let of = match item {
            SelectItem::Wildcard(_) => None,
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(table), _) => {
                Some(table.0.last()?.as_ident().map(|ident| fold(ident).text)?)
            }
            _ => continue,
        };
        for from in &select.from {
            for relation in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
                let columns = columns_of(relation, schema, &is_other)?;
                let is_of = |expr: &Expr| match (expr, &of) {
                    (_, None) => true,
                    (Expr::CompoundIdentifier(parts), Some(table)) => fold(&parts[0]).text == *table,
                    _ => false,
                };
                names.extend(columns.into_iter().filter(|(_, expr)| is_of(expr)).map(|(name, _)| name));
            }
        }
    }
    Some(names)
}

/// What is known of a FROM.
struct Joined {
    /// In the standard's order.
    columns: Vec<Output>,
    /// Those of them that its sides have in common.
    common: Vec<Output>,
}

/// Which rows of a join have what in a common column.
enum Common {
    Left,
    Right,
    Either,
}

/// None when nothing is joined by names, or a side is no table.
fn joined(from: &mut TableWithJoins, schema: &dyn Schema, is_other: &impl Fn(&str) -> bool) -> Option<Joined> {
    let mut columns = columns_of(&from.relation, schema, is_other)?;
    let mut all_common: Vec<Output> = Vec::new();
    for join in &mut from.joins {
        let right = columns_of(&join.relation, schema, is_other)?;
        let (whose, constraint) = constraint(&mut join.join_operator)?;
        let common: Vec<String> = match &*constraint {
            JoinConstraint::Using(names) => names
                .iter()
                .map(|name| match name.0.last() {
                    Some(ObjectNamePart::Identifier(name)) => Some(fold(name).text),
                    _ => None,
                })
                .collect::<Option<_>>()?,
            JoinConstraint::Natural => {
                let is_common = |(name, _): &&Output| right.iter().any(|(other, _)| other == name);
                columns.iter().filter(is_common).map(|(name, _)| name.clone()).collect()
            }
            _ => Vec::new(),
        };
        if matches!((&whose, &*constraint), (Common::Right | Common::Either, JoinConstraint::Natural)) {
            *constraint = by_name(&common);
        }
        let of = |side: &[Output], name: &String| side.iter().find(|(other, _)| other == name).cloned();
        let whole = |name: &String| match whose {
            Common::Left => of(&columns, name),
            Common::Right => of(&right, name),
            Common::Either => {
                let sides = vec![of(&columns, name)?.1, of(&right, name)?.1];
                Some((name.clone(), super::call("coalesce", sides)))
            }
        };
        let first = common.iter().map(whole).collect::<Option<Vec<Output>>>()?;
        all_common.retain(|(name, _)| !common.contains(name));
        all_common.extend(first.iter().cloned());
        let rest = columns.into_iter().chain(right).filter(|(name, _)| !common.contains(name));
        columns = first.into_iter().chain(rest).collect();
    }
    (!all_common.is_empty()).then_some(Joined { columns, common: all_common })
}

/// The condition of a NATURAL join over these columns.
fn by_name(common: &[String]) -> JoinConstraint {
    if common.is_empty() {
        return JoinConstraint::On(Expr::Value(Value::Boolean(true).into()));
    }
    let name = |name: &String| ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', name))]);
    JoinConstraint::Using(common.iter().map(name).collect())
}

fn is_joined_by_names(factor: &TableFactor) -> bool {
    let TableFactor::NestedJoin { table_with_joins, .. } = factor else { return false };
    let by_names = |operator: &JoinOperator| {
        let operator = &mut operator.clone();
        constraint(operator).is_some_and(|(_, on)| matches!(on, JoinConstraint::Using(_) | JoinConstraint::Natural))
    };
    let sides = std::iter::once(&table_with_joins.relation).chain(table_with_joins.joins.iter().map(|j| &j.relation));
    table_with_joins.joins.iter().any(|join| by_names(&join.join_operator)) || sides.clone().any(is_joined_by_names)
}

fn is_left_by_names(operator: &JoinOperator) -> bool {
    matches!(
        operator,
        JoinOperator::Left(JoinConstraint::Using(_) | JoinConstraint::Natural)
            | JoinOperator::LeftOuter(JoinConstraint::Using(_) | JoinConstraint::Natural)
    )
}

/// The condition of a join of two sides.
fn constraint(operator: &mut JoinOperator) -> Option<(Common, &mut JoinConstraint)> {
    match operator {
        JoinOperator::Join(on)
        | JoinOperator::Inner(on)
        | JoinOperator::Left(on)
        | JoinOperator::LeftOuter(on)
        | JoinOperator::CrossJoin(on) => Some((Common::Left, on)),
        JoinOperator::Right(on) | JoinOperator::RightOuter(on) => Some((Common::Right, on)),
        JoinOperator::FullOuter(on) => Some((Common::Either, on)),
        _ => None,
    }
}

fn columns_of(relation: &TableFactor, schema: &dyn Schema, is_other: &impl Fn(&str) -> bool) -> Option<Vec<Output>> {
    if let TableFactor::Derived { subquery, alias: Some(alias), .. } = relation {
        let names = match &alias.columns[..] {
            [] => written_names(&subquery.body)?,
            columns => columns.iter().map(|column| fold(&column.name).text).collect(),
        };
        let column = |name: String| {
            let parts = vec![alias.name.clone(), Ident::with_quote('"', &name)];
            (name, Expr::CompoundIdentifier(parts))
        };
        return Some(names.into_iter().map(column).collect());
    }
    let TableFactor::Table { name, alias, args: None, .. } = relation else { return None };
    // What a view reads is written with its schema, so that no name of the query around it is taken for it.
    let (ident, is_table) = match &name.0[..] {
        [ObjectNamePart::Identifier(ident)] => (ident, false),
        [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(ident)] if fold(schema).text == PUBLIC => {
            (ident, true)
        }
        _ => return None,
    };
    if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
        return None;
    }
    let name = fold(ident).text;
    let table = if !is_table && is_other(&name) { None } else { schema.table(&name) }?;
    let qualifier = alias.as_ref().map_or_else(|| Ident::with_quote('"', &name), |alias| alias.name.clone());
    let column = |at: usize| {
        let name = &table.columns[at].name;
        let parts = vec![qualifier.clone(), Ident::with_quote('"', name)];
        (name.clone(), Expr::CompoundIdentifier(parts))
    };
    Some(table.visible().map(column).collect())
}

/// The columns of a query that has names for all of them.
fn written_names(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::Query(query) => written_names(&query.body),
        SetExpr::SetOperation { left, .. } => written_names(left),
        SetExpr::Select(select) => {
            let names: Vec<String> = select.projection.iter().map(names::written_name).collect::<Option<_>>()?;
            let is_alone = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
            names.iter().all(is_alone).then_some(names)
        }
        _ => None,
    }
}
