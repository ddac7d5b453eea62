//! The tables of the cluster and the one schema change that is under way.
//!
//! A change is prepared, then committed or aborted. What is made (a table, an index) is built by every master while the
//! change is pending, and taken down again after an abort. What is destroyed (a table, an index, rows) is destroyed
//! after the commit only, so that an abort loses nothing.

use crate::apply::{Change, Changes, conflict};
use crate::settings::Setting;
use crate::shared::Shared;
use crate::state::State;
use crate::topology::missing;
use model::{Code, Distribution, Error, Index, Result, SchemaChange, Table, TableId, TableState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Counts schema changes; never reused.
pub type SchemaId = u64;

/// Below it are the host's own spaces and ours.
pub const TABLE_ID_FIRST: TableId = 1024;
pub const TABLES_MAX: usize = 10_000;
/// The host's limit of 128 indexes, without the primary one.
pub const INDEX_ID_MAX: u32 = 127;
/// Outcomes of past changes that are remembered.
const FINISHED_MAX: usize = 32;
const TIMEOUT_MS_MAX: u64 = 3_600_000;

/// The schema change under way, complete with ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingChange {
    pub id: SchemaId,
    pub change: SchemaChange,
    /// The table that is made, changed or dropped.
    pub table: TableId,
    /// The log index of its `SchemaPrepare`.
    pub index: u64,
    pub timeout_ms: u64,
}

/// All tables, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// The catalog version that last changed a table.
    pub version: u64,
    pub tables: BTreeMap<String, Shared<Table>>,
    pub pending: Option<PendingChange>,
    /// The last changes that are over: why they were aborted, or None when they were committed.
    pub finished: BTreeMap<SchemaId, Option<String>>,
    /// The change that last truncated each table. A master truncates when it finds that it has done an earlier one.
    pub truncated: BTreeMap<TableId, SchemaId>,
    id_last: SchemaId,
    table_id_last: TableId,
    /// The last index id given out in each table.
    index_id_last: BTreeMap<TableId, u32>,
}

impl Default for Schema {
    fn default() -> Self {
        Self {
            version: 0,
            tables: BTreeMap::new(),
            pending: None,
            finished: BTreeMap::new(),
            truncated: BTreeMap::new(),
            id_last: 0,
            table_id_last: TABLE_ID_FIRST - 1,
            index_id_last: BTreeMap::new(),
        }
    }
}

impl Schema {
    /// The table of this name in whatever state.
    ///
    /// Errors: `NoSuchTable`, with the nearest name.
    pub fn table(&self, name: &str) -> Result<&Shared<Table>> {
        let names = self.tables.keys().map(String::as_str);
        self.tables.get(name).ok_or_else(|| missing(Code::NoSuchTable, "table", name, names))
    }

    /// An operable table, to keep.
    pub fn operable(&self, name: &str) -> Option<Arc<Table>> {
        self.tables.get(name).filter(|table| table.state == TableState::Operable).map(Shared::arc)
    }

    pub fn table_by_id(&self, id: TableId) -> Option<&Shared<Table>> {
        self.tables.values().find(|table| table.id == id)
    }

    /// An operable table for a change of it.
    fn changeable(&self, name: &str) -> Result<&Shared<Table>> {
        let table = self.table(name)?;
        if table.state != TableState::Operable {
            return Err(conflict(format!("table \"{name}\" is being changed")));
        }
        Ok(table)
    }

    /// The next index id of a table: round and round, over those in use, so that one is not soon reused.
    fn next_index_id(&self, table: &Table) -> Result<u32> {
        let last = self.index_id_last.get(&table.id).copied().unwrap_or(0);
        let candidates = (0..INDEX_ID_MAX).map(|step| (last + step) % INDEX_ID_MAX + 1);
        let free = |id: &u32| table.indexes.iter().all(|index| index.id != *id);
        candidates.into_iter().find(free).ok_or_else(too_many_indexes)
    }

    fn finish(&mut self, id: SchemaId, reason: Option<String>) {
        self.pending = None;
        self.finished.insert(id, reason);
        while self.finished.len() > FINISHED_MAX {
            self.finished.pop_first();
        }
    }

    fn forget_table(&mut self, name: &str) {
        if let Some(table) = self.tables.remove(name) {
            self.index_id_last.remove(&table.id);
            self.truncated.remove(&table.id);
        }
    }

    /// Changes a table's definition under a new version.
    fn edit(&mut self, name: &str, version: u64, change: impl FnOnce(&mut Table)) {
        if let Some(table) = self.tables.get_mut(name) {
            let table = table.make_mut();
            change(table);
            table.version = version;
        }
    }
}

impl State {
    pub(crate) fn schema_prepare(
        &mut self,
        index: u64,
        change: &SchemaChange,
        timeout_ms: u64,
        version: u64,
    ) -> Changes {
        if let Some(pending) = &self.schema.pending {
            let message = format!("another schema change, of table \"{}\", is under way", pending.change.table_name());
            return Err(conflict(message));
        }
        let (change, table) = self.complete(change, version)?;
        let timeout_ms = match timeout_ms {
            0 => self.settings.count(Setting::SchemaTimeoutS) as u64 * 1000,
            given => given.min(TIMEOUT_MS_MAX),
        };
        let schema = self.schema.make_mut();
        schema.id_last += 1;
        schema.version = version;
        match &change {
            SchemaChange::CreateTable { table } => {
                schema.table_id_last = table.id;
                let index_id_last = table.indexes.iter().map(|index| index.id).max().unwrap_or(0);
                schema.index_id_last.insert(table.id, index_id_last);
                schema.tables.insert(table.name.clone(), Shared::new(table.clone()));
            }
            SchemaChange::DropTable { table } => schema.edit(table, version, |t| t.state = TableState::Dropping),
            SchemaChange::CreateIndex { index, .. } => {
                schema.index_id_last.insert(table, index.id);
            }
            SchemaChange::DropIndex { .. } | SchemaChange::Truncate { .. } => {}
        }
        let id = schema.id_last;
        schema.pending = Some(PendingChange { id, change, table, index, timeout_ms });
        Ok(vec![Change::SchemaPending(id), Change::Table(table)])
    }

    /// Checks a change against the schema and fills in the ids.
    fn complete(&self, change: &SchemaChange, version: u64) -> Result<(SchemaChange, TableId)> {
        match change {
            SchemaChange::CreateTable { table } => {
                let table = self.complete_table(table, version)?;
                let id = table.id;
                Ok((SchemaChange::CreateTable { table }, id))
            }
            SchemaChange::CreateIndex { table: name, index } => {
                let table = self.schema.changeable(name)?;
                if table.indexes.iter().any(|other| other.name == index.name) {
                    let message = format!("table \"{name}\" has an index \"{}\" already", index.name);
                    return Err(Error::new(Code::AlreadyExists, message));
                }
                table.validate_index(index)?;
                let index = Index { id: self.schema.next_index_id(table)?, ..index.clone() };
                Ok((SchemaChange::CreateIndex { table: name.clone(), index }, table.id))
            }
            SchemaChange::DropIndex { table: name, index } => {
                let table = self.schema.changeable(name)?;
                if !table.indexes.iter().any(|other| other.name == *index) {
                    let names = table.indexes.iter().map(|index| index.name.as_str());
                    return Err(missing(Code::NoSuchIndex, &format!("index of table \"{name}\" named"), index, names));
                }
                Ok((change.clone(), table.id))
            }
            SchemaChange::DropTable { table: name } | SchemaChange::Truncate { table: name } => {
                Ok((change.clone(), self.schema.changeable(name)?.id))
            }
        }
    }

    fn complete_table(&self, table: &Table, version: u64) -> Result<Table> {
        table.validate()?;
        if self.schema.tables.contains_key(&table.name) {
            return Err(Error::new(Code::AlreadyExists, format!("table \"{}\" exists already", table.name)));
        }
        if self.schema.tables.len() >= TABLES_MAX {
            return Err(Error::new(Code::LimitExceeded, format!("a cluster has {TABLES_MAX} tables at most")));
        }
        if let Distribution::Sharded { tier, .. } = &table.distribution {
            self.topology.tier(tier)?;
        }
        if table.indexes.len() > INDEX_ID_MAX as usize {
            return Err(too_many_indexes());
        }
        let mut table = Table { version, state: TableState::Preparing, ..table.clone() };
        table.id = self.schema.table_id_last.checked_add(1).ok_or_else(|| Error::internal("table ids are used up"))?;
        for (id, at) in (1u32..).zip(0..table.indexes.len()) {
            table.indexes[at].id = id;
            if table.indexes[..at].iter().any(|other| other.name == table.indexes[at].name) {
                let message = format!("index \"{}\" is named twice", table.indexes[at].name);
                return Err(Error::new(Code::InvalidStatement, message));
            }
        }
        Ok(table)
    }

    pub(crate) fn schema_commit(&mut self, id: SchemaId, version: u64) -> Changes {
        let pending = self.require_pending(id)?.clone();
        let schema = self.schema.make_mut();
        schema.version = version;
        schema.finish(id, None);
        match &pending.change {
            SchemaChange::CreateTable { table } => {
                schema.edit(&table.name, version, |t| t.state = TableState::Operable);
            }
            SchemaChange::DropTable { table } => schema.forget_table(table),
            SchemaChange::CreateIndex { table, index } => {
                schema.edit(table, version, |t| t.indexes.push(index.clone()))
            }
            SchemaChange::DropIndex { table, index } => {
                schema.edit(table, version, |t| t.indexes.retain(|other| other.name != *index));
            }
            SchemaChange::Truncate { .. } => {
                schema.truncated.insert(pending.table, id);
            }
        }
        let table = Change::Table(pending.table);
        Ok(vec![table, Change::SchemaCommitted(Arc::new(pending))])
    }

    pub(crate) fn schema_abort(&mut self, id: SchemaId, reason: &str, version: u64) -> Changes {
        let pending = self.require_pending(id)?.clone();
        let reason: String = reason.chars().take(1000).collect();
        let schema = self.schema.make_mut();
        schema.version = version;
        schema.finish(id, Some(reason.clone()));
        match &pending.change {
            SchemaChange::CreateTable { table } => schema.forget_table(&table.name),
            SchemaChange::DropTable { table } => schema.edit(table, version, |t| t.state = TableState::Operable),
            SchemaChange::CreateIndex { .. } | SchemaChange::DropIndex { .. } | SchemaChange::Truncate { .. } => {}
        }
        let table = Change::Table(pending.table);
        Ok(vec![table, Change::SchemaAborted { aborted: Arc::new(pending), reason }])
    }

    fn require_pending(&self, id: SchemaId) -> Result<&PendingChange> {
        let pending = self.schema.pending.as_ref().filter(|pending| pending.id == id);
        pending.ok_or_else(|| conflict(format!("schema change {id} is not under way")))
    }

    /// Only checks: the rows are the module's.
    pub(crate) fn global_write(&self, table: TableId, table_version: u64) -> Changes {
        let Some(table) = self.schema.table_by_id(table).filter(|table| table.state == TableState::Operable) else {
            return Err(Error::new(Code::SchemaChanged, "the table was dropped while the statement ran"));
        };
        if !table.is_global() {
            return Err(Error::new(Code::Argument, format!("table \"{}\" is not global", table.name)));
        }
        if table.version != table_version {
            return Err(Error::new(
                Code::SchemaChanged,
                format!("table \"{}\" was changed while the statement ran", table.name),
            ));
        }
        Ok(vec![Change::GlobalRows(table.id)])
    }
}

fn too_many_indexes() -> Error {
    Error::new(Code::LimitExceeded, format!("a table has {INDEX_ID_MAX} indexes at most besides its primary key"))
}
