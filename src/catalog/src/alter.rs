//! ALTER TABLE: what is checked before a change of a definition, and what holds while it is pending.
//!
//! A column that is added has its place at the end, and rows that are there are read as if they had its default. A column
//! that is dropped keeps its place, hidden. A condition that rows have to meet is in force for writes from the moment that
//! the change is pending; the masters then look at the rows that are there, and the change is committed when all of them
//! meet it. So none of these rewrites a table.

use crate::schema::{Schema, own_sequence};
use crate::state::State;
use model::{Alteration, Code, Column, Error, Result, SequenceId, Table, Value};

impl State {
    /// Checks a change of a table's definition and completes it.
    ///
    /// Errors: `NoSuchColumn`, `NoSuchIndex` for a constraint that is not there, `AlreadyExists`, `InvalidStatement`,
    /// `InUse`, `Unsupported`.
    pub(crate) fn complete_alteration(&self, table: &Table, alteration: &Alteration) -> Result<Alteration> {
        let mut completed = alteration.clone();
        match &mut completed {
            Alteration::AddColumn { column } => complete_column(table, column)?,
            Alteration::DropColumn { column } => check_unused_column(table, column)?,
            Alteration::RenameColumn { from, to } => {
                table.require_column(from)?;
                check_new_column(table, to)?;
            }
            Alteration::RenameTable { to } => self.check_new_name(to)?,
            Alteration::SetDefault { column, generated, .. } => {
                table.require_column(column)?;
                if let Some(default) = generated {
                    *default = self.complete_default(default)?;
                }
            }
            Alteration::SetNotNull { column } => {
                table.require_column(column)?;
            }
            Alteration::SetDurability { .. } => {}
            Alteration::DropNotNull { column } => check_may_be_null(table, column)?,
            Alteration::AddCheck { check } => {
                let is_known = table.checks.iter().any(|other| other.name == check.name)
                    || table.indexes.iter().any(|index| index.name == check.name);
                if is_known {
                    let message = format!("table \"{}\" has a constraint \"{}\" already", table.name, check.name);
                    return Err(Error::new(Code::AlreadyExists, message));
                }
            }
            Alteration::DropCheck { name } => {
                if !table.checks.iter().any(|check| check.name == *name) {
                    let message = format!("table \"{}\" has no constraint \"{name}\"", table.name);
                    return Err(Error::new(Code::NoSuchIndex, message));
                }
            }
        }
        let changes_names = matches!(
            alteration,
            Alteration::DropColumn { .. } | Alteration::RenameColumn { .. } | Alteration::RenameTable { .. }
        );
        if changes_names {
            let what = format!("table \"{}\" can not be changed so", table.name);
            self.schema.check_unused(&table.name, &what, "drop the view first and make it anew afterwards")?;
        }
        let mut after = table.clone();
        if let Alteration::RenameTable { to } = &completed {
            after.name.clone_from(to);
        }
        completed.apply(&mut after)?;
        after.validate()?;
        Ok(completed)
    }
}

fn complete_column(table: &Table, column: &mut Column) -> Result<()> {
    check_new_column(table, &column.name)?;
    if column.generated.is_some() {
        let message = format!("column \"{}\" with a computed default can not be added", column.name);
        return Err(Error::new(Code::Unsupported, message)
            .with_hint("add it with a constant default or none, UPDATE the rows, then SET DEFAULT"));
    }
    if !column.nullable && column.default.is_none() {
        let message = format!("column \"{}\" is NOT NULL and has no default for the rows that are there", column.name);
        return Err(Error::new(Code::NullViolation, message).with_hint("give it a DEFAULT"));
    }
    column.added = Some(column.default.clone().unwrap_or(Value::Null));
    (column.loose, column.hidden) = (true, false);
    Ok(())
}

fn check_new_column(table: &Table, name: &str) -> Result<()> {
    if table.column_position(name).is_none() {
        return Ok(());
    }
    let message = format!("table \"{}\" has a column \"{name}\" already", table.name);
    Err(Error::new(Code::AlreadyExists, message))
}

fn check_unused_column(table: &Table, name: &str) -> Result<()> {
    let at = table.require_column(name)?;
    let in_use = |message: String, hint: &str| Err(Error::new(Code::InUse, message).with_hint(hint));
    if table.primary_key.contains(&at) {
        let message = format!("column \"{name}\" is part of the primary key");
        return in_use(message, "make another table and INSERT ... SELECT into it");
    }
    if let Some(index) = table.indexes.iter().find(|index| index.columns.contains(&at)) {
        return in_use(format!("column \"{name}\" is part of index \"{}\"", index.name), "drop the index first");
    }
    if let Some(check) = table.checks.iter().find(|check| check.program.columns().any(|read| read == at)) {
        return in_use(format!("constraint \"{}\" reads column \"{name}\"", check.name), "drop the constraint first");
    }
    if table.visible().count() == 1 {
        let message = format!("column \"{name}\" is the only one of table \"{}\"", table.name);
        return Err(Error::new(Code::InvalidStatement, message));
    }
    Ok(())
}

fn check_may_be_null(table: &Table, name: &str) -> Result<()> {
    let at = table.require_column(name)?;
    if table.primary_key.contains(&at) {
        let message = format!("column \"{name}\" is part of the primary key and can not be NULL");
        return Err(Error::new(Code::InvalidStatement, message));
    }
    let column = &table.columns[at];
    match table.indexes.iter().find(|index| index.columns.contains(&at)) {
        Some(index) if !column.is_nullable_in_box() => {
            let message = format!("index \"{}\" was made for a column that is NOT NULL", index.name);
            Err(Error::new(Code::InUse, message).with_hint("drop the index, change the column, make the index anew"))
        }
        _ => Ok(()),
    }
}

impl Schema {
    pub(crate) fn announce_alteration(&mut self, name: &str, alteration: &Alteration, version: u64) {
        self.edit(name, version, |table| {
            if let Ok(Some(check)) = alteration.new_check(table) {
                table.checks.push(check);
            }
        });
    }

    /// Answers the sequences that are not needed any more.
    pub(crate) fn commit_alteration(&mut self, name: &str, alteration: &Alteration, version: u64) -> Vec<SequenceId> {
        let mut stopped = Vec::new();
        self.edit(name, version, |table| {
            let sequences = |table: &Table| -> Vec<SequenceId> {
                table.columns.iter().filter_map(own_sequence).map(|sequence| sequence.id).collect()
            };
            let before = sequences(table);
            match alteration {
                // In force since it was announced.
                Alteration::AddCheck { .. } => {}
                other => {
                    retract(table, other);
                    // It was tried before.
                    let _ = other.apply(table);
                }
            }
            let after = sequences(table);
            stopped = before.into_iter().filter(|id| !after.contains(id)).collect();
        });
        if let Alteration::RenameTable { to } = alteration
            && let Some(mut table) = self.tables.remove(name)
        {
            let renamed = table.make_mut();
            renamed.name.clone_from(to);
            renamed.version = version;
            self.tables.insert(to.clone(), table);
        }
        stopped
    }

    pub(crate) fn abort_alteration(&mut self, name: &str, alteration: &Alteration, version: u64) {
        self.edit(name, version, |table| retract(table, alteration));
    }
}

/// Takes back what `announce_alteration` did.
fn retract(table: &mut Table, alteration: &Alteration) {
    if let Ok(Some(check)) = alteration.new_check(table) {
        table.checks.retain(|other| other.name != check.name);
    }
}
