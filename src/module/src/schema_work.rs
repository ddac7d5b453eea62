//! Spaces and indexes follow the catalog: what a pending change needs is built before it is committed, what a finished one
//! left over is taken down after, and an instance that was away catches up.
//!
//! A master does the work in the host's own schema; a replica receives it and only waits.

use crate::host::{Deadline, Event, Parked, fiber, space};
use crate::node::Node;
use crate::storage::spaces;
use catalog::{Change, PendingChange, State};
use model::{Code, Error, Result, SchemaChange, Table, TableId};
use std::cell::Cell;
use std::ffi::c_int;
use std::rc::Rc;
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
    let wanted: Table = match &pending.change {
        SchemaChange::CreateTable { .. } => Table::clone(current),
        SchemaChange::CreateIndex { index, .. } => {
            let mut table = Table::clone(current);
            table.indexes.push(index.clone());
            table
        }
        // These only take away, which is done after the commit.
        SchemaChange::DropTable { .. } | SchemaChange::DropIndex { .. } | SchemaChange::Truncate { .. } => {
            return Ok(());
        }
    };
    if !space::is_read_only() {
        return node.schema_work.run(deadline, || spaces::make(&wanted));
    }
    node.storage_changed.wait_until(deadline, "the master's schema change", || match spaces::is_made(&wanted) {
        Ok(true) => Some(Ok(())),
        Ok(false) => None,
        Err(error) => Some(Err(error)),
    })?
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
    for table in state.schema.tables.values() {
        spaces::make(table)?;
    }
    for (table, index) in spaces::made_indexes(catalog::schema::TABLE_ID_FIRST)? {
        let pending = state.schema.pending.as_ref().is_some_and(|pending| pending.table == table);
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
