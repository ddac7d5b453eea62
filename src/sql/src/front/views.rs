//! Views in queries: each gives way to its own query, in parentheses and under its name.
//!
//! Names follow their scopes: a common table expression hides a view of its name, but not inside the view. What a view
//! reads is read as it was meant when the view was made: tables are qualified, so that no name of the outer query can
//! come between, and columns are taken by their names, so that a table may grow.

use super::change::{quoted, template};
use super::parse::{fold, parse};
use super::queries::ResultColumn;
use super::statement::{Name, Statement};
use crate::cluster::Schema;
use crate::walk::{self, Change};
use model::schema::VIEW_DEPTH_MAX;
use model::{Code, Error, Result, View};
use sqlparser::ast::{Expr, ObjectNamePart, Query, SelectItem, SetExpr, TableAlias, TableFactor, VisitMut, With};
use std::collections::BTreeSet;

/// Views in one statement, those in views included.
const EXPANSIONS_MAX: usize = 1_000;
/// The schema that tables are in, for the engine.
pub const PUBLIC: &str = "public";

/// Puts the queries of views in the place of their names.
///
/// Errors: `LimitExceeded` for too many or too deep views.
pub(super) fn expand(tree: &mut impl VisitMut, schema: &dyn Schema) -> Result<()> {
    if !schema.has_views() {
        return Ok(());
    }
    let mut expansion = Expansion { schema, left: EXPANSIONS_MAX };
    walk_tables(tree, |factor, name| expansion.replace(factor, &name, 0))
}

/// The tables and views that a query names, not those inside views.
pub(super) fn names_of(query: &Query) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    walk_tables(&mut query.clone(), |_, name| {
        names.insert(name);
        Ok(())
    })?;
    Ok(names)
}

/// Calls `on_table` for each table in FROM that is named by one part and is no common table expression.
fn walk_tables(tree: &mut impl VisitMut, on_table: impl FnMut(&mut TableFactor, String) -> Result<()>) -> Result<()> {
    walk::change(tree, &mut Walker { scopes: Vec::new(), held: Vec::new(), on_table })
}

struct Walker<F> {
    /// Names of the common table expressions that the place can see.
    scopes: Vec<Vec<String>>,
    /// WITH clauses of the queries around, which have been walked already.
    held: Vec<Option<With>>,
    on_table: F,
}

impl<F: FnMut(&mut TableFactor, String) -> Result<()>> Change for Walker<F> {
    fn enter_query(&mut self, query: &mut Query) -> Result<()> {
        let mut with = query.with.take();
        let mut names: Vec<String> = Vec::new();
        if let Some(with) = &mut with {
            let all = with.cte_tables.iter().map(|cte| fold(&cte.alias.name).text);
            if with.recursive {
                names.extend(all);
            }
            for cte in &mut with.cte_tables {
                // It sees those before it, and itself where it may be recursive.
                self.scopes.push(names.clone());
                let walked = walk::change(&mut cte.query, self);
                self.scopes.pop();
                walked?;
                names.push(fold(&cte.alias.name).text);
            }
        }
        self.scopes.push(names);
        self.held.push(with);
        Ok(())
    }

    fn leave_query(&mut self, query: &mut Query) -> Result<()> {
        self.scopes.pop();
        query.with = self.held.pop().flatten();
        Ok(())
    }

    fn enter_table(&mut self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Table { name, args: None, .. } = &*factor else { return Ok(()) };
        let [ObjectNamePart::Identifier(ident)] = &name.0[..] else { return Ok(()) };
        let name = fold(ident).text;
        if self.scopes.iter().flatten().any(|known| *known == name) {
            return Ok(());
        }
        (self.on_table)(factor, name)
    }
}

/// Says that a name in FROM is a table's, whatever the query calls so.
pub(super) fn qualify(factor: &mut TableFactor, name: &str) {
    let TableFactor::Table { name: written, alias, .. } = factor else { return };
    if written.0.len() == 1 {
        // Without one, `t.*` is of no table any more.
        alias.get_or_insert_with(|| TableAlias { explicit: true, name: quoted(name), columns: Vec::new(), at: None });
        written.0.insert(0, ObjectNamePart::Identifier(quoted(PUBLIC)));
    }
}

struct Expansion<'a> {
    schema: &'a dyn Schema,
    left: usize,
}

impl Expansion<'_> {
    /// A table in FROM, `depth` views deep, becomes the query that it stands for if it is a view.
    fn replace(&mut self, factor: &mut TableFactor, name: &str, depth: usize) -> Result<()> {
        let TableFactor::Table { alias, .. } = &mut *factor else { return Ok(()) };
        let Some(view) = self.schema.view(name) else {
            if depth > 0 {
                qualify(factor, name);
            }
            return Ok(());
        };
        let too_many = |message: String| Err(Error::new(Code::LimitExceeded, message));
        if depth >= VIEW_DEPTH_MAX {
            return too_many(format!("views over views are at most {VIEW_DEPTH_MAX} deep"));
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return too_many(format!("a statement reads at most {EXPANSIONS_MAX} views")),
        };
        let alias = alias.take().unwrap_or_else(|| TableAlias {
            explicit: true,
            name: quoted(name),
            columns: Vec::new(),
            at: None,
        });
        let subquery = self.query_of(&view, depth + 1)?;
        *factor = TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None };
        Ok(())
    }

    /// `SELECT inner AS outer, ... FROM (the view's query) AS name`
    fn query_of(&mut self, view: &View, depth: usize) -> Result<Box<Query>> {
        let mut inner = query_in(&view.text)?;
        walk_tables(&mut inner, |factor, name| self.replace(factor, &name, depth))?;
        let mut query = template("SELECT 1 FROM (SELECT 1) AS v")?;
        let SetExpr::Select(select) = &mut *query.body else { return Err(Error::internal("a template is no SELECT")) };
        let item = |(inner, outer): &(String, String)| SelectItem::ExprWithAlias {
            expr: Expr::Identifier(quoted(inner)),
            alias: quoted(outer),
        };
        select.projection = view.columns.iter().map(item).collect();
        for from in &mut select.from {
            if let TableFactor::Derived { subquery, alias: Some(alias), .. } = &mut from.relation {
                std::mem::swap(subquery, &mut inner);
                alias.name = quoted(&view.name);
            }
        }
        Ok(query)
    }
}

/// The query with LIMIT 0: its columns are all that is asked for.
pub(super) fn without_rows(query: &Query) -> Result<Box<Query>> {
    let mut probe = Box::new(query.clone());
    probe.limit_clause = template("SELECT 1 LIMIT 0")?.limit_clause;
    probe.fetch = None;
    Ok(probe)
}

fn query_in(text: &str) -> Result<Box<Query>> {
    match parse(text)?.statement {
        Statement::Query(query) => Ok(query),
        other => Err(Error::internal(format!("a view is a query, not {}", other.kind()))),
    }
}

/// The definition of a view whose query has these columns.
///
/// Errors: `InvalidStatement` when columns have no name, or two the same.
pub(super) fn define(name: &Name, columns: &[Name], query: &Query, found: &[ResultColumn]) -> Result<View> {
    let invalid = |message: String| Err(Error::new(Code::InvalidStatement, message));
    if columns.len() > found.len() {
        return invalid(format!("the query has {} columns, {} are named", found.len(), columns.len()));
    }
    let mut query = query.clone();
    name_columns(&mut query.body, found)?;
    let mut pairs = Vec::with_capacity(found.len());
    for (at, column) in found.iter().enumerate() {
        let outer = columns.get(at).map_or(column.name.clone(), |name| name.text.clone());
        if found[..at].iter().any(|other| other.name == column.name) {
            let message = format!("the query of view \"{}\" has two columns named \"{}\"", name.text, column.name);
            return Err(Error::new(Code::InvalidStatement, message).with_hint("name them apart with AS in the query"));
        }
        pairs.push((column.name.clone(), outer));
    }
    let uses = names_of(&query)?.into_iter().collect();
    let view = View { name: name.text.clone(), columns: pairs, text: query.to_string(), uses, version: 0 };
    view.validate()?;
    // What can not be read back could never be used.
    query_in(&view.text)?;
    Ok(view)
}

/// Gives the columns that an expression computes the names that results show, so that they can be asked for by them.
fn name_columns(body: &mut SetExpr, found: &[ResultColumn]) -> Result<()> {
    let select = match body {
        SetExpr::SetOperation { left, .. } => return name_columns(left, found),
        SetExpr::Query(query) => return name_columns(&mut query.body, found),
        SetExpr::Select(select) => select,
        _ => return Ok(()),
    };
    let is_wild = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let count = select.projection.len();
    let wild: Vec<usize> = (0..count).filter(|at| is_wild(&select.projection[*at])).collect();
    for (at, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            continue;
        }
        // Behind a wildcard, places are counted from the end.
        let place = match wild[..] {
            [] => Some(at),
            [only] if at < only => Some(at),
            [_] => (found.len() + at).checked_sub(count),
            _ => None,
        };
        let Some(column) = place.and_then(|place| found.get(place)) else {
            let message = format!("the column {expr} of the view has no name");
            return Err(Error::new(Code::InvalidStatement, message).with_hint("name it with AS"));
        };
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: quoted(&column.name) };
    }
    Ok(())
}
