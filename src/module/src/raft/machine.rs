//! The state machine on this instance: the catalog's state in memory, and the rows of global tables in box.
//!
//! The state is as of `applied`, rows are as of the same entry because both are written in the transaction that also
//! keeps the log. On disk the state is a snapshot and the log after it: `restore` replays the log on the snapshot without
//! touching rows, which have seen those entries already.

use crate::host::{Event, Transaction, failpoint};
use crate::raft::disk;
use catalog::{Change, Entry, InstanceState, Op, Outcome, State};
use consensus::{Committed, Log, Membership, Payload, Persist, Position, Snapshot};
use model::msgpack::{Reader, write_array_len, write_bin};
use model::{Code, Error, InstanceName, RaftId, Result, SchemaChange, TableId};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// The rows of global tables, and the spaces that hold them.
pub trait Rows {
    /// Makes sure that the spaces of `state` exist for what is about to be written. May yield.
    fn prepare(&self, state: &State, tables: &[TableId]) -> Result<()>;
    /// Applies the changes of one entry; answers what its proposer is to hear. Must not yield.
    fn write(&self, state: &State, table: TableId, changes: &[u8]) -> Result<Vec<u8>>;
    /// Deletes all rows, if the table is global. Must not yield.
    fn clear(&self, state: &State, table: TableId) -> Result<()>;
    /// All rows of all global tables, as `load` reads them. Must not yield.
    fn dump(&self, state: &State) -> Result<Vec<u8>>;
    /// Replaces all rows of all global tables. Must not yield.
    fn load(&self, state: &State, dump: &[u8]) -> Result<()>;
}

/// An entry that was applied.
pub struct Applied {
    pub position: Position,
    /// None for entries that carry nothing of ours.
    pub outcome: Option<Outcome>,
    /// What a global write answered.
    pub rows: Option<Result<Vec<u8>>>,
}

/// The state as other fibers and threads see it: replaced as a whole after each transaction.
pub struct Published {
    state: RefCell<Arc<State>>,
    /// Fires when the state was replaced.
    pub changed: Event,
}

impl Published {
    pub fn new(state: State) -> Result<Rc<Self>> {
        Ok(Rc::new(Self { state: RefCell::new(Arc::new(state)), changed: Event::new()? }))
    }

    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }
}

/// What is told of each transaction that applied something, after it: the new state.
pub type Listener = Box<dyn Fn(&Arc<State>)>;

pub struct Machine {
    state: State,
    applied: u64,
    snapshot_index: u64,
    rows: Rc<dyn Rows>,
    published: Rc<Published>,
    listener: Listener,
}

/// Reads the catalog's state from disk: the snapshot, and on it the log's entries that were applied.
pub fn restore(log: &Log) -> Result<(State, u64)> {
    let (snapshot_index, mut state) = match disk::read_catalog()? {
        Some((index, bytes)) => (index, State::from_bytes(&bytes)?),
        None => (0, State::default()),
    };
    for Committed { position, payload } in log.replay(snapshot_index)? {
        if let Payload::Data { data, .. } = payload {
            state.apply(position.index, &Entry::from_bytes(&data)?);
        }
    }
    Ok((state, snapshot_index))
}

impl Machine {
    /// A machine that stands at the log's applied entry with this state.
    pub fn new(
        state: State,
        applied: u64,
        snapshot_index: u64,
        rows: Rc<dyn Rows>,
        published: Rc<Published>,
        listener: Listener,
    ) -> Self {
        Self { state, applied, snapshot_index, rows, published, listener }
    }

    pub fn applied(&self) -> u64 {
        self.applied
    }

    pub fn snapshot_index(&self) -> u64 {
        self.snapshot_index
    }

    /// Waits for what the transaction will need. May yield.
    pub fn prepare(&self, snapshot: Option<&Snapshot>, committed: &[Committed]) -> Result<()> {
        if let Some(snapshot) = snapshot {
            let (state, _) = split_snapshot(&snapshot.data)?;
            let tables: Vec<TableId> =
                state.schema.tables.values().filter(|table| table.is_global()).map(|table| table.id).collect();
            return self.rows.prepare(&state, &tables);
        }
        let mut tables = Vec::new();
        for entry in committed {
            if let Payload::Data { data, .. } = &entry.payload
                && let Op::GlobalWrite { table, .. } = Entry::from_bytes(data)?.op
                && !tables.contains(&table)
            {
                tables.push(table);
            }
        }
        if tables.is_empty() { Ok(()) } else { self.rows.prepare(&self.state, &tables) }
    }

    /// One transaction: the log's rows, and the effects of what is committed. Then the new state is published.
    ///
    /// Errors: the host's, such as `Storage` when the disk is full. Nothing was done then: the same call may be made again.
    pub fn write(
        &mut self,
        persist: &Persist,
        snapshot: Option<&Snapshot>,
        committed: &[Committed],
    ) -> Result<Vec<Applied>> {
        let before = (self.applied, self.snapshot_index);
        let applied = self.write_all(persist, snapshot, committed).inspect_err(|_| {
            self.state = State::clone(&self.published.state());
            (self.applied, self.snapshot_index) = before;
        })?;
        if snapshot.is_some() || !committed.is_empty() {
            let state = Arc::new(self.state.clone());
            *self.published.state.borrow_mut() = Arc::clone(&state);
            (self.listener)(&state);
            failpoint::reach("apply.published");
            self.published.changed.notify_all();
        }
        Ok(applied)
    }

    fn write_all(
        &mut self,
        persist: &Persist,
        snapshot: Option<&Snapshot>,
        committed: &[Committed],
    ) -> Result<Vec<Applied>> {
        failpoint::reach("apply.begins");
        let transaction = Transaction::begin()?;
        if let Some(snapshot) = snapshot {
            self.install(snapshot)?;
            failpoint::reach("snapshot.installed");
        }
        disk::write(persist)?;
        failpoint::reach("apply.log_written");
        let applied = committed.iter().map(|entry| self.apply(entry)).collect::<Result<_>>()?;
        if !committed.is_empty() {
            failpoint::reach("apply.applied");
        }
        transaction.commit()?;
        if !committed.is_empty() {
            failpoint::reach("apply.committed");
        }
        Ok(applied)
    }

    /// Applies what is left of the log, lets the instances go that are lost, and begins another log behind that, of which
    /// this instance is the only voter. One transaction; what is published stays as it was.
    pub fn recover(
        &mut self,
        rest: &[Committed],
        position: Position,
        lost: BTreeSet<InstanceName>,
        me: RaftId,
    ) -> Result<()> {
        let before = (self.applied, self.snapshot_index);
        self.recover_all(rest, position, lost, me).inspect_err(|_| {
            self.state = State::clone(&self.published.state());
            (self.applied, self.snapshot_index) = before;
        })
    }

    fn recover_all(
        &mut self,
        rest: &[Committed],
        position: Position,
        lost: BTreeSet<InstanceName>,
        me: RaftId,
    ) -> Result<()> {
        let transaction = Transaction::begin()?;
        rest.iter().try_for_each(|entry| self.apply(entry).map(drop))?;
        self.state.apply(position.index, &Entry::new(Op::Recover { lost })).into_result()?;
        let others = self.state.topology.instances.values().filter(|other| other.state != InstanceState::Expelled);
        let learners = others.map(|other| other.raft_id).filter(|other| *other != me);
        let (_, mut persist) = Log::begin_at(position, Membership::new([me], learners));
        persist.truncate_from = Some(0);
        disk::write(&persist)?;
        disk::write_catalog(position.index, &self.state.to_bytes()?)?;
        failpoint::reach("recover.writing");
        transaction.commit()?;
        failpoint::reach("recover.written");
        Ok(())
    }

    fn apply(&mut self, entry: &Committed) -> Result<Applied> {
        let position = entry.position;
        self.applied = position.index;
        let Payload::Data { data, .. } = &entry.payload else {
            return Ok(Applied { position, outcome: None, rows: None });
        };
        let decoded = Entry::from_bytes(data)?;
        let outcome = self.state.apply(position.index, &decoded);
        let mut rows = None;
        if let (Outcome::Applied { changes: made, .. }, op) = (&outcome, decoded.op) {
            if let Op::GlobalWrite { table, changes, .. } = op {
                rows = match self.rows.write(&self.state, table, &changes) {
                    // A refusal is the same on every instance. Want of memory is not: it must not part them.
                    Err(error) if error.code == Code::Storage => return Err(error),
                    result => Some(result),
                };
            }
            for change in made {
                if let Change::SchemaCommitted(done) = change
                    && matches!(done.change, SchemaChange::Truncate { .. })
                {
                    self.rows.clear(&self.state, done.table)?;
                }
            }
        }
        Ok(Applied { position, outcome: Some(outcome), rows })
    }

    fn install(&mut self, snapshot: &Snapshot) -> Result<()> {
        let (state, rows) = split_snapshot(&snapshot.data)?;
        self.rows.load(&state, rows)?;
        disk::write_catalog(snapshot.position.index, &state.to_bytes()?)?;
        self.state = state;
        self.applied = snapshot.position.index;
        self.snapshot_index = snapshot.position.index;
        Ok(())
    }

    /// Everything another instance needs to stand where this one does, and the entry that it stands at.
    pub fn snapshot(&self) -> Result<(u64, Vec<u8>)> {
        failpoint::reach("snapshot.made");
        let mut data = Vec::new();
        write_array_len(&mut data, 2);
        write_bin(&mut data, &self.state.to_bytes()?);
        write_bin(&mut data, &self.rows.dump(&self.state)?);
        Ok((self.applied, data))
    }

    /// Writes the state's snapshot, so that the log before it can go; answers the entry that it stands at.
    pub fn write_snapshot(&mut self) -> Result<u64> {
        let transaction = Transaction::begin()?;
        disk::write_catalog(self.applied, &self.state.to_bytes()?)?;
        failpoint::reach("compact.writing");
        transaction.commit()?;
        failpoint::reach("compact.written");
        self.snapshot_index = self.applied;
        Ok(self.applied)
    }
}

fn split_snapshot(data: &[u8]) -> Result<(State, &[u8])> {
    let broken = |e: Error| Error::new(Code::Corrupted, format!("a snapshot of the cluster's state: {}", e.message));
    let mut reader = Reader::new(data);
    reader.array_len().map_err(broken)?;
    let state = State::from_bytes(reader.bin().map_err(broken)?)?;
    Ok((state, reader.bin().map_err(broken)?))
}
