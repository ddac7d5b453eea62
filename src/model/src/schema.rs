//! Schema changes as SQL and Lua ask for them and the catalog carries them out, and what there is beside tables.

use crate::error::{Code, Error, Result};
use crate::program::{Program, Step};
use crate::sequence::Sequence;
use crate::table::{Check, Column, Durability, Generated, Index, Table};
use crate::value::Value;
use serde::{Deserialize, Serialize};

/// Views that read one another, one deeper than the other.
pub const VIEW_DEPTH_MAX: usize = 16;

/// One change of the schema. Ids and versions are the catalog's to give: what a caller puts there is ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SchemaChange {
    CreateTable {
        table: Table,
    },
    DropTable {
        table: String,
        /// Views that read it go too.
        #[serde(default)]
        cascade: bool,
    },
    CreateIndex {
        table: String,
        index: Index,
    },
    DropIndex {
        table: String,
        index: String,
    },
    /// All rows go, the definition stays.
    Truncate {
        table: String,
    },
    AlterTable {
        table: String,
        alteration: Alteration,
    },
    CreateView {
        view: View,
        /// A view of this name gives way.
        replace: bool,
    },
    DropView {
        view: String,
        cascade: bool,
    },
    CreateSequence {
        name: String,
        sequence: Sequence,
    },
    DropSequence {
        name: String,
    },
}

/// One change of a table's definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Alteration {
    /// Comes last. Its default is what rows that are there have.
    AddColumn {
        column: Column,
    },
    DropColumn {
        column: String,
    },
    RenameColumn {
        from: String,
        to: String,
    },
    RenameTable {
        to: String,
    },
    /// Without either: DROP DEFAULT.
    SetDefault {
        column: String,
        default: Option<Value>,
        generated: Option<Generated>,
    },
    SetNotNull {
        column: String,
    },
    DropNotNull {
        column: String,
    },
    AddCheck {
        check: Check,
    },
    DropCheck {
        name: String,
    },
    SetDurability {
        durability: Durability,
    },
}

/// A query with a name. Its text is expanded where it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub name: String,
    /// What its query calls each column, and what the view calls it.
    pub columns: Vec<(String, String)>,
    pub text: String,
    /// Tables and views that the query names.
    pub uses: Vec<String>,
    /// The catalog version that last changed this definition.
    pub version: u64,
}

impl SchemaChange {
    /// The name of the table, view or sequence that the change is about.
    pub fn subject(&self) -> &str {
        match self {
            SchemaChange::CreateTable { table } => &table.name,
            SchemaChange::CreateView { view, .. } => &view.name,
            SchemaChange::DropTable { table, .. }
            | SchemaChange::CreateIndex { table, .. }
            | SchemaChange::DropIndex { table, .. }
            | SchemaChange::Truncate { table }
            | SchemaChange::AlterTable { table, .. } => table,
            SchemaChange::DropView { view, .. } => view,
            SchemaChange::CreateSequence { name, .. } | SchemaChange::DropSequence { name } => name,
        }
    }

    /// Whether the change is of the catalog alone: no master has to build or to check anything before it holds.
    pub fn is_instant(&self) -> bool {
        match self {
            SchemaChange::CreateView { .. }
            | SchemaChange::DropView { .. }
            | SchemaChange::CreateSequence { .. }
            | SchemaChange::DropSequence { .. } => true,
            SchemaChange::AlterTable { alteration, .. } => matches!(
                alteration,
                Alteration::RenameColumn { .. }
                    | Alteration::RenameTable { .. }
                    | Alteration::SetDefault { .. }
                    | Alteration::DropCheck { .. }
            ),
            _ => false,
        }
    }
}

impl Alteration {
    /// The definition as it is afterwards; the name of the table is the catalog's affair.
    ///
    /// Errors: `NoSuchColumn`.
    pub fn apply(&self, table: &mut Table) -> Result<()> {
        match self {
            Alteration::AddColumn { column } => table.columns.push(column.clone()),
            Alteration::DropColumn { column } => {
                let at = table.require_column(column)?;
                let slot = &mut table.columns[at];
                let (ty, added) = (slot.ty, slot.added.take());
                *slot = Column::new(format!("_pico_dropped_{at}"), ty, true);
                (slot.hidden, slot.added) = (true, added);
            }
            Alteration::RenameColumn { from, to } => {
                let at = table.require_column(from)?;
                table.columns[at].name.clone_from(to);
            }
            Alteration::RenameTable { .. } => {}
            Alteration::SetDefault { column, default, generated } => {
                let at = table.require_column(column)?;
                table.columns[at].default.clone_from(default);
                table.columns[at].generated.clone_from(generated);
            }
            Alteration::SetNotNull { column } => {
                let at = table.require_column(column)?;
                (table.columns[at].nullable, table.columns[at].loose) = (false, true);
            }
            Alteration::DropNotNull { column } => {
                let at = table.require_column(column)?;
                table.columns[at].nullable = true;
            }
            Alteration::AddCheck { check } => table.checks.push(check.clone()),
            Alteration::DropCheck { name } => table.checks.retain(|check| check.name != *name),
            Alteration::SetDurability { durability } => table.durability = *durability,
        }
        Ok(())
    }

    /// What rows have to meet from now on, if the change asks for more than before.
    ///
    /// Errors: `NoSuchColumn`.
    pub fn new_check(&self, table: &Table) -> Result<Option<Check>> {
        match self {
            Alteration::AddCheck { check } => Ok(Some(check.clone())),
            Alteration::SetNotNull { column } => {
                let position = table.require_column(column)?;
                let steps = vec![Step::Column(position), Step::IsNull, Step::Not];
                let program = Program { text: format!("\"{column}\" IS NOT NULL"), steps };
                Ok(Some(Check { name: format!("{column} NOT NULL"), program }))
            }
            _ => Ok(None),
        }
    }
}

impl View {
    /// Errors: `InvalidStatement`.
    pub fn validate(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Code::InvalidStatement, message));
        if self.columns.is_empty() || self.columns.len() > crate::table::COLUMNS_MAX {
            return invalid(format!("a view has 1 to {} columns", crate::table::COLUMNS_MAX));
        }
        for (at, (_, name)) in self.columns.iter().enumerate() {
            if self.columns[..at].iter().any(|(_, other)| other == name) {
                let message = format!("view \"{}\" has two columns named \"{name}\"", self.name);
                return Err(Error::new(Code::InvalidStatement, message).with_hint("name them apart with AS"));
            }
        }
        Ok(())
    }
}
