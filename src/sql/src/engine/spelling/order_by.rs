//! What ORDER BY goes by: names of the result before names of tables, and of a set operation nothing but its result.

use super::{Speller, is_wild, joins, leftmost, named_alone, null, position_of, wildcards};
use crate::engine::names;
use crate::front::parse::fold;
use crate::walk;
use model::{Code, Error, Result};
use sqlparser::ast::{self, Distinct, Expr, Ident, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr};

impl Speller<'_> {
    /// Errors: `NoSuchColumn` for a column that a set operation does not show.
    pub fn order_by(&mut self, query: &mut Query) -> Result<()> {
        let Some(order_by) = &mut query.order_by else { return Ok(()) };
        let OrderByKind::Expressions(sorts) = &mut order_by.kind else { return Ok(()) };
        sorts.iter_mut().for_each(bare);
        let is_set = matches!(&*query.body, SetExpr::SetOperation { .. });
        if let Some(select) = first_select(&mut query.body)
            && !matches!(select.distinct, Some(Distinct::On(_)))
        {
            self.by_outputs(sorts, select, is_set)?;
        }
        self.hidden_columns_written(query)?;
        self.common_columns_written(query)
    }

    /// Has sort keys name columns of the result by names that are nothing else's: those that are places or implied names, which
    /// the planner does not know or takes for something else, and all of a set operation.
    fn by_outputs(&mut self, sorts: &mut [OrderByExpr], select: &mut Select, is_set: bool) -> Result<()> {
        let Some(mut names) = names::implied(select) else { return Ok(()) };
        for OrderByExpr { expr, .. } in sorts {
            if let Some(at) = position_of(expr) {
                self.point_to(expr, at, select, false);
            } else if let Expr::Identifier(name) = &*expr {
                if let Some(at) = only_place(&names, &fold(name).text) {
                    self.point_to(expr, at, select, is_set);
                }
            } else if let Some(at) = place_of_distinct(expr, select) {
                self.point_to(expr, at, select, false);
                if let Some(SelectItem::ExprWithAlias { alias, .. }) = select.projection.get(at) {
                    *expr = Expr::Identifier(alias.clone());
                }
            } else if is_set {
                for (at, name) in names.iter().enumerate() {
                    let Some(name) = name.as_ref().filter(|name| only_place(&names, name) == Some(at)) else {
                        continue;
                    };
                    let mut output = Expr::Identifier(Ident::with_quote('"', name));
                    self.point_to(&mut output, at, select, is_set);
                    joins::write_whole(expr, vec![(name.clone(), output)])?;
                }
            }
            if is_set {
                names.extend(select.projection.iter().map(named_alone));
                walk::change(expr, &mut OfOutputs { names: &names, depth: 0 })?;
                names.truncate(select.projection.len());
            }
        }
        Ok(())
    }

    /// Names a column of the result in a sort key; the planner knows by itself those that have a name, and tables' columns where
    /// nothing else is called so.
    fn point_to(&mut self, key: &mut Expr, at: usize, select: &mut Select, has_columns_too: bool) {
        let Some(item) = select.projection.get_mut(at) else { return };
        match item {
            SelectItem::UnnamedExpr(shown) if has_columns_too || !is_column(shown) => {
                self.names += 1;
                let alias = Ident::new(format!("{}{}", names::SHOWN, self.names));
                *key = Expr::Identifier(alias.clone());
                *item = SelectItem::ExprWithAlias { expr: shown.clone(), alias };
            }
            SelectItem::ExprWithAlias { alias, .. } if alias.value.starts_with(names::SHOWN) => {
                *key = Expr::Identifier(alias.clone());
            }
            _ => {}
        }
    }

    /// Has ORDER BY say what a common column stands for; a name by itself is that of a column of the result, if there is one.
    fn common_columns_written(&self, query: &mut Query) -> Result<()> {
        let (Some(order_by), SetExpr::Select(select)) = (&mut query.order_by, &*query.body) else { return Ok(()) };
        let ast::OrderByKind::Expressions(sorts) = &mut order_by.kind else { return Ok(()) };
        let common = wildcards::common_columns(select, self.schema, |name| self.scopes.is_defined(name));
        for ast::OrderByExpr { expr, .. } in sorts {
            let is_result = |name: &Ident| select.projection.iter().any(|item| shows(item, &fold(name).text));
            if !matches!(expr, Expr::Identifier(name) if is_result(name)) {
                joins::write_whole(expr, common.clone())?;
            }
        }
        Ok(())
    }

    /// In an expression of ORDER BY a name is that of a table's column, also when a column of the result has it; the planner
    /// takes it for the result's. That one gets another name then, in the outermost query, where `names` names results.
    fn hidden_columns_written(&mut self, query: &mut Query) -> Result<()> {
        let (Some(order_by), SetExpr::Select(select)) = (&mut query.order_by, &mut *query.body) else { return Ok(()) };
        let ast::OrderByKind::Expressions(sorts) = &mut order_by.kind else { return Ok(()) };
        // Above groups and DISTINCT only what they show is there.
        let is_grouped = !matches!(&select.group_by, ast::GroupByExpr::Expressions(groups, _) if groups.is_empty());
        let is_named_whole = select.projection.iter().filter(|item| is_wild(item)).count() < 2;
        if is_grouped || select.distinct.is_some() || !is_named_whole || self.scopes.is_nested() {
            return Ok(());
        }
        for (name, column) in wildcards::columns_by_name(select, self.schema, |name| self.scopes.is_defined(name)) {
            let items = select.projection.iter_mut();
            let aliases: Vec<&mut Ident> = items
                .filter_map(|item| match item {
                    SelectItem::ExprWithAlias { alias, .. } if fold(alias).text == name => Some(alias),
                    _ => None,
                })
                .collect();
            if aliases.is_empty() {
                continue;
            }
            let mut is_used = false;
            let (alone, computed): (Vec<_>, Vec<_>) =
                sorts.iter_mut().map(|sort| &mut sort.expr).partition(|expr| matches!(expr, Expr::Identifier(_)));
            for expr in computed {
                let before = expr.clone();
                joins::write_whole(expr, vec![(name.clone(), column.clone())])?;
                is_used |= *expr != before;
            }
            if is_used {
                self.names += 1;
                let other = Ident::with_quote('"', format!("{}{}_{name}", names::AGAIN, self.names));
                let is_result = |expr: &&mut Expr| matches!(expr, Expr::Identifier(alone) if fold(alone).text == name);
                alone.into_iter().filter(is_result).for_each(|expr| *expr = Expr::Identifier(other.clone()));
                aliases.into_iter().for_each(|alias| *alias = other.clone());
            }
        }
        Ok(())
    }
}

/// Takes the parentheses around a whole sort key away: a name in them is a name by itself.
fn bare(sort: &mut OrderByExpr) {
    while let Expr::Nested(inner) = &mut sort.expr {
        sort.expr = std::mem::replace(&mut **inner, null());
    }
}

/// The place of a computed column of DISTINCT, which is ordered by what is written there once more.
fn place_of_distinct(key: &Expr, select: &Select) -> Option<usize> {
    if select.distinct.is_none() || is_column(key) {
        return None;
    }
    let written = key.to_string();
    select.projection.iter().position(|item| match item {
        SelectItem::UnnamedExpr(Expr::Nested(expr)) | SelectItem::ExprWithAlias { expr: Expr::Nested(expr), .. } => {
            expr.to_string() == written
        }
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.to_string() == written,
        _ => false,
    })
}

/// The place of the one column of a result that is called so.
fn only_place(names: &[Option<String>], name: &str) -> Option<usize> {
    let mut places = (0..names.len()).filter(|at| names[*at].as_deref() == Some(name));
    places.next().filter(|_| places.next().is_none())
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// The query whose columns a query shows: of a set operation, its first operand.
fn first_select(body: &mut SetExpr) -> Option<&mut Select> {
    match leftmost(body) {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

/// Refuses names that are none of a set operation's columns.
struct OfOutputs<'a> {
    names: &'a [Option<String>],
    /// Queries inside one another: names in a subquery are its own.
    depth: usize,
}

impl walk::Change for OfOutputs<'_> {
    fn enter_query(&mut self, _: &mut Query) -> Result<()> {
        self.depth += 1;
        Ok(())
    }

    fn leave_query(&mut self, _: &mut Query) -> Result<()> {
        self.depth -= 1;
        Ok(())
    }

    fn enter_expr(&mut self, expr: &mut Expr) -> Result<()> {
        let name = match expr {
            Expr::Identifier(name) if self.depth == 0 => fold(name).text,
            Expr::CompoundIdentifier(names) if self.depth == 0 => {
                names.iter().map(|name| fold(name).text).collect::<Vec<_>>().join(".")
            }
            _ => return Ok(()),
        };
        if self.names.iter().flatten().any(|known| *known == name) {
            return Ok(());
        }
        let hint = "ORDER BY of a set operation goes by the columns of its result, which have the first query's names";
        Err(Error::new(Code::NoSuchColumn, format!("column \"{name}\" does not exist")).with_hint(hint))
    }
}

/// Whether a column of the result has, or may have, this name.
fn shows(item: &SelectItem, name: &str) -> bool {
    match item {
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => {
            names.last().is_some_and(|last| fold(last).text == name)
        }
        SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. } => {
            named_alone(item).is_some_and(|alone| alone == name)
        }
        _ => true,
    }
}
