//! Schema changes as SQL and Lua ask for them and the catalog carries them out.

use crate::table::{Index, Table};
use serde::{Deserialize, Serialize};

/// One change of the schema. Ids and versions are the catalog's to give: what a caller puts there is ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SchemaChange {
    CreateTable {
        table: Table,
    },
    DropTable {
        table: String,
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
}

impl SchemaChange {
    /// The name of the table that the change is about.
    pub fn table_name(&self) -> &str {
        match self {
            SchemaChange::CreateTable { table } => &table.name,
            SchemaChange::DropTable { table }
            | SchemaChange::CreateIndex { table, .. }
            | SchemaChange::DropIndex { table, .. }
            | SchemaChange::Truncate { table } => table,
        }
    }
}
