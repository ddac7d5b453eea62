//! The cluster in memory: one node a replicaset, all in this process.

use super::catalog::Catalog;
use super::schema::MemorySchema;
use super::store::Store;
use crate::cluster::{
    BucketRange, Cluster, Frames, Moment, OwnedRange, RowChange, Scan, ScanRequest, Schema, TupleBatch,
};
use ::catalog::PendingChange;
use async_trait::async_trait;
use futures::future::BoxFuture;
use model::{Alteration, BucketId, Code, Error, ReplicasetName, Result, SchemaChange, Sequence, Table, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Few, so that small tables fill them and pruning shows.
const BUCKET_COUNT: u32 = 60;

/// Answers a fragment at a node: `Engine::run_fragment`.
pub type FragmentRunner =
    Arc<dyn Fn(Arc<dyn Cluster>, Vec<u8>) -> BoxFuture<'static, Result<Box<dyn Frames>>> + Send + Sync>;

/// What the nodes share.
struct Shared {
    replicasets: Vec<ReplicasetName>,
    placement: Vec<OwnedRange>,
    catalog: Mutex<Catalog>,
    stores: Vec<Mutex<Store>>,
    runner: OnceLock<FragmentRunner>,
    counts: Counts,
}

/// What is running, for tests that nothing is left behind.
#[derive(Default)]
struct Counts {
    scans_open: AtomicUsize,
    scans: AtomicUsize,
    fragments: AtomicUsize,
}

/// A cluster of `n` replicasets with one node each.
#[derive(Clone)]
pub struct MemoryCluster {
    shared: Arc<Shared>,
}

impl MemoryCluster {
    /// Replicasets `r1` to `rN` that share the buckets evenly.
    pub fn new(replicasets: usize) -> Self {
        assert!(replicasets > 0);
        let names: Vec<ReplicasetName> = (1..=replicasets).map(|n| ReplicasetName(format!("r{n}"))).collect();
        let share = |n: usize| BUCKET_COUNT * n as u32 / replicasets as u32;
        let placement = names.iter().enumerate().map(|(n, name)| OwnedRange {
            buckets: BucketRange::new(share(n) + 1, share(n + 1)),
            replicaset: name.clone(),
            epoch: 1,
        });
        let shared = Shared {
            placement: placement.collect(),
            stores: names.iter().map(|_| Mutex::default()).collect(),
            replicasets: names,
            catalog: Mutex::new(Catalog::new(BUCKET_COUNT)),
            runner: OnceLock::new(),
            counts: Counts::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Says who answers fragments. May be called once.
    pub fn with_runner(self, runner: FragmentRunner) -> Self {
        assert!(self.shared.runner.set(runner).is_ok(), "the runner is set once");
        self
    }

    /// The node of replicaset number `at`, from 0.
    pub fn node(&self, at: usize) -> Arc<dyn Cluster> {
        assert!(at < self.shared.replicasets.len());
        Arc::new(MemoryNode { shared: self.shared.clone(), at })
    }

    /// Makes a table and fills it. Values are coerced to the column types.
    pub fn create(&self, table: Table, rows: Vec<Vec<Value>>) {
        let name = table.name.clone();
        self.shared.change_schema(SchemaChange::CreateTable { table }).expect("a new table");
        let table = lock(&self.shared.catalog).table(&name).expect("the table that was made");
        let coerced = rows.into_iter().map(|row| {
            row.into_iter().zip(&table.columns).map(|(v, c)| v.coerce(c.ty).expect("a value of the type")).collect()
        });
        let changes = coerced.map(|row| RowChange::Insert { row }).collect();
        self.shared.write(&table, changes).expect("rows with keys of their own");
    }

    /// Scans that are open now, on all nodes.
    pub fn scans_open(&self) -> usize {
        self.shared.counts.scans_open.load(Ordering::SeqCst)
    }

    /// Scans that were ever opened.
    pub fn scans(&self) -> usize {
        self.shared.counts.scans.load(Ordering::SeqCst)
    }

    /// Fragments that ever went from one node to another.
    pub fn fragments(&self) -> usize {
        self.shared.counts.fragments.load(Ordering::SeqCst)
    }
}

/// One instance, the master of its replicaset.
pub struct MemoryNode {
    shared: Arc<Shared>,
    at: usize,
}

impl Shared {
    fn owner(&self, bucket: BucketId) -> usize {
        let range = self.placement.iter().find(|r| r.buckets.contains(bucket)).expect("ranges without gaps");
        self.replicasets.iter().position(|name| *name == range.replicaset).expect("an owner that exists")
    }

    fn bucket(&self, table: &Table, row: &[Value]) -> Result<BucketId> {
        let Some(key) = table.sharding_key() else { return Ok(0) };
        let hash = sharding::hash_values(key.iter().map(|at| &row[*at]))?;
        Ok(sharding::bucket_of(hash, BUCKET_COUNT))
    }

    /// The bucket of a primary key, which contains the sharding key.
    fn bucket_of_key(&self, table: &Table, key: &[Value]) -> Result<BucketId> {
        let mut row = vec![Value::Null; table.columns.len()];
        table.primary_key.iter().zip(key).for_each(|(at, value)| row[*at] = value.clone());
        self.bucket(table, &row)
    }

    /// Carries a change out as the cluster does: announced, checked against the rows that are there, committed.
    fn change_schema(&self, change: SchemaChange) -> Result<()> {
        let mut catalog = lock(&self.catalog);
        let Some(pending) = catalog.prepare(&change)? else { return Ok(()) };
        if let Err(error) = self.check_rows(&catalog, &pending) {
            catalog.abort(&pending, &error)?;
            let message = format!("the schema change was undone: {}", error.message);
            return Err(Error::new(Code::SchemaAborted, message));
        }
        catalog.commit(&pending)?;
        if matches!(change, SchemaChange::CreateTable { .. }) {
            catalog.row_counts.insert(pending.table, 0);
        }
        if matches!(change, SchemaChange::Truncate { .. } | SchemaChange::DropTable { .. }) {
            catalog.row_counts.remove(&pending.table);
            self.stores.iter().for_each(|store| lock(store).truncate(pending.table));
        }
        if let SchemaChange::AlterTable { alteration: Alteration::AddColumn { column }, .. } = &change {
            let value = column.default.clone().unwrap_or(Value::Null);
            self.stores.iter().for_each(|store| lock(store).add_column(pending.table, &value));
        }
        Ok(())
    }

    fn check_rows(&self, catalog: &Catalog, pending: &PendingChange) -> Result<()> {
        let Some(table) = catalog.state.schema.table_by_id(pending.table) else { return Ok(()) };
        self.stores.iter().try_for_each(|store| lock(store).check(table))
    }

    /// Applies all changes or none of those that a replicaset got.
    fn write(&self, table: &Table, changes: Vec<RowChange>) -> Result<u64> {
        if lock(&self.catalog).state.schema.table_by_id(table.id).is_none_or(|now| now.version != table.version) {
            return Err(Error::new(Code::SchemaChanged, "the table was changed while the statement ran"));
        }
        let mut parts: BTreeMap<usize, Vec<(BucketId, RowChange)>> = BTreeMap::new();
        for change in changes {
            let bucket = match &change {
                RowChange::Insert { row }
                | RowChange::InsertAbsent { row }
                | RowChange::InsertOrSkip { row }
                | RowChange::Replace { row } => self.bucket(table, row)?,
                RowChange::Update { key, .. } | RowChange::Delete { key, .. } => self.bucket_of_key(table, key)?,
            };
            if table.is_global() {
                (0..self.stores.len()).for_each(|at| parts.entry(at).or_default().push((0, change.clone())));
            } else {
                parts.entry(self.owner(bucket)).or_default().push((bucket, change));
            }
        }
        let copies = if table.is_global() { self.stores.len() as u64 } else { 1 };
        let (mut changed, mut delta) = (0, 0);
        for (at, part) in parts {
            let mut store = lock(&self.stores[at]);
            let mut next = store.clone();
            for (bucket, change) in part {
                let (count, rows) = apply(&mut next, table, bucket, change)?;
                changed += count;
                delta += rows;
            }
            *store = next;
        }
        let mut catalog = lock(&self.catalog);
        let rows = catalog.row_counts.entry(table.id).or_default();
        *rows = rows.saturating_add_signed(delta / copies as i64);
        Ok(changed / copies)
    }
}

/// Applies one change; answers how many rows changed and how many were added.
fn apply(store: &mut Store, table: &Table, bucket: BucketId, change: RowChange) -> Result<(u64, i64)> {
    let key_of = |row: &[Value]| table.primary_key.iter().map(|at| row[*at].clone()).collect::<Vec<_>>();
    match change {
        RowChange::Insert { row } => store.insert(table, bucket, row).map(|()| (1, 1)),
        RowChange::InsertAbsent { row } => match store.get(table, bucket, &key_of(&row)) {
            Some(_) => Err(Error::new(Code::Conflict, "a row appeared under the statement")),
            None => store.insert(table, bucket, row).map(|()| (1, 1)),
        },
        RowChange::InsertOrSkip { row } => match store.get(table, bucket, &key_of(&row)) {
            Some(_) => Ok((0, 0)),
            None => store.insert(table, bucket, row).map(|()| (1, 1)),
        },
        RowChange::Replace { row } => {
            let old = store.remove(table, bucket, &key_of(&row));
            store.insert(table, bucket, row).map(|()| (1, i64::from(old.is_none())))
        }
        RowChange::Update { key, expected, set } => {
            let Some(mut row) = take(store, table, bucket, &key, &expected)? else { return Ok((0, 0)) };
            set.into_iter().for_each(|(at, value)| row[at] = value);
            store.insert(table, bucket, row).map(|()| (1, 0))
        }
        RowChange::Delete { key, expected } => {
            Ok(if take(store, table, bucket, &key, &expected)?.is_some() { (1, -1) } else { (0, 0) })
        }
    }
}

/// Takes the row out when it is as expected.
fn take(
    store: &mut Store,
    table: &Table,
    bucket: BucketId,
    key: &[Value],
    expected: &[(usize, Value)],
) -> Result<Option<Vec<Value>>> {
    let Some(row) = store.get(table, bucket, key) else { return Ok(None) };
    if expected.iter().any(|(at, value)| row[*at] != *value) {
        return Err(Error::new(Code::Conflict, "a row changed under the statement"));
    }
    Ok(store.remove(table, bucket, key))
}

#[async_trait]
impl Cluster for MemoryNode {
    fn schema(&self) -> Arc<dyn Schema> {
        let catalog = lock(&self.shared.catalog);
        Arc::new(MemorySchema {
            state: catalog.state.clone(),
            row_counts: catalog.row_counts.clone(),
            placement: self.shared.placement.clone(),
            bucket_count: BUCKET_COUNT,
            replicaset: self.shared.replicasets[self.at].clone(),
        })
    }

    fn is_master_of(&self, replicaset: &ReplicasetName) -> bool {
        self.shared.replicasets[self.at] == *replicaset
    }

    async fn scan(&self, request: ScanRequest, _moment: Arc<Moment>) -> Result<Box<dyn Scan>> {
        let owned = &self.shared.placement[self.at].buckets;
        let foreign = request.buckets.iter().find(|range| range.first < owned.first || range.last > owned.last);
        if let (false, Some(range)) = (request.table.is_global(), foreign) {
            return Err(Error::new(Code::WrongBucket, format!("buckets {range} are not here")));
        }
        let slices = lock(&self.shared.stores[self.at]).scan(&request);
        self.shared.counts.scans.fetch_add(1, Ordering::SeqCst);
        self.shared.counts.scans_open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(MemoryScan { slices: slices.into_iter(), shared: self.shared.clone() }))
    }

    async fn fragment(&self, to: &ReplicasetName, request: Vec<u8>, _deadline: Instant) -> Result<Box<dyn Frames>> {
        let at = self.shared.replicasets.iter().position(|name| name == to);
        let at = at.ok_or_else(|| Error::new(Code::NoSuchReplicaset, format!("no replicaset \"{to}\"")))?;
        let runner = self.shared.runner.get().ok_or_else(|| Error::internal("nobody answers fragments"))?;
        self.shared.counts.fragments.fetch_add(1, Ordering::SeqCst);
        runner(Arc::new(MemoryNode { shared: self.shared.clone(), at }), request).await
    }

    async fn rows(
        &self,
        table: &Arc<Table>,
        keys: Vec<Vec<Value>>,
        _deadline: Instant,
    ) -> Result<Vec<Option<Vec<Value>>>> {
        let row = |key: Vec<Value>| {
            let bucket = self.shared.bucket_of_key(table, &key)?;
            let at = if table.is_global() { self.at } else { self.shared.owner(bucket) };
            Ok(lock(&self.shared.stores[at]).get(table, bucket, &key).map(<[Value]>::to_vec))
        };
        keys.into_iter().map(row).collect()
    }

    async fn write(&self, table: &Arc<Table>, changes: Vec<RowChange>, _deadline: Instant) -> Result<u64> {
        self.shared.write(table, changes)
    }

    async fn change_schema(&self, change: SchemaChange, _deadline: Instant) -> Result<()> {
        self.shared.change_schema(change)
    }

    async fn numbers(&self, sequence: &Sequence, count: usize, _deadline: Instant) -> Result<Vec<i64>> {
        lock(&self.shared.catalog).numbers(sequence, count)
    }

    fn random(&self) -> Result<[u8; 16]> {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        // Another one each time is all that a test needs.
        let number = LAST.fetch_add(1, Ordering::Relaxed) as u128;
        Ok(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
    }

    async fn catch_up(&self, _deadline: Instant) -> Result<()> {
        Ok(())
    }

    async fn wait_for_change(&self, _attempt: u32, _deadline: Instant) -> Result<()> {
        Ok(())
    }
}

struct MemoryScan {
    slices: std::vec::IntoIter<TupleBatch>,
    shared: Arc<Shared>,
}

#[async_trait]
impl Scan for MemoryScan {
    async fn next(&mut self) -> Result<Option<TupleBatch>> {
        Ok(self.slices.next())
    }
}

impl Drop for MemoryScan {
    fn drop(&mut self) {
        self.shared.counts.scans_open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A test that panicked while it held the lock has failed already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
