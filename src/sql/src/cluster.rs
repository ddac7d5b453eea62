//! The edge of the SQL room: what it asks of the cluster around it.
//!
//! `module` implements these traits over box, the bucket map and the connections; tests implement them in memory, so
//! that the same statements run on both.

use crate::columns::Columns;
use async_trait::async_trait;
use model::{
    BucketId, Code, Error, InstanceName, ReplicasetName, Result, SchemaChange, Sequence, Table, TableId, TierName,
    Value, View,
};
use std::sync::Arc;
use std::time::Instant;

pub use sharding::{BucketRange, OwnedRange};

/// The schema name under which queries of our own making see a table with its hidden columns.
pub const WHOLE_TABLE: &str = "pico$whole";

/// One version of the schema and of the placement of data. It does not change while a statement holds it.
pub trait Schema: Send + Sync + std::fmt::Debug {
    /// The catalog version; plans are cached under it.
    fn version(&self) -> u64;
    /// An operable table by its exact name.
    fn table(&self, name: &str) -> Option<Arc<Table>>;
    /// A view by its exact name.
    fn view(&self, _name: &str) -> Option<Arc<View>> {
        None
    }
    /// Whether there are views at all.
    fn has_views(&self) -> bool {
        false
    }
    /// A sequence that CREATE SEQUENCE made.
    fn sequence(&self, _name: &str) -> Option<Sequence> {
        None
    }
    /// The names of those, for hints.
    fn sequence_names(&self) -> Vec<String> {
        Vec::new()
    }
    /// The names of all operable tables, for hints.
    fn table_names(&self) -> Vec<String>;
    /// How many buckets the tier has; None when there is no such tier.
    fn bucket_count(&self, tier: &TierName) -> Option<u32>;
    /// The owners of all buckets of the tier, in order of buckets, without gaps.
    fn placement(&self, tier: &TierName) -> Vec<OwnedRange>;
    /// The replicaset that this instance is part of.
    fn local_replicaset(&self) -> Option<ReplicasetName>;
    /// The name of this instance, for EXPLAIN.
    fn local_instance(&self) -> InstanceName;
    /// About how many rows the table has in the whole cluster.
    fn row_count(&self, table: TableId) -> Option<u64>;
}

/// A part of an index: bounds on a prefix of its columns (without the bucket id), None where open; and the only bucket that
/// has rows of it, when its bounds say so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyRange {
    pub lower: Option<Bound>,
    pub upper: Option<Bound>,
    pub bucket: Option<BucketId>,
}

/// Which stored tuples of one table a scan reads, in this process.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    pub table: Arc<Table>,
    /// 0 is the primary index.
    pub index: u32,
    /// Restricts a sharded table to these buckets. The storage refuses with `WrongBucket` when it does not own one of
    /// them for reading, and keeps their rows until the scan is closed.
    pub buckets: Vec<BucketRange>,
    /// Of several, each lies behind those before it in the index, and of a sharded table's primary index each has its bucket.
    pub ranges: Vec<KeyRange>,
    pub descending: bool,
    /// Stop after about so many rows.
    pub rows_max: Option<usize>,
    /// Only the number of rows is wanted: the storage may count them instead of copying them.
    pub count_only: bool,
    /// Positions of the table's columns that are wanted of each tuple: what else is in it is not looked at.
    pub columns: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    pub values: Vec<Value>,
    pub inclusive: bool,
}

/// Raw tuples as box stores them: `ends[i]` is where tuple i ends in `bytes`.
#[derive(Clone, Debug, Default)]
pub struct TupleBatch {
    pub bytes: Vec<u8>,
    pub ends: Vec<u32>,
    /// Rows beside these that were counted only.
    pub counted: usize,
    pub columnar: Option<Columnar>,
}

/// What a storage keeps of the rows of a slice.
#[derive(Clone, Debug)]
pub enum Columnar {
    /// Stands for the tuples, which were not read: has all columns that are wanted.
    Whole(Arc<Columns>),
    /// Of these tuples, for who decodes them to leave the columns in.
    ToFill(Arc<Columns>),
}

impl TupleBatch {
    /// How many rows it has beside those that were counted only.
    pub fn rows(&self) -> usize {
        match &self.columnar {
            Some(Columnar::Whole(columns)) => columns.rows,
            _ => self.ends.len(),
        }
    }
}

/// Names a query among all that run in the cluster: the instance that was asked, and the query's number there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryKey {
    pub router: InstanceName,
    pub number: u64,
}

/// One moment of this process's storage: all scans that are opened in it see the tables as they were when the first of
/// them was opened. It ends when it is dropped.
pub struct Moment {
    /// Names it in this process.
    pub number: u64,
    /// Every table that its scans read.
    pub tables: Vec<TableId>,
    /// How many scans are opened in it: a single one that is read at once needs nothing remembered.
    pub scans: usize,
    on_end: Box<dyn Fn(u64) + Send + Sync>,
}

impl Moment {
    /// `on_end` is told the number when the moment ends.
    pub fn new(number: u64, tables: Vec<TableId>, scans: usize, on_end: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self { number, tables, scans, on_end: Box::new(on_end) }
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        (self.on_end)(self.number);
    }
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Moment({}, tables {:?})", self.number, self.tables)
    }
}

/// A running scan. Dropping it closes the scan on the storage.
#[async_trait]
pub trait Scan: Send {
    /// The next slice of some thousand tuples; None at the end.
    async fn next(&mut self) -> Result<Option<TupleBatch>>;
}

/// The answers of a remote fragment: opaque frames of the SQL room. Dropping it cancels the fragment.
#[async_trait]
pub trait Frames: Send {
    async fn next(&mut self) -> Result<Option<Vec<u8>>>;
}

/// A change of one row, computed by a statement. Rows and keys are complete and already coerced to the column types.
#[derive(Clone, Debug, PartialEq)]
pub enum RowChange {
    /// `DuplicateKey` when a row with the key is there.
    Insert {
        row: Vec<Value>,
    },
    /// `Conflict` when a row with the key is there: the statement has looked, and has to look again.
    InsertAbsent {
        row: Vec<Value>,
    },
    /// Counts as unchanged when a row with the key is there.
    InsertOrSkip {
        row: Vec<Value>,
    },
    Replace {
        row: Vec<Value>,
    },
    /// Applies when the row at `key` still has the values of `expected` (column position, value): otherwise the
    /// whole request is refused with `Conflict` and the statement computes its changes again.
    Update {
        key: Vec<Value>,
        expected: Vec<(usize, Value)>,
        set: Vec<(usize, Value)>,
    },
    Delete {
        key: Vec<Value>,
        expected: Vec<(usize, Value)>,
    },
}

/// The error of a sequence that has no numbers left.
pub fn sequence_is_used_up(sequence: &Sequence) -> Error {
    let end = if sequence.increment > 0 { sequence.max } else { sequence.min };
    Error::new(Code::ValueOutOfRange, format!("the sequence has come to its end, {end}"))
}

/// What a cluster answers that is there for queries alone, as some tests make them.
fn for_queries_only() -> Error {
    Error::new(Code::Unsupported, "this cluster answers queries only")
}

/// An operation on one key, as `crud::wire` has it.
#[derive(Clone, Debug)]
pub struct Operation {
    pub table: Arc<Table>,
    /// 0 for a global table, which any replicaset can read.
    pub bucket: BucketId,
    pub bytes: Vec<u8>,
}

#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    fn schema(&self) -> Arc<dyn Schema>;

    /// Whether this process is the replicaset's master just now, so that a fragment for it needs no connection.
    fn is_master_of(&self, replicaset: &ReplicasetName) -> bool;

    /// Begins a moment for `scans` scans of these tables. With a key, the moment that the query has in this process
    /// already, or a new one that is kept for it until `end_query` or the deadline. A cluster that reads whole scans at once
    /// has nothing to do.
    fn moment(&self, tables: Vec<TableId>, scans: usize, _query: Option<(QueryKey, Instant)>) -> Arc<Moment> {
        Arc::new(Moment::new(0, tables, scans, |_| ()))
    }

    /// A key for a new query.
    fn query_key(&self) -> QueryKey {
        QueryKey { router: self.schema().local_instance(), number: 0 }
    }

    /// The query's moments are needed no more, here and at these replicasets. Does not wait.
    fn end_query(&self, _query: &QueryKey, _replicasets: Vec<ReplicasetName>) {}

    /// Opens a scan of this process's own storage.
    async fn scan(&self, request: ScanRequest, moment: Arc<Moment>) -> Result<Box<dyn Scan>>;

    /// Sends a fragment's bytes to the master of a replicaset, where `Engine::run_fragment` answers it.
    async fn fragment(&self, to: &ReplicasetName, request: Vec<u8>, deadline: Instant) -> Result<Box<dyn Frames>>;

    /// The rows with these primary keys, None where there is none, in the order of the keys. Keys are complete and
    /// coerced.
    async fn rows(
        &self,
        _table: &Arc<Table>,
        _keys: Vec<Vec<Value>>,
        _deadline: Instant,
    ) -> Result<Vec<Option<Vec<Value>>>> {
        Err(for_queries_only())
    }

    /// Applies changes to one table: all that belong to one replicaset in one transaction there, replicasets side by
    /// side. Answers how many rows changed. A failure on one replicaset is an error that says what was done where.
    async fn write(&self, table: &Arc<Table>, changes: Vec<RowChange>, deadline: Instant) -> Result<u64>;

    /// Runs operations one after the other in one transaction, each seeing what those before it did, all or none.
    /// Answers an array with the answer of each.
    ///
    /// Errors: `InvalidStatement` when their buckets are not all on one replicaset.
    async fn transaction(&self, _operations: Vec<Operation>, _deadline: Instant) -> Result<Vec<u8>> {
        Err(for_queries_only())
    }

    /// Carries out a schema change; returns when every online instance has it.
    async fn change_schema(&self, change: SchemaChange, deadline: Instant) -> Result<()>;

    /// The next `count` numbers of a sequence: nobody else in the cluster gets them, now or ever.
    async fn numbers(&self, _sequence: &Sequence, _count: usize, _deadline: Instant) -> Result<Vec<i64>> {
        Err(for_queries_only())
    }

    /// Sixteen bytes of chance.
    fn random(&self) -> Result<[u8; 16]> {
        Err(for_queries_only())
    }

    /// Waits until this instance has applied everything that was committed before the call: asked before a statement
    /// fails for a name that is not known here.
    async fn catch_up(&self, deadline: Instant) -> Result<()>;

    /// Waits for something to change that a statement met: who owns a bucket, who is master, a connection. Returns after a
    /// pause that grows with `attempt` (from 1) in any case, because what it waits for may have come before.
    async fn wait_for_change(&self, attempt: u32, deadline: Instant) -> Result<()>;
}
