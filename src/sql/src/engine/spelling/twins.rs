//! Columns of a derived table that have one name: they get names that nobody sees, and a reference to that name is ambiguous.

use super::{leftmost, name_of_call, names};
use crate::front::parse::fold;
use crate::walk;
use model::{Code, Error, Result};
use sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, OrderByKind, Query, Select, SelectItem, SetExpr, TableAlias,
    TableAliasColumnDef, TableFactor, TableWithJoins,
};

/// Gives the columns of a query that stands for a table names of their own where they have one in common, and its alias, if it
/// names some of the columns, the names of the others.
///
/// Errors: `InvalidStatement` for a query that is ordered by one of several columns.
pub fn tell_apart(query: &mut Query, alias: Option<&mut TableAlias>) -> Result<()> {
    let SetExpr::Select(select) = leftmost(&mut query.body) else { return Ok(()) };
    if let Some(alias) = alias.filter(|alias| !alias.columns.is_empty()) {
        let known: Option<Vec<String>> = select.projection.iter().map(names::written_name).collect();
        let rest = known.into_iter().flatten().skip(alias.columns.len());
        let column = |name: String| TableAliasColumnDef { name: Ident::with_quote('"', name), data_type: None };
        alias.columns.extend(rest.map(column));
    }
    let before: Vec<(Option<String>, SelectItem)> =
        select.projection.iter().map(|item| (names::written_name(item), item.clone())).collect();
    if !names::tell_twins(&mut select.projection) {
        return Ok(());
    }
    let after = select.projection.clone();
    let Some(OrderByKind::Expressions(sorts)) = query.order_by.as_mut().map(|order_by| &mut order_by.kind) else {
        return Ok(());
    };
    for sort in sorts {
        let Expr::Identifier(name) = &sort.expr else { continue };
        let name = fold(name).text;
        let places: Vec<usize> = (0..before.len()).filter(|at| before[*at].0.as_ref() == Some(&name)).collect();
        let [first, rest @ ..] = &places[..] else { continue };
        if rest.iter().any(|at| expr_of(&before[*at].1) != expr_of(&before[*first].1)) {
            return Err(ambiguous(&name));
        }
        if let (false, SelectItem::ExprWithAlias { alias, .. }) = (rest.is_empty(), &after[*first]) {
            sort.expr = Expr::Identifier(alias.clone());
        }
    }
    Ok(())
}

fn expr_of(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr.to_string()),
        _ => None,
    }
}

/// The names that several columns of such a query have.
pub fn of_query(query: &Query, alias: Option<&TableAlias>) -> Vec<String> {
    let Some(select) = names::first_select(&query.body) else { return Vec::new() };
    let renamed = alias.map_or(&[][..], |alias| &alias.columns[..]);
    let named = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) => names::written_name(item).or_else(|| name_of_call(expr)),
        item => names::written_name(item),
    };
    let mut all: Vec<Option<String>> = select.projection.iter().map(named).collect();
    for (name, column) in all.iter_mut().zip(renamed) {
        *name = Some(fold(&column.name).text);
    }
    names::twice(all.iter().flatten())
}

/// Refuses a SELECT that refers to such a column; without this the name could be taken for another table's.
///
/// Errors: `InvalidStatement`.
pub fn check(select: &mut Select, of_with: impl Fn(&str) -> Vec<String>) -> Result<()> {
    let mut twins = Vec::new();
    select.from.iter().for_each(|from| collect(from, &of_with, &mut twins));
    if twins.is_empty() {
        return Ok(());
    }
    if select.from.iter().flat_map(|from| &from.joins).any(|join| is_natural(&join.join_operator)) {
        return Err(ambiguous(&twins[0]));
    }
    let mut references = References { twins: &twins, depth: 0 };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            walk::change(expr, &mut references)?;
        }
    }
    walk::change(&mut select.selection, &mut references)?;
    walk::change(&mut select.having, &mut references)
}

pub fn ambiguous(name: &str) -> Error {
    Error::new(Code::InvalidStatement, format!("column \"{name}\" could be one of several"))
        .with_hint("name the columns apart with AS in the subquery")
}

fn collect(from: &TableWithJoins, of_with: &impl Fn(&str) -> Vec<String>, twins: &mut Vec<String>) {
    for relation in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
        match relation {
            TableFactor::Derived { subquery, alias, .. } => twins.extend(of_query(subquery, alias.as_ref())),
            TableFactor::NestedJoin { table_with_joins, .. } => collect(table_with_joins, of_with, twins),
            TableFactor::Table { name, args: None, .. } if name.0.len() == 1 => {
                let ident = name.0[0].as_ident();
                twins.extend(ident.map_or(Vec::new(), |ident| of_with(&fold(ident).text)));
            }
            _ => {}
        }
    }
}

fn is_natural(operator: &JoinOperator) -> bool {
    use JoinConstraint::Natural;
    use JoinOperator as J;
    matches!(operator, J::Join(Natural) | J::Inner(Natural) | J::Left(Natural) | J::LeftOuter(Natural))
        || matches!(operator, J::Right(Natural) | J::RightOuter(Natural) | J::FullOuter(Natural))
}

struct References<'a> {
    twins: &'a [String],
    /// Queries inside one another: names in a subquery may be its own.
    depth: usize,
}

impl walk::Change for References<'_> {
    fn enter_query(&mut self, _: &mut Query) -> Result<()> {
        self.depth += 1;
        Ok(())
    }

    fn leave_query(&mut self, _: &mut Query) -> Result<()> {
        self.depth -= 1;
        Ok(())
    }

    fn enter_expr(&mut self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::Identifier(name) if self.depth == 0 => {
                let name = fold(name).text;
                if self.twins.contains(&name) { Err(ambiguous(&name)) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}
