//! `SELECT *` over joins with USING and NATURAL joins: the common columns come first, then what else the left side has, then
//! what else the right side has. The engine leaves them where they stand on the left.

use crate::cluster::Schema;
use crate::front::parse::fold;
use sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, ObjectNamePart, Select, SelectItem, TableFactor, TableWithJoins,
};

/// A column of the joined rows: its name, and how it is written.
type Output = (String, Expr);

/// Writes the columns out when all sides are tables; `is_other` tells names that stand for something else in this query.
pub fn spell_out(select: &mut Select, schema: &dyn Schema, is_other: impl Fn(&str) -> bool) {
    let [from] = &select.from[..] else { return };
    let is_plain = |item: &SelectItem| matches!(item, SelectItem::Wildcard(options) if *options == Default::default());
    if !select.projection.iter().any(is_plain) {
        return;
    }
    let Some(columns) = joined(from, schema, &is_other) else { return };
    let spelled = |item: SelectItem| match is_plain(&item) {
        true => columns.iter().map(|(_, expr)| SelectItem::UnnamedExpr(expr.clone())).collect(),
        false => vec![item],
    };
    select.projection = std::mem::take(&mut select.projection).into_iter().flat_map(spelled).collect();
}

/// The columns in the standard's order; None when nothing is joined by names, or a side is no table.
fn joined(from: &TableWithJoins, schema: &dyn Schema, is_other: &impl Fn(&str) -> bool) -> Option<Vec<Output>> {
    let mut columns = columns_of(&from.relation, schema, is_other)?;
    let mut has_common = false;
    for join in &from.joins {
        let right = columns_of(&join.relation, schema, is_other)?;
        let common: Vec<String> = match constraint(&join.join_operator)? {
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
        has_common |= !common.is_empty();
        // Of the two, the left one: rows that have no right side have it too.
        let left_of = |name: &String| columns.iter().find(|(other, _)| other == name).cloned();
        let first = common.iter().map(left_of).collect::<Option<Vec<Output>>>()?;
        let rest = columns.into_iter().chain(right).filter(|(name, _)| !common.contains(name));
        columns = first.into_iter().chain(rest).collect();
    }
    has_common.then_some(columns)
}

/// The condition of a join whose rows have the left side's columns as they are.
fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => {
            Some(on)
        }
        JoinOperator::CrossJoin(_) => Some(&JoinConstraint::None),
        _ => None,
    }
}

fn columns_of(relation: &TableFactor, schema: &dyn Schema, is_other: &impl Fn(&str) -> bool) -> Option<Vec<Output>> {
    let TableFactor::Table { name, alias, args: None, .. } = relation else { return None };
    let [ObjectNamePart::Identifier(ident)] = &name.0[..] else { return None };
    if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
        return None;
    }
    let name = fold(ident).text;
    let table = if is_other(&name) { None } else { schema.table(&name) }?;
    let qualifier = alias.as_ref().map_or_else(|| Ident::with_quote('"', &name), |alias| alias.name.clone());
    let column = |at: usize| {
        let name = &table.columns[at].name;
        let parts = vec![qualifier.clone(), Ident::with_quote('"', name)];
        (name.clone(), Expr::CompoundIdentifier(parts))
    };
    Some(table.visible().map(column).collect())
}
