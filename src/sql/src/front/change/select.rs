//! UPDATE and DELETE as queries: which rows they change, and to what.

use super::defaults::check_assigned;
use super::returning::Returning;
use super::{Changer, Plan, coerced, default_expression, null_violation, quoted, template};
use crate::cluster::{RowChange, Schema, WHOLE_TABLE};
use crate::front::names::Names;
use crate::front::params::substitute;
use crate::front::parse::fold;
use crate::front::position::error_at;
use crate::front::statement::{Assignment, Delete, Name, Statement, Update};
use crate::front::views;
use crate::walk;
use model::{Code, Error, Result, Table, Value};
use sqlparser::ast::{
    Expr, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins, With,
};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// A change as a query and what its rows mean.
pub(in crate::front) struct Selected {
    pub table: Arc<Table>,
    pub query: Box<Query>,
    /// What the table goes by, and WHERE, with values in the place of parameters.
    pub qualifier: String,
    pub selection: Option<Expr>,
    /// Columns whose old values follow the primary key in each row.
    read: Vec<usize>,
    /// Columns whose new values follow those; None for a DELETE.
    set: Option<Vec<usize>>,
    /// Places among those of values that are computed defaults.
    defaults: Vec<usize>,
    /// Whether other tables may bring the same row more than once.
    is_joined: bool,
    returning: Option<Returning>,
}

/// UPDATE and DELETE by their common parts.
struct Parts<'s> {
    with: Option<&'s With>,
    table: &'s Name,
    alias: Option<&'s Name>,
    assignments: &'s [Assignment],
    others: &'s [TableWithJoins],
    selection: Option<&'s Expr>,
    returning: Option<&'s [SelectItem]>,
}

impl<'s> Parts<'s> {
    fn of(statement: &'s Statement) -> Result<Self> {
        match statement {
            Statement::Update(Update { with, table, alias, assignments, from, selection, returning }) => Ok(Parts {
                with: with.as_ref(),
                table,
                alias: alias.as_ref(),
                assignments,
                others: from,
                selection: selection.as_ref(),
                returning: returning.as_deref(),
            }),
            Statement::Delete(Delete { with, table, alias, using, selection, returning }) => Ok(Parts {
                with: with.as_ref(),
                table,
                alias: alias.as_ref(),
                assignments: &[],
                others: using,
                selection: selection.as_ref(),
                returning: returning.as_deref(),
            }),
            other => Err(Error::internal(format!("{} selects nothing to change", other.kind()))),
        }
    }
}

impl Changer<'_> {
    pub(super) async fn plan_selected(&self, statement: &Statement) -> Result<Plan> {
        let schema = self.cluster.schema();
        let selected = self.selected(statement, &*schema)?;
        let mut rows = self.rows(selected.query.clone(), selected.width()).await?;
        if selected.is_joined {
            selected.keep_first_of_each(&mut rows);
        }
        for &place in &selected.defaults {
            let Some(column) = selected.set.as_ref().and_then(|set| set.get(place)) else { continue };
            let values = self.defaults(&selected.table, *column, rows.len()).await?;
            let at = selected.table.primary_key.len() + selected.read.len() + place;
            rows.iter_mut().zip(values).for_each(|(row, value)| row[at] = value);
        }
        let (mut changes, mut after) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let change = selected.change(row)?;
            if selected.returning.is_some() {
                after.push(selected.returned_row(&change)?);
            }
            changes.push(change);
        }
        let returned = match &selected.returning {
            Some(returning) => Some(self.returned(returning, &after).await?),
            None => None,
        };
        Ok(Plan { table: selected.table, changes, returned, looked_for_keys: false })
    }

    /// The query that finds what an UPDATE or a DELETE changes.
    pub(in crate::front) fn selected(&self, statement: &Statement, schema: &dyn Schema) -> Result<Selected> {
        let names = Names { schema, text: self.text };
        let parts = Parts::of(statement)?;
        let table = names.table(parts.table)?;
        let targets: Vec<Name> = parts.assignments.iter().map(|(name, _)| name.clone()).collect();
        let set = names.columns(&table, &targets)?;
        not_in_primary_key(&table, &set, &targets, self.text)?;
        let written = parts.assignments.iter().zip(&set);
        check_assigned(&table, written.filter(|((_, value), _)| value.is_some()).map(|(_, column)| *column))?;
        let defaults = computed_defaults(&table, parts.assignments, &set);
        let bound = |expr: &Expr| {
            let mut expr = expr.clone();
            substitute(&mut expr, self.params);
            expr
        };
        let selection = parts.selection.map(bound);
        let values = parts.assignments.iter().zip(&set).map(|((_, value), column)| match value {
            None => default_expression(&table, *column),
            Some(value) => bound(value),
        });
        let values: Vec<Expr> = values.collect();
        let qualifier = parts.alias.unwrap_or(parts.table);
        let returning =
            parts.returning.map(|items| Returning::new(items, &table, &qualifier.text, self.params)).transpose()?;
        let mut read = columns_read(&table, values.iter().chain(selection.as_ref()));
        if let Some(returning) = &returning {
            let known = |at: &usize| read.contains(at) || table.primary_key.contains(at);
            let more: Vec<usize> = returning.columns_read().into_iter().filter(|at| !known(at)).collect();
            read.extend(more);
        }
        let column = |at: &usize| super::literal_rows::column(&qualifier.text, &table.columns[*at].name);
        let items = table.primary_key.iter().chain(&read).map(column).chain(values);
        let mut from = vec![target(&table, parts.alias.map(|alias| alias.text.as_str()))?];
        if parts.with.is_some() {
            views::qualify(&mut from[0].relation, &table.name);
        }
        for other in parts.others {
            let mut other = other.clone();
            substitute(&mut other, self.params);
            from.push(other);
        }
        let mut query = query_of(items.collect(), from, selection.clone())?;
        query.with = parts.with.cloned();
        substitute(&mut query.with, self.params);
        let set = matches!(statement, Statement::Update(_)).then_some(set);
        let (qualifier, is_joined) = (qualifier.text.clone(), !parts.others.is_empty());
        Ok(Selected { table, query, qualifier, selection, read, set, defaults, is_joined, returning })
    }
}

impl Selected {
    fn width(&self) -> usize {
        self.table.primary_key.len() + self.read.len() + self.set.as_ref().map_or(0, Vec::len)
    }

    /// As PostgreSQL, a row that joins several rows of other tables is changed once, by any of them.
    fn keep_first_of_each(&self, rows: &mut Vec<Vec<Value>>) {
        let mut seen = HashSet::new();
        rows.retain(|row| {
            let mut key = Vec::new();
            row.iter().take(self.table.primary_key.len()).for_each(|value| value.write_stored(&mut key));
            seen.insert(key)
        });
    }

    /// The change that a row of the query stands for.
    fn change(&self, row: Vec<Value>) -> Result<RowChange> {
        let mut values = row.into_iter();
        let mut take = |column: usize| -> Result<Value> {
            let value = values.next().ok_or_else(|| Error::internal("a row of the query is too short"))?;
            coerced(&self.table, column, value)
        };
        let key = self.table.primary_key.iter().map(|column| take(*column)).collect::<Result<Vec<_>>>()?;
        let expected = self.read.iter().map(|at| Ok((*at, take(*at)?))).collect::<Result<Vec<_>>>()?;
        let Some(set) = &self.set else { return Ok(RowChange::Delete { key, expected }) };
        let set = set.iter().map(|column| {
            let value = take(*column)?;
            if value.is_null() && !self.table.columns[*column].nullable {
                return Err(null_violation(&self.table, *column));
            }
            Ok((*column, value))
        });
        let set = set.collect::<Result<Vec<_>>>()?;
        Ok(RowChange::Update { key, expected, set })
    }

    /// What is known of a changed row: as it is after an UPDATE, as it was before a DELETE.
    fn returned_row(&self, change: &RowChange) -> Result<Vec<Value>> {
        let (key, expected, set) = match change {
            RowChange::Update { key, expected, set } => (key, expected, &set[..]),
            RowChange::Delete { key, expected } => (key, expected, &[][..]),
            _ => return Err(Error::internal("a selected row is updated or deleted")),
        };
        let mut row = vec![Value::Null; self.table.columns.len()];
        self.table.primary_key.iter().zip(key).for_each(|(at, value)| row[*at] = value.clone());
        expected.iter().chain(set).for_each(|(at, value)| row[*at] = value.clone());
        Ok(row)
    }
}

/// Places of assignments of DEFAULT to columns whose default is computed for each row.
pub(super) fn computed_defaults(table: &Table, assignments: &[Assignment], set: &[usize]) -> Vec<usize> {
    let is_computed = |place: &usize| assignments[*place].1.is_none() && table.columns[set[*place]].generated.is_some();
    (0..set.len()).filter(is_computed).collect()
}

/// Refuses to change a column of the primary key: the row would move to another bucket.
pub(super) fn not_in_primary_key(table: &Table, set: &[usize], targets: &[Name], text: &str) -> Result<()> {
    let Some(at) = set.iter().position(|column| table.primary_key.contains(column)) else { return Ok(()) };
    let what = format!("changing column \"{}\" of the primary key is not supported", targets[at].text);
    let error = error_at(Code::Unsupported, what, text, targets[at].at);
    Err(error.with_hint("delete the row and insert it anew"))
}

/// The columns outside the primary key that the expressions name. A name in a subquery may mean another table's column;
/// then one value more is compared, and no harm is done.
pub(super) fn columns_read<'e>(table: &Table, exprs: impl Iterator<Item = &'e Expr>) -> Vec<usize> {
    struct Names<'t>(&'t Table, BTreeSet<usize>);
    impl walk::Read for Names<'_> {
        fn enter_expr(&mut self, expr: &Expr) -> Result<()> {
            let name = match expr {
                Expr::Identifier(ident) => Some(ident),
                Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            let column = name.and_then(|ident| self.0.column_position(&fold(ident).text));
            self.1.extend(column.filter(|column| !self.0.primary_key.contains(column)));
            Ok(())
        }
    }
    let mut names = Names(table, BTreeSet::new());
    for expr in exprs {
        // Reading names refuses nothing.
        let _ = walk::read(expr, &mut names);
    }
    names.1.into_iter().collect()
}

/// The changed table as it stands in FROM.
pub(super) fn target<'a>(table: &'a Table, mut alias: Option<&'a str>) -> Result<TableWithJoins> {
    let query = template("SELECT 1 FROM t")?;
    let SetExpr::Select(select) = *query.body else { return Err(Error::internal("a template is no SELECT")) };
    let mut from = select.from.into_iter().next().ok_or_else(|| Error::internal("a template has no FROM"))?;
    if let TableFactor::Table { name, alias: known_as, .. } = &mut from.relation {
        let mut parts = vec![ObjectNamePart::Identifier(quoted(&table.name))];
        if !table.is_all_visible() {
            parts.insert(0, ObjectNamePart::Identifier(quoted(WHOLE_TABLE)));
            alias = alias.or(Some(&table.name));
        }
        *name = ObjectName(parts);
        *known_as =
            alias.map(|alias| TableAlias { explicit: true, name: quoted(alias), columns: Vec::new(), at: None });
    }
    Ok(from)
}

/// A SELECT whose columns are named by their places: names do not matter, and must not meet.
pub(super) fn query_of(items: Vec<Expr>, from: Vec<TableWithJoins>, selection: Option<Expr>) -> Result<Box<Query>> {
    let number = |(at, expr): (usize, Expr)| SelectItem::ExprWithAlias { expr, alias: quoted(&format!("c{at}")) };
    query_of_items(items.into_iter().enumerate().map(number).collect(), from, selection)
}

/// A SELECT of these parts.
pub(super) fn query_of_items(
    items: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    selection: Option<Expr>,
) -> Result<Box<Query>> {
    let mut query = template("SELECT 1")?;
    let SetExpr::Select(select) = &mut *query.body else { return Err(Error::internal("a template is no SELECT")) };
    select.projection = items;
    select.selection = selection;
    select.from = from;
    Ok(query)
}
