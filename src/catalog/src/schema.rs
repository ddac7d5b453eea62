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
use model::{
    Code, Distribution, Error, Generated, Index, Result, SchemaChange, SequenceId, Table, TableId, TableState, View,
};
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
    /// The table that is made, changed or dropped; 0 for what is no table.
    pub table: TableId,
    /// The log index of its `SchemaPrepare`.
    pub index: u64,
    pub timeout_ms: u64,
}

/// All tables and views, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// The catalog version that last changed a table.
    pub version: u64,
    pub tables: BTreeMap<String, Shared<Table>>,
    #[serde(default)]
    pub views: BTreeMap<String, Shared<View>>,
    pub pending: Option<PendingChange>,
    /// The last changes that are over: why they were aborted, or None when they were committed.
    pub finished: BTreeMap<SchemaId, Option<String>>,
    /// The last changes by the log index of their `SchemaPrepare`.
    #[serde(default)]
    pub prepared: BTreeMap<u64, SchemaId>,
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
            views: BTreeMap::new(),
            pending: None,
            finished: BTreeMap::new(),
            prepared: BTreeMap::new(),
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
    pub(crate) fn changeable(&self, name: &str) -> Result<&Shared<Table>> {
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

    /// Answers the sequences of its columns.
    fn forget_table(&mut self, name: &str) -> Vec<SequenceId> {
        let Some(table) = self.tables.remove(name) else { return Vec::new() };
        self.index_id_last.remove(&table.id);
        self.truncated.remove(&table.id);
        sequences_of(&table)
    }

    /// The name of a table, a view or a sequence is nobody else's.
    fn check_name(&self, name: &str) -> Result<()> {
        if self.tables.contains_key(name) {
            return Err(Error::new(Code::AlreadyExists, format!("table \"{name}\" exists already")));
        }
        if self.views.contains_key(name) {
            return Err(Error::new(Code::AlreadyExists, format!("view \"{name}\" exists already")));
        }
        Ok(())
    }

    /// Changes a table's definition under a new version.
    pub(crate) fn edit(&mut self, name: &str, version: u64, change: impl FnOnce(&mut Table)) {
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
            let message = format!("another schema change, of \"{}\", is under way", pending.change.subject());
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
        let id = schema.id_last;
        schema.prepared.insert(index, id);
        while schema.prepared.len() > FINISHED_MAX {
            schema.prepared.pop_first();
        }
        let is_instant = change.is_instant();
        self.announce(&change, table, version);
        self.schema.make_mut().pending = Some(PendingChange { id, change, table, index, timeout_ms });
        if is_instant {
            return self.schema_commit(id, version);
        }
        Ok(vec![Change::SchemaPending(id), Change::Table(table)])
    }

    /// What holds of a change while it is pending.
    fn announce(&mut self, change: &SchemaChange, table: TableId, version: u64) {
        let schema = self.schema.make_mut();
        match change {
            SchemaChange::CreateTable { table } => {
                schema.table_id_last = table.id;
                let index_id_last = table.indexes.iter().map(|index| index.id).max().unwrap_or(0);
                schema.index_id_last.insert(table.id, index_id_last);
                schema.tables.insert(table.name.clone(), Shared::new(table.clone()));
                let sequences = self.sequences.make_mut();
                table.columns.iter().filter_map(own_sequence).for_each(|sequence| {
                    // Takes the ids that `complete` has read.
                    sequences.next_id();
                    sequences.start(sequence);
                });
            }
            SchemaChange::DropTable { table, .. } => schema.edit(table, version, |t| t.state = TableState::Dropping),
            SchemaChange::CreateIndex { index, .. } => {
                schema.index_id_last.insert(table, index.id);
            }
            SchemaChange::AlterTable { table, alteration } => schema.announce_alteration(table, alteration, version),
            _ => {}
        }
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
            SchemaChange::DropTable { table: name, cascade } => {
                let id = self.schema.changeable(name)?.id;
                if !cascade {
                    let what = format!("table \"{name}\" can not be dropped");
                    self.schema.check_unused(name, &what, "drop the view first, or both with CASCADE")?;
                }
                Ok((change.clone(), id))
            }
            SchemaChange::Truncate { table: name } => Ok((change.clone(), self.schema.changeable(name)?.id)),
            SchemaChange::AlterTable { table: name, alteration } => {
                let table = self.schema.changeable(name)?;
                let alteration = self.complete_alteration(table, alteration)?;
                Ok((SchemaChange::AlterTable { table: name.clone(), alteration }, table.id))
            }
            SchemaChange::CreateView { view, replace } => {
                if !(*replace && self.schema.views.contains_key(&view.name)) {
                    self.check_new_name(&view.name)?;
                }
                self.schema.check_view(view, *replace)?;
                let view = View { version, ..view.clone() };
                Ok((SchemaChange::CreateView { view, replace: *replace }, 0))
            }
            SchemaChange::DropView { view: name, cascade } => {
                let names = self.schema.views.keys().map(String::as_str);
                if !self.schema.views.contains_key(name) {
                    return Err(missing(Code::NoSuchTable, "view", name, names));
                }
                if !cascade {
                    let what = format!("view \"{name}\" can not be dropped");
                    self.schema.check_unused(name, &what, "drop the other view first, or both with CASCADE")?;
                }
                Ok((change.clone(), 0))
            }
            SchemaChange::CreateSequence { name, sequence } => {
                self.check_new_name(name)?;
                sequence.validate()?;
                self.sequences.check_room()?;
                let sequence = model::Sequence { id: self.sequences.id_next(), ..sequence.clone() };
                Ok((SchemaChange::CreateSequence { name: name.clone(), sequence }, 0))
            }
            SchemaChange::DropSequence { name } => {
                let names = self.sequences.named.keys().map(String::as_str);
                if self.sequences.by_name(name).is_none() {
                    return Err(missing(Code::NoSuchTable, "sequence", name, names));
                }
                let takes = |column: &model::Column| matches!(&column.generated, Some(Generated::NextOf { name: used, .. }) if used == name);
                let user = self.schema.tables.values().find(|table| table.columns.iter().any(takes));
                match user {
                    None => Ok((change.clone(), 0)),
                    Some(table) => {
                        let message = format!("sequence \"{name}\" is a default of table \"{}\"", table.name);
                        Err(Error::new(Code::InUse, message).with_hint("drop the default or the table first"))
                    }
                }
            }
        }
    }

    /// A name for a new table, view or sequence.
    pub(crate) fn check_new_name(&self, name: &str) -> Result<()> {
        self.schema.check_name(name)?;
        if self.sequences.named.contains_key(name) {
            return Err(Error::new(Code::AlreadyExists, format!("sequence \"{name}\" exists already")));
        }
        Ok(())
    }

    fn complete_table(&self, table: &Table, version: u64) -> Result<Table> {
        table.validate()?;
        self.check_new_name(&table.name)?;
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
        let mut id_next = self.sequences.id_next();
        for column in &mut table.columns {
            match &mut column.generated {
                Some(Generated::Identity { sequence, .. }) => {
                    self.sequences.check_room()?;
                    sequence.validate()?;
                    sequence.id = id_next;
                    id_next += 1;
                }
                Some(generated @ Generated::NextOf { .. }) => *generated = self.complete_default(generated)?,
                _ => {}
            }
        }
        Ok(table)
    }

    /// A default with the sequence that it names.
    ///
    /// Errors: `NoSuchTable`.
    pub(crate) fn complete_default(&self, generated: &Generated) -> Result<Generated> {
        let Generated::NextOf { name, .. } = generated else { return Ok(generated.clone()) };
        let names = self.sequences.named.keys().map(String::as_str);
        let sequence = self.sequences.by_name(name);
        let sequence = sequence.ok_or_else(|| missing(Code::NoSuchTable, "sequence", name, names))?;
        Ok(Generated::NextOf { name: name.clone(), sequence: sequence.clone() })
    }

    pub(crate) fn schema_commit(&mut self, id: SchemaId, version: u64) -> Changes {
        let pending = self.require_pending(id)?.clone();
        let schema = self.schema.make_mut();
        schema.version = version;
        schema.finish(id, None);
        let mut stopped = Vec::new();
        match &pending.change {
            SchemaChange::CreateTable { table } => {
                schema.edit(&table.name, version, |t| t.state = TableState::Operable);
            }
            SchemaChange::DropTable { table, .. } => {
                for view in schema.dependents(table) {
                    schema.views.remove(&view);
                }
                stopped = schema.forget_table(table);
            }
            SchemaChange::CreateIndex { table, index } => {
                schema.edit(table, version, |t| t.indexes.push(index.clone()))
            }
            SchemaChange::DropIndex { table, index } => {
                schema.edit(table, version, |t| t.indexes.retain(|other| other.name != *index));
            }
            SchemaChange::Truncate { .. } => {
                schema.truncated.insert(pending.table, id);
            }
            SchemaChange::AlterTable { table, alteration } => {
                stopped = schema.commit_alteration(table, alteration, version);
            }
            SchemaChange::CreateView { view, .. } => {
                schema.views.insert(view.name.clone(), Shared::new(view.clone()));
            }
            SchemaChange::DropView { view, .. } => {
                for dependent in schema.dependents(view) {
                    schema.views.remove(&dependent);
                }
                schema.views.remove(view);
            }
            SchemaChange::CreateSequence { name, sequence } => {
                let sequences = self.sequences.make_mut();
                sequences.next_id();
                sequences.start(sequence);
                sequences.named.insert(name.clone(), sequence.id);
            }
            SchemaChange::DropSequence { name } => stopped.extend(self.sequences.named.get(name)),
        }
        if !stopped.is_empty() {
            let sequences = self.sequences.make_mut();
            stopped.into_iter().for_each(|id| sequences.stop(id));
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
            SchemaChange::CreateTable { table } => {
                let stopped = schema.forget_table(&table.name);
                let sequences = self.sequences.make_mut();
                stopped.into_iter().for_each(|id| sequences.stop(id));
            }
            SchemaChange::DropTable { table, .. } => schema.edit(table, version, |t| t.state = TableState::Operable),
            SchemaChange::AlterTable { table, alteration } => schema.abort_alteration(table, alteration, version),
            _ => {}
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

/// The sequence that belongs to a column.
pub(crate) fn own_sequence(column: &model::Column) -> Option<&model::Sequence> {
    match &column.generated {
        Some(Generated::Identity { sequence, .. }) => Some(sequence),
        _ => None,
    }
}

fn sequences_of(table: &Table) -> Vec<SequenceId> {
    table.columns.iter().filter_map(own_sequence).map(|sequence| sequence.id).collect()
}

fn too_many_indexes() -> Error {
    Error::new(Code::LimitExceeded, format!("a table has {INDEX_ID_MAX} indexes at most besides its primary key"))
}
