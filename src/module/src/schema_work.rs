//! Spaces and indexes follow the catalog: what a pending change needs is built before it is committed, what a finished one
//! left over is taken down after, and an instance that was away catches up.
//!
//! A master does the work in the host's own schema; a replica receives it and only waits.

use crate::host::{Deadline, Event, Parked, fiber, space};
use crate::node::Node;
use crate::storage::{rows, spaces};
use catalog::{Change, PendingChange, State};
use crud::Layout;
use model::{Alteration, Code, Error, Result, SchemaChange, Table, TableId};
use std::cell::Cell;
use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;
use tlua::ffi::lua_State;

/// How long a replica that lacks a table waits before it asks again whether the table still exists.
const ASK_AGAIN_MS: u64 = 500;

/// Work on the host's schema, one piece at a time.
pub struct SchemaWork {
    busy: Cell<bool>,
    idle: Event,
}

impl SchemaWork {
    pub fn new() -> Result<Rc<Self>> {
        Ok(Rc::new(Self { busy: Cell::new(false), idle: Event::new()? }))
    }

    /// Runs `work` when no other is running.
    pub fn run<T>(&self, deadline: Deadline, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.idle.wait_until(deadline, "other work on the schema", || (!self.busy.get()).then_some(()))?;
        self.busy.set(true);
        let result = crate::host::guard::contain(work);
        self.busy.set(false);
        self.idle.notify_all();
        result
    }
}

/// Does what a pending change needs before it can be committed.
///
/// Errors: what the host says, such as `DuplicateKey` under a new unique index; retryable ones are worth asking again.
pub fn build(node: &Node, pending: &PendingChange, deadline: Deadline) -> Result<()> {
    let state = node.state();
    let Some(current) = state.schema.table_by_id(pending.table) else {
        return Err(Error::new(Code::SchemaChanged, "the schema change is over"));
    };
    let mut wanted = Table::clone(current);
    match &pending.change {
        SchemaChange::CreateTable { .. } => {}
        SchemaChange::CreateIndex { index, .. } => wanted.indexes.push(index.clone()),
        SchemaChange::AlterTable { alteration: Alteration::AddCheck { .. }, .. } => {}
        SchemaChange::AlterTable { alteration, .. } => alteration.apply(&mut wanted)?,
        // These only take away, or are of the catalog alone.
        _ => return Ok(()),
    }
    if !space::is_read_only() {
        return node.schema_work.run(deadline, || prepare_rows(&wanted, pending).and_then(|()| spaces::make(&wanted)));
    }
    node.storage_changed.wait_until(deadline, "the master's schema change", || {
        match spaces::is_as_defined(&wanted) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    })?
}

/// What a master does about the rows that are there before a change can be committed.
///
/// Errors: `NullViolation` and `CheckViolation` of the first row that does not meet a new condition.
fn prepare_rows(wanted: &Table, pending: &PendingChange) -> Result<()> {
    match &pending.change {
        SchemaChange::AlterTable { alteration, .. } => {
            if matches!(alteration, Alteration::AddCheck { .. } | Alteration::SetNotNull { .. }) {
                // Writes are held to it since the change was announced here.
                rows::check_all(&Layout::new(Arc::new(wanted.clone())))?;
            }
            spaces::align(wanted)
        }
        // The host would index the column's absence where it has a value for us.
        SchemaChange::CreateIndex { index, .. } => {
            let is_added = |at: &usize| wanted.columns[*at].added.as_ref().is_some_and(|value| !value.is_null());
            if index.columns.iter().any(is_added) {
                if wanted.is_global() {
                    let message = "a global table can not have an index on a column that was added with a default";
                    return Err(Error::new(Code::Unsupported, message).with_hint("make the table anew with the column"));
                }
                rows::pad_all(&Layout::new(Arc::new(wanted.clone())))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Entries were applied: what they took away goes, on a fiber of its own.
pub fn on_change(node: &'static Node, changes: &[Change]) {
    let is_over = |change: &Change| matches!(change, Change::SchemaCommitted(_) | Change::SchemaAborted { .. });
    if !changes.iter().any(is_over) || space::is_read_only() {
        return;
    }
    let truncated: Vec<TableId> = changes
        .iter()
        .filter_map(|change| match change {
            Change::SchemaCommitted(done) if matches!(done.change, SchemaChange::Truncate { .. }) => Some(done.table),
            _ => None,
        })
        .collect();
    let spawned = fiber::spawn("pico_schema", move || {
        let result = node.schema_work.run(Deadline::NEVER, || {
            for table in truncated {
                let is_sharded = node.state().schema.table_by_id(table).is_some_and(|table| !table.is_global());
                if is_sharded {
                    spaces::truncate(table)?;
                }
            }
            conform(&node.state())
        });
        if let Err(error) = result {
            log::error!("schema: what a change left over could not be removed: {error}");
        }
        node.storage_changed.notify_all();
    });
    if let Err(error) = spawned {
        log::error!("schema: no fiber to clean up: {error}");
    }
}

/// Makes the host's schema what the catalog says: tables that should be here are made, spaces and indexes that the
/// catalog does not know are dropped. On a writable instance.
pub fn conform(state: &State) -> Result<()> {
    let is_pending = |table: TableId| state.schema.pending.as_ref().is_some_and(|pending| pending.table == table);
    for table in state.schema.tables.values() {
        if !is_pending(table.id) {
            spaces::align(table)?;
        }
        spaces::make(table)?;
    }
    for (table, index) in spaces::made_indexes(catalog::schema::TABLE_ID_FIRST)? {
        let pending = is_pending(table);
        match state.schema.table_by_id(table) {
            None if !pending => spaces::drop_space(table)?,
            Some(known) if !pending && index != 0 && known.indexes.iter().all(|i| i.id != index) => {
                spaces::drop_index(table, index)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes sure that the spaces of these tables are here before rows are written to them.
pub fn ensure(node: &Node, state: &State, tables: &[TableId]) -> Result<()> {
    for id in tables {
        let Some(table) = state.schema.table_by_id(*id) else { continue };
        while !spaces::is_made(table)? {
            if !space::is_read_only() {
                node.schema_work.run(Deadline::NEVER, || spaces::make(table))?;
                continue;
            }
            // The master will send it, unless the table has been dropped since: the rows are nobody's then.
            if node.storage_changed.wait(Deadline::after_ms(ASK_AGAIN_MS)) == Parked::Late && is_dropped(node, *id)? {
                break;
            }
        }
    }
    Ok(())
}

/// Whether the cluster has dropped the table by now, as far as this instance's replicaset can tell: the log that this
/// instance has received, applied or not, would bring the table back otherwise.
fn is_dropped(node: &Node, table: TableId) -> Result<bool> {
    let Some(leader) = node.raft.leader().filter(|leader| *leader != node.me.raft_id) else { return Ok(false) };
    crate::doors::table::exists_at(node, leader, table).map(|exists| !exists)
}

/// What the host calls from its triggers on `_space` and `_index`.
///
/// # Safety
/// Called by Lua only, on the tx thread.
pub unsafe extern "C-unwind" fn schema_changed(_: *mut lua_State) -> c_int {
    if let Ok(node) = crate::node::get() {
        node.storage_changed.notify_all();
    }
    0
}
