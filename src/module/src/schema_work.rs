//! Spaces and indexes follow the catalog: what a pending change needs is built before it is committed, what a finished one
//! took away goes after, and an instance that was away catches up.
//!
//! A master does the work in the host's own schema; a replica receives it and only waits. What is to be done is found by
//! comparing, never remembered: a master that dies in the middle, or whose disk is full, leaves it to the next attempt.

use crate::acks;
use crate::host::{Deadline, Event, Parked, failpoint, fiber, space};
use crate::node::Node;
use crate::router;
use crate::start::storage::create;
use crate::storage::{self, rows, spaces};
use catalog::{PendingChange, SchemaId, State};
use crud::Layout;
use model::{Alteration, Code, Durability, Error, Result, SchemaChange, Table, TableId};
use std::cell::Cell;
use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;
use tlua::ffi::lua_State;

/// How soon work that failed is tried again.
const RETRY_MS: u64 = 200;
/// How long a replica that lacks a table waits before it asks again whether the table still exists.
const ASK_AGAIN_MS: u64 = 500;

/// Work on the host's schema, one piece at a time.
pub struct SchemaWork {
    busy: Cell<bool>,
    idle: Event,
    is_due: Cell<bool>,
    due: Event,
    /// The term of the replicaset's masters in which this instance, as the master, last made the host's schema what the
    /// catalog says, and the last change that was over then.
    conformed: Cell<(u64, SchemaId)>,
}

impl SchemaWork {
    pub fn new() -> Result<Rc<Self>> {
        Ok(Rc::new(Self {
            busy: Cell::new(false),
            idle: Event::new()?,
            is_due: Cell::new(true),
            due: Event::new()?,
            conformed: Cell::new((0, 0)),
        }))
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
        return node.schema_work.run(deadline, || {
            prepare_rows(&wanted, pending)?;
            failpoint::reach("schema.rows_prepared");
            spaces::make(&wanted)
        });
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
            if matches!(alteration, Alteration::SetDurability { durability: Durability::Replicated }) {
                // What was written before is as safe from now on as what is written after.
                acks::await_in_sync()?;
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

/// Starts the fiber that takes away what finished changes left over.
pub fn start(node: &'static Node) -> Result<()> {
    fiber::spawn("pico_schema", move || {
        let work = &node.schema_work;
        while !fiber::is_cancelled() {
            if !work.is_due.replace(false) {
                work.due.wait(Deadline::NEVER);
                continue;
            }
            if let Err(error) = follow(node) {
                log::error!("schema: this instance's spaces are not yet what the catalog says: {error}");
                work.is_due.set(true);
                work.due.wait(Deadline::after_ms(RETRY_MS));
            }
        }
    })
    .map(drop)
}

/// The catalog changed.
pub fn on_change(node: &Node) {
    node.schema_work.is_due.set(true);
    node.schema_work.due.notify_all();
}

/// As the master, makes the host's schema what the catalog says, if it is not known to be.
///
/// Errors: the host's.
pub fn follow(node: &Node) -> Result<()> {
    let wanted = || {
        let last = node.state().schema.finished.keys().last().copied().unwrap_or(0);
        node.master_term().filter(|_| !space::is_read_only()).map(|term| (term, last))
    };
    let conformed = &node.schema_work.conformed;
    if wanted().is_none_or(|wanted| wanted == conformed.get()) {
        return Ok(());
    }
    node.schema_work.run(Deadline::NEVER, || {
        let Some((term, last)) = wanted() else { return Ok(()) };
        if term != conformed.get().0 {
            create(&node.config)?;
        }
        failpoint::reach("schema.conforming");
        conform(&node.state())?;
        failpoint::reach("schema.conformed");
        conformed.set((term, last));
        Ok(())
    })?;
    router::install(&node.state(), &node.me.name, !space::is_read_only(), &node.pool)?;
    node.storage_changed.notify_all();
    Ok(())
}

/// Makes tables that should be here, drops spaces and indexes that the catalog does not know, and empties tables that were
/// truncated. On a writable instance.
fn conform(state: &State) -> Result<()> {
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
            None if !pending => {
                failpoint::reach("schema.dropping");
                spaces::drop_space(table)?;
            }
            Some(known) if !pending && index != 0 && known.indexes.iter().all(|i| i.id != index) => {
                spaces::drop_index(table, index)?;
            }
            _ => {}
        }
    }
    let truncations = &storage::get()?.truncations;
    let is_sharded = |table: TableId| state.schema.table_by_id(table).is_some_and(|table| !table.is_global());
    let mut due = truncations.due(state).into_iter().filter(|(table, _)| is_sharded(*table));
    due.try_for_each(|(table, change)| truncations.empty(table, change))
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
            if node.storage_changed.wait(Deadline::after_ms(ASK_AGAIN_MS)) == Parked::Late && is_dropped(node, *id) {
                break;
            }
        }
    }
    Ok(())
}

/// Whether the cluster has dropped the table by now, as far as this instance's replicaset can tell: the log that this
/// instance has received, applied or not, would bring the table back otherwise. Not while nobody answers.
fn is_dropped(node: &Node, table: TableId) -> bool {
    let Some(leader) = node.raft.leader().filter(|leader| *leader != node.me.raft_id) else { return false };
    crate::doors::table::exists_at(node, leader, table).is_ok_and(|exists| !exists)
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
