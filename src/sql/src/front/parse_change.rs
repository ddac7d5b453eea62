//! INSERT, UPDATE and DELETE taken over from the parser's tree.
//!
//! What we do not carry out is refused by name. Assignments of several columns at once become one assignment a column.

use super::balance::balance;
use super::parse::{Source, fold, is_bare};
use super::statement::{Assignment, Delete, Insert, InsertSource, Name, OnConflict, Statement, Update};
use crate::walk;
use model::{Code, Error, Result};
use sqlparser::ast::{
    self, AssignmentTarget, Expr, FromTable, OrderByKind, Query, SelectItem, SetExpr, TableFactor, UpdateTableFromKind,
    With,
};

impl Source<'_> {
    /// A statement that changes rows, with the WITH before it.
    pub(super) fn change(&self, statement: ast::Statement, with: Option<With>) -> Result<Statement> {
        if with.is_some() {
            self.refuse(looks_elsewhere(&statement), "a subquery in RETURNING or DO UPDATE behind WITH")?;
        }
        match statement {
            ast::Statement::Insert(mut insert) => {
                if let Some(source) = insert.source.take() {
                    insert.source = Some(reading(source, with));
                }
                self.insert(insert).map(Statement::Insert)
            }
            ast::Statement::Update(update) => self.update(update, with).map(Statement::Update),
            ast::Statement::Delete(delete) => self.delete(delete, with).map(Statement::Delete),
            other => Err(self.unsupported(&format!("the statement {other}"), None)),
        }
    }

    fn insert(&self, insert: ast::Insert) -> Result<Insert> {
        self.refuse(insert.overwrite || insert.partitioned.is_some(), "INSERT OVERWRITE or PARTITION")?;
        self.refuse(!insert.assignments.is_empty() || !insert.after_columns.is_empty(), "INSERT ... SET")?;
        self.refuse(insert.output.is_some(), "OUTPUT")?;
        self.refuse(insert.ignore || insert.replace_into || insert.or.is_some(), "INSERT OR ...")?;
        let ast::TableObject::TableName(table) = &insert.table else {
            return Err(self.unsupported("INSERT into anything but a table", None));
        };
        let columns: Result<Vec<Name>> = insert.columns.iter().map(|name| self.one_part(name)).collect();
        let columns = Some(columns?).filter(|columns| !columns.is_empty());
        let (on_conflict, conflict_target) = self.on_conflict(insert.on)?;
        let source = match insert.source {
            None => InsertSource::Defaults,
            Some(query) => self.insert_source(query)?,
        };
        Ok(Insert {
            table: self.one_part(table)?,
            alias: insert.table_alias.map(|alias| fold(&alias.alias)),
            columns,
            source,
            on_conflict,
            conflict_target,
            overriding: self.overriding,
            returning: returning(insert.returning),
        })
    }

    fn on_conflict(&self, on: Option<ast::OnInsert>) -> Result<(OnConflict, Option<Vec<Name>>)> {
        let conflict = match on {
            None => return Ok((OnConflict::Fail, None)),
            Some(ast::OnInsert::OnConflict(conflict)) => conflict,
            Some(_) => return Err(self.unsupported("ON DUPLICATE KEY", None).with_hint("use ON CONFLICT")),
        };
        let target = match conflict.conflict_target {
            None => None,
            Some(ast::ConflictTarget::Columns(columns)) => Some(columns.iter().map(fold).collect()),
            Some(ast::ConflictTarget::OnConstraint(_)) => {
                let error = self.unsupported("ON CONFLICT ON CONSTRAINT", None);
                return Err(error.with_hint("name the columns of the primary key: ON CONFLICT (id)"));
            }
        };
        match (conflict.action, self.replaces) {
            (ast::OnConflictAction::DoNothing, true) => Ok((OnConflict::Replace, target)),
            (ast::OnConflictAction::DoNothing, false) => Ok((OnConflict::Skip, target)),
            (ast::OnConflictAction::DoUpdate(_), _) if target.is_none() => {
                let message = "ON CONFLICT DO UPDATE names the columns that conflict";
                Err(Error::new(Code::InvalidStatement, message).with_hint("for example ON CONFLICT (id) DO UPDATE"))
            }
            (ast::OnConflictAction::DoUpdate(update), _) => {
                let assignments = self.assignments(update.assignments)?;
                let mut selection = update.selection.map(Box::new);
                selection.iter_mut().for_each(balance);
                Ok((OnConflict::Update { assignments, selection }, target))
            }
        }
    }

    fn insert_source(&self, mut query: Box<Query>) -> Result<InsertSource> {
        let is_bare = is_bare(&query);
        match *query.body {
            SetExpr::Values(values) if is_bare => {
                let mut rows = Vec::with_capacity(values.rows.len());
                for row in values.rows {
                    rows.push(row.content.into_iter().map(default_or).collect::<Vec<_>>());
                }
                let width = rows.first().map_or(0, Vec::len);
                if rows.iter().any(|row| row.len() != width) {
                    return Err(Error::new(Code::InvalidStatement, "the rows of VALUES differ in length"));
                }
                rows.iter_mut().flatten().flatten().for_each(balance);
                Ok(InsertSource::Values(rows))
            }
            _ => {
                balance(&mut query);
                Ok(InsertSource::Query(query))
            }
        }
    }

    fn update(&self, update: ast::Update, with: Option<With>) -> Result<Update> {
        self.refuse(update.output.is_some(), "OUTPUT")?;
        self.refuse(update.or.is_some(), "UPDATE OR ...")?;
        self.refuse(!update.order_by.is_empty() || update.limit.is_some(), "ORDER BY or LIMIT in UPDATE")?;
        let (table, alias) = self.one_table(update.table, "UPDATE")?;
        let mut from = match update.from {
            None => Vec::new(),
            Some(UpdateTableFromKind::AfterSet(from)) => from,
            Some(UpdateTableFromKind::BeforeSet(_)) => return Err(self.unsupported("FROM before SET", None)),
        };
        from.iter_mut().for_each(balance);
        let assignments = self.assignments(update.assignments)?;
        let mut selection = update.selection;
        selection.iter_mut().for_each(balance);
        Ok(Update { with, table, alias, assignments, from, selection, returning: returning(update.returning) })
    }

    /// One column and one value each.
    fn assignments(&self, written: Vec<ast::Assignment>) -> Result<Vec<Assignment>> {
        let mut assignments = Vec::with_capacity(written.len());
        for assignment in written {
            match assignment.target {
                AssignmentTarget::ColumnName(target) => {
                    assignments.push((self.one_part(&target)?, default_or(assignment.value)));
                }
                AssignmentTarget::Tuple(targets) => {
                    let names = targets.iter().map(|name| self.one_part(name)).collect::<Result<Vec<_>>>()?;
                    let values = self.tuple(assignment.value, names.len())?;
                    assignments.extend(names.into_iter().zip(values));
                }
            }
        }
        assignments.iter_mut().filter_map(|(_, value)| value.as_mut()).for_each(balance);
        Ok(assignments)
    }

    /// The parts of `(x, y)`, `ROW(x, y)` or `(SELECT x, y ...)`.
    fn tuple(&self, value: Expr, width: usize) -> Result<Vec<Option<Expr>>> {
        let parts = match value {
            Expr::Tuple(parts) => parts.into_iter().map(default_or).collect(),
            Expr::Nested(only) => vec![default_or(*only)],
            Expr::Subquery(query) => self.columns_of(&query, width)?.into_iter().map(Some).collect(),
            other => return Err(self.unsupported(&format!("SET (a, b) = {other}"), None)),
        };
        if parts.len() != width {
            let message = format!("SET assigns {} values to {width} columns", parts.len());
            return Err(Error::new(Code::InvalidStatement, message));
        }
        Ok(parts)
    }

    /// A subquery of one column for each column of `query`. Each reads the same rows, as the statement changes nothing
    /// before all have been read.
    fn columns_of(&self, query: &Query, width: usize) -> Result<Vec<Expr>> {
        let unsupported = || {
            let error = self.unsupported("SET (a, b) = (SELECT ...) of this form", None);
            error.with_hint("write a plain SELECT that names its columns, or one subquery for each column")
        };
        let SetExpr::Select(select) = &*query.body else { return Err(unsupported()) };
        let by_position = query.order_by.as_ref().is_some_and(|order| match &order.kind {
            OrderByKind::Expressions(keys) => keys.iter().any(|key| matches!(key.expr, Expr::Value(_))),
            OrderByKind::All(_) => true,
        });
        let is_named =
            |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
        if select.distinct.is_some() || by_position || !select.projection.iter().all(is_named) {
            return Err(unsupported());
        }
        if select.projection.len() != width {
            let message = format!("SET assigns {} values to {width} columns", select.projection.len());
            return Err(Error::new(Code::InvalidStatement, message));
        }
        let column = |at: usize| {
            let mut only = query.clone();
            if let SetExpr::Select(select) = &mut *only.body {
                select.projection = vec![select.projection.swap_remove(at)];
            }
            Expr::Subquery(Box::new(only))
        };
        Ok((0..width).map(column).collect())
    }

    fn delete(&self, delete: ast::Delete, with: Option<With>) -> Result<Delete> {
        self.refuse(delete.output.is_some(), "OUTPUT")?;
        self.refuse(!delete.order_by.is_empty() || delete.limit.is_some(), "ORDER BY or LIMIT in DELETE")?;
        self.refuse(!delete.tables.is_empty(), "DELETE from several tables")?;
        let (FromTable::WithFromKeyword(mut from) | FromTable::WithoutKeyword(mut from)) = delete.from;
        let only = from.pop().filter(|_| from.is_empty());
        let only = only.ok_or_else(|| self.unsupported("DELETE from several tables", None))?;
        let (table, alias) = self.one_table(only, "DELETE")?;
        let mut using = delete.using.unwrap_or_default();
        using.iter_mut().for_each(balance);
        let mut selection = delete.selection;
        selection.iter_mut().for_each(balance);
        Ok(Delete { with, table, alias, using, selection, returning: returning(delete.returning) })
    }

    /// The one table that UPDATE or DELETE changes, and its alias.
    fn one_table(&self, from: ast::TableWithJoins, statement: &str) -> Result<(Name, Option<Name>)> {
        self.refuse(!from.joins.is_empty(), &format!("a join as the target of {statement}"))?;
        let TableFactor::Table { name, alias, args: None, .. } = from.relation else {
            return Err(self.unsupported(&format!("{statement} of anything but a table"), None));
        };
        self.refuse(alias.as_ref().is_some_and(|a| !a.columns.is_empty()), "an alias with columns here")?;
        Ok((self.one_part(&name)?, alias.map(|alias| fold(&alias.name))))
    }
}

/// Whether what is computed behind the change itself has subqueries.
fn looks_elsewhere(statement: &ast::Statement) -> bool {
    let (returning, on) = match statement {
        ast::Statement::Insert(insert) => (&insert.returning, insert.on.as_ref()),
        ast::Statement::Update(update) => (&update.returning, None),
        ast::Statement::Delete(delete) => (&delete.returning, None),
        _ => return false,
    };
    has_query(returning) || on.is_some_and(has_query)
}

fn has_query(tree: &impl ast::Visit) -> bool {
    struct Queries;
    impl walk::Read for Queries {
        fn enter_query(&mut self, _: &Query) -> Result<()> {
            Err(Error::internal("found"))
        }
    }
    walk::read(tree, &mut Queries).is_err()
}

/// The query with one more WITH around it.
fn reading(query: Box<Query>, with: Option<With>) -> Box<Query> {
    match with {
        None => query,
        Some(_) if query.with.is_none() => Box::new(Query { with, ..*query }),
        Some(_) => {
            let outer = Query {
                with,
                body: Box::new(SetExpr::Query(query)),
                order_by: None,
                limit_clause: None,
                fetch: None,
                locks: Vec::new(),
                for_clause: None,
                settings: None,
                format_clause: None,
                pipe_operators: Vec::new(),
            };
            Box::new(outer)
        }
    }
}

fn returning(mut items: Option<Vec<SelectItem>>) -> Option<Vec<SelectItem>> {
    items.iter_mut().flatten().for_each(balance);
    items
}

/// DEFAULT in the place of an expression: the parser takes it for a name.
fn default_or(expr: Expr) -> Option<Expr> {
    match expr {
        Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default") => None,
        other => Some(other),
    }
}
