//! Names of a statement looked up in the schema, with the nearest name as a hint and the place in the text.

use super::position::error_at;
use super::statement::Name;
use crate::cluster::Schema;
use model::error::nearest;
use model::{Code, Error, Result, Table};
use std::sync::Arc;

/// A schema and the text whose names are looked up in it.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    pub schema: &'a dyn Schema,
    pub text: &'a str,
}

impl Names<'_> {
    /// Errors: `NoSuchTable`; `InvalidStatement` when it is a view.
    pub fn table(&self, name: &Name) -> Result<Arc<Table>> {
        self.schema.table(&name.text).ok_or_else(|| {
            if self.schema.view(&name.text).is_some() {
                let what = format!("\"{}\" is a view: only tables can be changed", name.text);
                return error_at(Code::InvalidStatement, what, self.text, name.at);
            }
            let error =
                error_at(Code::NoSuchTable, format!("table \"{}\" does not exist", name.text), self.text, name.at);
            let known = self.schema.table_names();
            self.hint(error, &name.text, known.iter().map(String::as_str))
        })
    }

    /// Errors: `NoSuchTable`.
    pub fn require_view(&self, name: &Name) -> Result<()> {
        if self.schema.view(&name.text).is_some() {
            return Ok(());
        }
        let what = format!("view \"{}\" does not exist", name.text);
        Err(error_at(Code::NoSuchTable, what, self.text, name.at))
    }

    /// Errors: `NoSuchColumn`.
    pub fn column(&self, table: &Table, name: &Name) -> Result<usize> {
        table.column_position(&name.text).ok_or_else(|| {
            let what = format!("table \"{}\" has no column \"{}\"", table.name, name.text);
            let error = error_at(Code::NoSuchColumn, what, self.text, name.at);
            self.hint(error, &name.text, table.visible().map(|at| table.columns[at].name.as_str()))
        })
    }

    /// The positions of columns, each named once.
    ///
    /// Errors: `NoSuchColumn`, `InvalidStatement`.
    pub fn columns(&self, table: &Table, names: &[Name]) -> Result<Vec<usize>> {
        let mut positions = Vec::with_capacity(names.len());
        for name in names {
            let position = self.column(table, name)?;
            if positions.contains(&position) {
                let what = format!("column \"{}\" is named twice", name.text);
                return Err(error_at(Code::InvalidStatement, what, self.text, name.at));
            }
            positions.push(position);
        }
        Ok(positions)
    }

    /// The table that has an index of this name.
    ///
    /// Errors: `NoSuchIndex`; `InvalidStatement` when several tables have one.
    pub fn table_of_index(&self, index: &Name) -> Result<Arc<Table>> {
        let tables = self.schema.table_names().into_iter().filter_map(|name| self.schema.table(&name));
        let mut with_index = tables.filter(|table| table.indexes.iter().any(|i| i.name == index.text));
        match (with_index.next(), with_index.next()) {
            (Some(table), None) => Ok(table),
            (Some(_), Some(_)) => {
                let what = format!("several tables have an index \"{}\"", index.text);
                Err(error_at(Code::InvalidStatement, what, self.text, index.at)
                    .with_hint("say which: DROP INDEX name ON table"))
            }
            (None, _) => Err(self.no_index(index, "")),
        }
    }

    /// Errors: `NoSuchIndex`.
    pub fn require_index(&self, table: &Table, index: &Name) -> Result<()> {
        if table.indexes.iter().any(|i| i.name == index.text) {
            return Ok(());
        }
        let error = self.no_index(index, &format!(" on table \"{}\"", table.name));
        Err(self.hint(error, &index.text, table.indexes.iter().map(|i| i.name.as_str())))
    }

    fn no_index(&self, index: &Name, place: &str) -> Error {
        error_at(Code::NoSuchIndex, format!("index \"{}\"{place} does not exist", index.text), self.text, index.at)
    }

    fn hint<'n>(&self, error: Error, name: &str, known: impl Iterator<Item = &'n str>) -> Error {
        match nearest(name, known) {
            Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
            None => error,
        }
    }
}
