//! Storage: rows in box spaces on this instance, and which buckets of them it serves.
//!
//! In come operations, selections and scans whose keys already are what box takes; out go tuples and counts. What may be
//! read and written at a moment is decided by the catalog, which `install` is told after each change; the rules
//! themselves are the crate `crud`'s.

pub mod batch;
pub mod columns;
pub mod global;
pub mod moments;
pub mod procedure;
pub mod room;
pub mod rows;
pub mod scan;
pub mod select;
pub mod spaces;
mod store;
pub mod truncation;
pub mod watching;

use crate::host::{Deadline, Event, fiber, txn};
use crate::{acks, lease};
use catalog::{Move, MoveId, SchemaId, State};
use crud::batch::Tables;
use crud::{BucketGuard, BucketState, Layout};
use foldhash::HashMap;
use model::{InstanceName, Result, TableId, TableState};
use sharding::{BucketRange, MovePhase};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

pub use store::{BoxStore, BoxWalk};
use truncation::Truncations;

/// The tables of one catalog version, ready for use.
#[derive(Debug, Default)]
pub struct TableSet {
    by_id: HashMap<TableId, Arc<Layout>>,
}

impl TableSet {
    pub fn get(&self, id: TableId) -> Option<&Arc<Layout>> {
        self.by_id.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Layout>> {
        self.by_id.values()
    }

    /// The operable tables of a state. Definitions that did not change are taken over from the set before.
    fn of(state: &State, before: &TableSet) -> TableSet {
        let operable = state.schema.tables.values().filter(|table| table.state == TableState::Operable);
        let layouts = operable.map(|table| match before.get(table.id) {
            Some(layout) if layout.table.version == table.version => Arc::clone(layout),
            _ => Arc::new(Layout::new(table.arc())),
        });
        TableSet { by_id: layouts.map(|layout| (layout.table.id, layout)).collect() }
    }

    /// The same without the sharded tables that are to be truncated.
    fn without(&self, due: &[(TableId, SchemaId)]) -> TableSet {
        let stays =
            |layout: &&Arc<Layout>| !layout.is_sharded() || due.iter().all(|(table, _)| *table != layout.table.id);
        TableSet { by_id: self.iter().filter(stays).map(|layout| (layout.table.id, Arc::clone(layout))).collect() }
    }
}

impl Tables for TableSet {
    fn layout(&self, id: TableId) -> Option<&Layout> {
        self.get(id).map(Arc::as_ref)
    }
}

/// What this instance serves. One a process, on the tx thread.
pub struct Storage {
    pub guard: RefCell<BucketGuard>,
    tables: RefCell<Rc<TableSet>>,
    /// Those of them whose rows may be read and written.
    served: RefCell<Rc<TableSet>>,
    /// What is known of truncations beside the rows.
    pub truncations: Truncations,
    /// Moves out of here whose buckets take no more writes.
    closed: RefCell<HashSet<MoveId>>,
    /// Finished moves to here whose source has said that it serves the buckets no more.
    released: RefCell<HashSet<MoveId>>,
    /// Rows of buckets that are not served may lie in the spaces: a move left or brings them.
    has_strays: Cell<bool>,
    /// Fires when a write or a scan ended while somebody waits for that.
    pub quiet: Event,
}

thread_local! {
    static STORAGE: OnceCell<&'static Storage> = const { OnceCell::new() };
}

/// This instance's storage. It serves nothing before the first `install`.
///
/// Errors: `Storage` when there is no memory.
pub fn get() -> Result<&'static Storage> {
    STORAGE.with(|cell| match cell.get() {
        Some(storage) => Ok(*storage),
        None => {
            // The host takes changes back without telling its triggers.
            txn::on_failed_commit(|| watching::lose(None));
            let storage: &'static Storage = Box::leak(Box::new(Storage {
                guard: RefCell::new(BucketGuard::new("")),
                tables: RefCell::default(),
                served: RefCell::default(),
                truncations: Truncations::default(),
                closed: RefCell::default(),
                released: RefCell::default(),
                has_strays: Cell::new(false),
                quiet: Event::new()?,
            }));
            Ok(*cell.get_or_init(|| storage))
        }
    })
}

/// Waits until all members in sync have what this instance began with as master; each read waits for itself until then,
/// and goes on doing so when this fails.
fn settle_inherited(tenure: u64) {
    let wait = move || -> Result<()> {
        acks::settle()?;
        get()?.guard.borrow_mut().inherited(tenure);
        Ok(())
    };
    let spawned = fiber::spawn("pico_inherited", move || {
        if let Err(error) = wait() {
            log::warn!("storage: what this master began with is not known to be kept: {error}");
        }
    });
    if let Err(error) = spawned {
        log::warn!("storage: no fiber to wait for what this master began with: {error}");
    }
}

impl Storage {
    /// The tables as of now. A holder keeps its version while the catalog goes on.
    pub fn tables(&self) -> Rc<TableSet> {
        Rc::clone(&self.tables.borrow())
    }

    /// The tables whose rows may be read and written: all but those that wait for a truncation.
    fn served(&self) -> Rc<TableSet> {
        Rc::clone(&self.served.borrow())
    }

    /// Whether no table waits for a truncation.
    fn serves_all(&self) -> bool {
        Rc::ptr_eq(&self.tables.borrow(), &self.served.borrow())
    }

    /// Whether rows may be here that are not served.
    pub fn has_strays(&self) -> bool {
        self.has_strays.get()
    }

    /// Looks at the clock, before anything is done that only a master may do.
    pub fn look_at_lease(&self) {
        self.guard.borrow_mut().set_lease(lease::holds());
    }

    /// Waits until nothing that was read in these buckets can be lost. Yields, unless nothing can.
    ///
    /// Errors: `Timeout`.
    pub fn settle(&self, buckets: &[BucketRange]) -> Result<()> {
        let (unsettled, tenure) = {
            let guard = self.guard.borrow();
            (guard.unsettled_among(buckets), guard.tenure())
        };
        if unsettled.is_empty() {
            return Ok(());
        }
        acks::settle()?;
        let mut guard = self.guard.borrow_mut();
        guard.settle(&unsettled);
        guard.inherited(tenure);
        Ok(())
    }

    /// The same for all buckets that are served here.
    ///
    /// Errors: `Timeout`.
    pub fn settle_all(&self) -> Result<()> {
        let readable = self.guard.borrow().readable();
        self.settle(&readable)
    }

    /// Takes over what the catalog says. `is_writable`: box takes writes here.
    pub fn install(&self, state: &State, me: &InstanceName, is_writable: bool) {
        let tables = Rc::new(TableSet::of(state, &self.tables.borrow()));
        let due = self.truncations.due(state);
        let served = if due.is_empty() { Rc::clone(&tables) } else { Rc::new(tables.without(&due)) };
        *self.tables.borrow_mut() = tables;
        *self.served.borrow_mut() = served;
        let Some(instance) = state.topology.instances.get(me) else { return };
        let replicaset = state.topology.replicasets.get(&instance.replicaset);
        let is_master = is_writable && replicaset.is_some_and(|r| r.master.as_ref() == Some(me));
        let tables = self.tables();
        columns::install(state, |table| {
            let layout = tables.get(table).filter(|layout| is_master || !layout.is_sharded());
            layout.map(|layout| layout.table.version)
        });
        let Some(map) = state.placement.map(&instance.tier) else { return };
        let mut guard = self.guard.borrow_mut();
        guard.set_instance(me.as_str());
        let begins = guard.set_version(state.version, map.bucket_count(), is_master);
        for range in map.ranges() {
            let is_mine = range.replicaset == instance.replicaset;
            guard.set_state(range.buckets, if is_mine { BucketState::Active } else { BucketState::Foreign });
        }
        let moves: Vec<&Move> = state.placement.moves.values().filter(|m| m.tier == instance.tier).collect();
        self.forget_moves(&moves);
        let mut has_strays = false;
        for m in moves {
            has_strays |= m.from == instance.replicaset || m.to == instance.replicaset;
            if let Some(moving) = self.state_in_move(m, m.from == instance.replicaset, m.to == instance.replicaset) {
                guard.set_state(m.buckets, moving);
            }
        }
        self.has_strays.set(has_strays);
        drop(guard);
        if let Some(tenure) = begins {
            settle_inherited(tenure);
        }
        self.quiet.notify_all();
    }

    /// How a move changes what is done with its buckets here; None when it does not.
    fn state_in_move(&self, m: &Move, is_source: bool, is_destination: bool) -> Option<BucketState> {
        match m.phase {
            MovePhase::Copying if is_source && self.closed.borrow().contains(&m.id) => Some(BucketState::ReadOnly),
            MovePhase::Copying if is_destination => Some(BucketState::Receiving),
            MovePhase::Finished if is_destination && !self.released.borrow().contains(&m.id) => {
                Some(BucketState::ReadOnly)
            }
            _ => None,
        }
    }

    fn forget_moves(&self, moves: &[&Move]) {
        let is_there = |id: &MoveId| moves.iter().any(|m| m.id == *id);
        self.closed.borrow_mut().retain(is_there);
        self.released.borrow_mut().retain(is_there);
    }

    /// Stops writes to the buckets of a move out of here, and waits until those under way are through.
    ///
    /// Errors: `Timeout`, with the buckets still closed.
    pub fn close(&self, id: MoveId, buckets: BucketRange, deadline: Deadline) -> Result<()> {
        self.closed.borrow_mut().insert(id);
        self.guard.borrow_mut().set_state(buckets, BucketState::ReadOnly);
        let is_quiet = || (self.guard.borrow().writes_in_flight(buckets) == 0).then_some(());
        self.quiet.wait_until(deadline, "the last writes to buckets that move", is_quiet)
    }

    /// Takes writes again after a `close` that led to nothing.
    pub fn reopen(&self, id: MoveId, buckets: BucketRange) {
        if self.closed.borrow_mut().remove(&id) {
            self.guard.borrow_mut().set_state(buckets, BucketState::Active);
        }
    }

    /// The source of a finished move serves its buckets no more: they take writes here.
    pub fn release(&self, id: MoveId, buckets: BucketRange) {
        self.released.borrow_mut().insert(id);
        self.guard.borrow_mut().set_state(buckets, BucketState::Active);
    }

    /// Waits until no scan reads these buckets, so that their rows can go.
    ///
    /// Errors: `Timeout`.
    pub fn wait_unread(&self, buckets: BucketRange, deadline: Deadline) -> Result<()> {
        let is_unread = || (!self.guard.borrow().is_scanned(buckets)).then_some(());
        self.quiet.wait_until(deadline, "scans of buckets that moved", is_unread)
    }
}
