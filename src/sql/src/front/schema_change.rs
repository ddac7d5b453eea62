//! Schema statements carried out: names looked up, IF EXISTS and IF NOT EXISTS observed, the change proposed.

use super::names::Names;
use super::position::error_at;
use super::statement::SchemaAction;
use crate::cluster::Cluster;
use model::{Code, Error, Index, Result, SchemaChange};
use std::sync::Arc;
use std::time::Instant;

/// Carries out the statement. What IF EXISTS or IF NOT EXISTS makes needless is not an error.
///
/// Errors: `AlreadyExists`, `NoSuchTable`, `NoSuchColumn`, `NoSuchIndex`, and those of `Cluster::change_schema`.
pub(super) async fn run(
    action: &SchemaAction,
    text: &str,
    cluster: &Arc<dyn Cluster>,
    deadline: Instant,
) -> Result<()> {
    let lenient = match action {
        SchemaAction::CreateTable { if_not_exists: true, .. }
        | SchemaAction::CreateIndex { if_not_exists: true, .. } => &[Code::AlreadyExists][..],
        SchemaAction::DropTable { if_exists: true, .. } | SchemaAction::Truncate { if_exists: true, .. } => {
            &[Code::NoSuchTable]
        }
        SchemaAction::DropIndex { if_exists: true, .. } => &[Code::NoSuchTable, Code::NoSuchIndex],
        _ => &[],
    };
    let schema = cluster.schema();
    let result = match change(action, Names { schema: &*schema, text }) {
        Ok(change) => cluster.change_schema(change, deadline).await,
        Err(error) => Err(error),
    };
    match result {
        Err(error) if lenient.contains(&error.code) => Ok(()),
        result => result,
    }
}

fn change(action: &SchemaAction, names: Names<'_>) -> Result<SchemaChange> {
    Ok(match action {
        SchemaAction::CreateTable { table, .. } => {
            if names.schema.table(&table.name).is_some() {
                return Err(already_exists(format!("table \"{}\" exists already", table.name)));
            }
            SchemaChange::CreateTable { table: table.clone() }
        }
        SchemaAction::DropTable { table, .. } => SchemaChange::DropTable { table: names.table(table)?.name.clone() },
        SchemaAction::Truncate { table, .. } => SchemaChange::Truncate { table: names.table(table)?.name.clone() },
        SchemaAction::CreateIndex { name, table, columns, unique, .. } => {
            let table = names.table(table)?;
            if table.indexes.iter().any(|index| index.name == name.text) {
                let what = format!("index \"{}\" on table \"{}\" exists already", name.text, table.name);
                return Err(error_at(Code::AlreadyExists, what, names.text, name.at));
            }
            let columns = names.columns(&table, columns)?;
            let index = Index { id: 0, name: name.text.clone(), columns, unique: *unique };
            table.validate_index(&index)?;
            SchemaChange::CreateIndex { table: table.name.clone(), index }
        }
        SchemaAction::DropIndex { name, table, .. } => {
            let table = match table {
                Some(table) => names.table(table)?,
                None => names.table_of_index(name)?,
            };
            names.require_index(&table, name)?;
            SchemaChange::DropIndex { table: table.name.clone(), index: name.text.clone() }
        }
    })
}

fn already_exists(message: String) -> Error {
    Error::new(Code::AlreadyExists, message)
}
