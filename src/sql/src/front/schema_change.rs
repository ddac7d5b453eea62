//! Schema statements carried out: names looked up, IF EXISTS and IF NOT EXISTS observed, the change proposed.

use super::ddl::check_name;
use super::ddl_column::default_of;
use super::names::Names;
use super::position::error_at;
use super::program::{Scope, condition};
use super::statement::{AlterDraft, DefaultDraft, Name, SchemaAction};
use crate::cluster::Cluster;
use model::{Alteration, Check, Code, Column, Error, Generated, Index, Result, SchemaChange, Table, View};
use sqlparser::ast::Expr;
use std::sync::Arc;
use std::time::Instant;

/// Carries out the statement. What IF EXISTS or IF NOT EXISTS makes needless is not an error. `view` is what CREATE VIEW
/// makes, which takes the engine to know.
///
/// Errors: `AlreadyExists`, `NoSuchTable`, `NoSuchColumn`, `NoSuchIndex`, and those of `Cluster::change_schema`.
pub(super) async fn run(
    action: &SchemaAction,
    view: Option<View>,
    text: &str,
    cluster: &Arc<dyn Cluster>,
    deadline: Instant,
) -> Result<()> {
    let schema = cluster.schema();
    let result = match change(action, view, Names { schema: &*schema, text }) {
        Ok(change) => cluster.change_schema(change, deadline).await,
        Err(error) => Err(error),
    };
    match result {
        Err(error) if forgiven(action).contains(&error.code) => Ok(()),
        result => result,
    }
}

/// The errors that the statement says are none.
fn forgiven(action: &SchemaAction) -> &'static [Code] {
    use SchemaAction as A;
    match action {
        A::CreateTable { if_not_exists: true, .. }
        | A::CreateIndex { if_not_exists: true, .. }
        | A::CreateSequence { if_not_exists: true, .. } => &[Code::AlreadyExists],
        A::DropTable { if_exists: true, .. }
        | A::Truncate { if_exists: true, .. }
        | A::DropView { if_exists: true, .. }
        | A::DropSequence { if_exists: true, .. } => &[Code::NoSuchTable],
        A::DropIndex { if_exists: true, .. } => &[Code::NoSuchTable, Code::NoSuchIndex],
        A::AlterTable { if_exists, alteration, .. } => match (if_exists, &**alteration) {
            (_, AlterDraft::AddColumn { if_not_exists: true, .. }) => &[Code::AlreadyExists],
            (_, AlterDraft::DropColumn { if_exists: true, .. }) => &[Code::NoSuchColumn],
            (_, AlterDraft::DropConstraint { if_exists: true, .. }) => &[Code::NoSuchIndex],
            (true, _) => &[Code::NoSuchTable],
            _ => &[],
        },
        _ => &[],
    }
}

fn change(action: &SchemaAction, view: Option<View>, names: Names<'_>) -> Result<SchemaChange> {
    Ok(match action {
        SchemaAction::CreateTable { table, .. } => {
            if names.schema.table(&table.name).is_some() {
                return Err(already_exists(format!("table \"{}\" exists already", table.name)));
            }
            SchemaChange::CreateTable { table: table.clone() }
        }
        SchemaAction::DropTable { table, cascade, .. } => {
            SchemaChange::DropTable { table: names.table(table)?.name.clone(), cascade: *cascade }
        }
        SchemaAction::Truncate { table, .. } => SchemaChange::Truncate { table: names.table(table)?.name.clone() },
        SchemaAction::CreateIndex { name, table, columns, unique, .. } => {
            let table = names.table(table)?;
            create_index(&table, name, columns, *unique, names)?
        }
        SchemaAction::DropIndex { name, table, .. } => {
            let table = match table {
                Some(table) => names.table(table)?,
                None => names.table_of_index(name)?,
            };
            names.require_index(&table, name)?;
            SchemaChange::DropIndex { table: table.name.clone(), index: name.text.clone() }
        }
        SchemaAction::AlterTable { table, alteration, .. } => alter(&*names.table(table)?, alteration, names)?,
        SchemaAction::CreateView { replace, .. } => {
            let view = view.ok_or_else(|| Error::internal("a view was not looked at"))?;
            SchemaChange::CreateView { view, replace: *replace }
        }
        SchemaAction::DropView { name, cascade, .. } => {
            names.require_view(name)?;
            SchemaChange::DropView { view: name.text.clone(), cascade: *cascade }
        }
        SchemaAction::CreateSequence { name, sequence, .. } => {
            SchemaChange::CreateSequence { name: name.text.clone(), sequence: sequence.clone() }
        }
        SchemaAction::DropSequence { name, .. } => SchemaChange::DropSequence { name: name.text.clone() },
    })
}

fn create_index(table: &Table, name: &Name, columns: &[Name], unique: bool, names: Names<'_>) -> Result<SchemaChange> {
    if table.indexes.iter().any(|index| index.name == name.text) {
        let what = format!("index \"{}\" on table \"{}\" exists already", name.text, table.name);
        return Err(error_at(Code::AlreadyExists, what, names.text, name.at));
    }
    let columns = names.columns(table, columns)?;
    let index = Index { id: 0, name: name.text.clone(), columns, unique };
    table.validate_index(&index)?;
    Ok(SchemaChange::CreateIndex { table: table.name.clone(), index })
}

fn alter(table: &Table, draft: &AlterDraft, names: Names<'_>) -> Result<SchemaChange> {
    let column = |name: &Name| names.column(table, name).map(|at| &table.columns[at]);
    let name_of = |name: &Name| column(name).map(|column| column.name.clone());
    let alteration = match draft {
        AlterDraft::AddColumn { column, .. } => Alteration::AddColumn { column: column.clone() },
        AlterDraft::DropColumn { column, .. } => Alteration::DropColumn { column: name_of(column)? },
        AlterDraft::RenameColumn { from, to } => Alteration::RenameColumn { from: name_of(from)?, to: to.text.clone() },
        AlterDraft::RenameTable { to } => Alteration::RenameTable { to: to.text.clone() },
        AlterDraft::SetDefault { column: name, value } => set_default(column(name)?, Some(value))?,
        AlterDraft::DropDefault { column: name } => set_default(column(name)?, None)?,
        AlterDraft::SetNotNull { column } => Alteration::SetNotNull { column: name_of(column)? },
        AlterDraft::DropNotNull { column } => Alteration::DropNotNull { column: name_of(column)? },
        AlterDraft::AddCheck { name, condition } => {
            Alteration::AddCheck { check: check(table, name.as_ref(), condition)? }
        }
        AlterDraft::SetDurability { durability } => Alteration::SetDurability { durability: *durability },
        AlterDraft::AddUnique { name, columns } => return add_unique(table, name.as_ref(), columns, names),
        AlterDraft::DropConstraint { name, .. } => return drop_constraint(table, name, names),
    };
    Ok(SchemaChange::AlterTable { table: table.name.clone(), alteration })
}

fn set_default(column: &Column, value: Option<&Expr>) -> Result<Alteration> {
    if matches!(column.generated, Some(Generated::Identity { .. })) {
        let message = format!("column \"{}\" is an identity column: its numbers are its default", column.name);
        return Err(Error::new(Code::InvalidStatement, message));
    }
    let draft = value.map(|value| default_of(value, column.ty)).transpose().map_err(|mut error| {
        error.message = format!("column \"{}\": {}", column.name, error.message);
        error
    })?;
    let (default, generated) = match draft {
        None => (None, None),
        Some(DefaultDraft::Constant(value)) => (Some(value).filter(|value| !value.is_null()), None),
        Some(DefaultDraft::Generated(generated)) => (None, Some(generated)),
    };
    Ok(Alteration::SetDefault { column: column.name.clone(), default, generated })
}

fn is_constraint(table: &Table, name: &str) -> bool {
    table.checks.iter().any(|check| check.name == name) || table.indexes.iter().any(|index| index.name == name)
}

fn check(table: &Table, name: Option<&Name>, expr: &Expr) -> Result<Check> {
    let columns: Vec<_> =
        table.visible().map(|at| (table.columns[at].name.clone(), at, table.columns[at].ty)).collect();
    let program = condition(expr, Scope { table: &table.name, columns: &columns, is_default: false })?;
    let name = match name {
        Some(name) => name.text.clone(),
        None => {
            let read: Vec<&str> = program.columns().map(|at| table.columns[at].name.as_str()).collect();
            check_name(&table.name, &read, |name| is_constraint(table, name))
        }
    };
    Ok(Check { name, program })
}

fn add_unique(table: &Table, name: Option<&Name>, columns: &[Name], names: Names<'_>) -> Result<SchemaChange> {
    let made_up = || {
        let columns: Vec<&str> = columns.iter().map(|name| name.text.as_str()).collect();
        Name { text: format!("{}_{}_key", table.name, columns.join("_")), at: None }
    };
    create_index(table, &name.cloned().unwrap_or_else(made_up), columns, true, names)
}

fn drop_constraint(table: &Table, name: &Name, names: Names<'_>) -> Result<SchemaChange> {
    if table.indexes.iter().any(|index| index.unique && index.name == name.text) {
        return Ok(SchemaChange::DropIndex { table: table.name.clone(), index: name.text.clone() });
    }
    if !table.checks.iter().any(|check| check.name == name.text) {
        let what = format!("table \"{}\" has no constraint \"{}\"", table.name, name.text);
        return Err(error_at(Code::NoSuchIndex, what, names.text, name.at));
    }
    let alteration = Alteration::DropCheck { name: name.text.clone() };
    Ok(SchemaChange::AlterTable { table: table.name.clone(), alteration })
}

fn already_exists(message: String) -> Error {
    Error::new(Code::AlreadyExists, message)
}
