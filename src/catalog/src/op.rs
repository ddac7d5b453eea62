//! What can be asked of the catalog: an operation, and the guard under which it holds.

use crate::placement::MoveId;
use crate::schema::SchemaId;
use crate::topology::{InstanceState, Newcomer, TierSpec};
use model::{
    Code, Error, InstanceName, RaftId, ReplicasetName, Result, SchemaChange, SequenceId, TableId, TierName, Value,
};
use replication::Kept;
use serde::{Deserialize, Serialize};
use sharding::{BucketRange, Tenure};
use std::collections::{BTreeMap, BTreeSet};

/// One change of the cluster's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// The first entry of a cluster: it exists, with its first instance as the master of its first replicaset.
    Bootstrap {
        cluster: String,
        /// The cluster's id, a UUID as text.
        id: String,
        instance: Newcomer,
        tier: TierSpec,
        settings: BTreeMap<String, Value>,
    },
    /// An instance joins, or comes back after a restart (same name and UUID) under its next incarnation.
    Join {
        instance: Newcomer,
        tier: TierName,
        /// The UUID of the data that this instance of the same name has thrown away, because it had a divergent tail.
        #[serde(default)]
        replaces: Option<String>,
    },
    /// A known instance comes back with its rows and without its Raft log, which has lost its end: Raft is to know it under
    /// another number.
    Renumber {
        instance: Newcomer,
        tier: TierName,
        /// The number that it had.
        forgets: RaftId,
    },
    /// What the governor found out about an instance in this incarnation.
    SetInstanceState {
        instance: InstanceName,
        incarnation: u64,
        state: InstanceState,
    },
    UpdateAddress {
        instance: InstanceName,
        incarnation: u64,
        address: String,
    },
    /// The instance is to leave. The governor sees to it step by step and ends with `SetInstanceState` to Expelled.
    Expel {
        instance: InstanceName,
    },
    /// Begins master term `term` (one above the current), with a master where nobody is in sync yet and without one
    /// otherwise, or names the master of the current term while it has none.
    SetMaster {
        replicaset: ReplicasetName,
        term: u64,
        master: Option<InstanceName>,
        /// What a master that takes over begins with; None for a first one.
        kept: Option<Kept>,
    },
    /// The members whose acknowledgement a write needs.
    SetInSync {
        replicaset: ReplicasetName,
        term: u64,
        in_sync: BTreeSet<InstanceName>,
        /// For each member that is counted in: the version of its record from which on the master acknowledges nothing
        /// without it.
        promised: BTreeMap<InstanceName, u64>,
    },
    /// The master is to hand over to this member, which is in sync and online.
    HandOver {
        replicaset: ReplicasetName,
        to: InstanceName,
    },
    /// A majority of the voters is gone for good: the cluster goes on without these instances. Never proposed: the log
    /// of the instance that was chosen to go on begins with it.
    Recover {
        lost: BTreeSet<InstanceName>,
    },
    SetWeight {
        replicaset: ReplicasetName,
        weight: u32,
    },
    AddTier {
        tier: TierSpec,
    },
    /// Sets one setting; null resets it to its default.
    PutSetting {
        name: String,
        value: Value,
    },
    /// Announces a schema change; one at a time. `timeout_ms` 0 takes the setting `schema_timeout_s`.
    SchemaPrepare {
        change: SchemaChange,
        timeout_ms: u64,
    },
    SchemaCommit {
        id: SchemaId,
    },
    SchemaAbort {
        id: SchemaId,
        reason: String,
    },
    /// The first distribution of a tier's buckets: all of them, in order, without gaps.
    AssignBuckets {
        tier: TierName,
        owners: Vec<(BucketRange, ReplicasetName)>,
    },
    MoveStart {
        tier: TierName,
        buckets: BucketRange,
        from: ReplicasetName,
        to: ReplicasetName,
    },
    /// The destination has everything and the source takes no more writes; both say so for their tenure only.
    MoveFinish {
        id: MoveId,
        source: Tenure,
        destination: Tenure,
    },
    MoveAbort {
        id: MoveId,
        reason: String,
    },
    /// The side that had a copy to delete has deleted it.
    MoveDone {
        id: MoveId,
    },
    /// Numbers `from`, `from` + increment, ... of a sequence, `count` of them or as many as there are, for the proposer.
    SequenceLease {
        id: SequenceId,
        from: i64,
        count: u32,
    },
    /// Rows of a global table. The catalog does not hold them: the module applies `changes`, whose form is its own.
    GlobalWrite {
        table: TableId,
        /// `Table::version` that the changes were made for.
        table_version: u64,
        #[serde(with = "serde_bytes")]
        changes: Vec<u8>,
    },
}

impl Op {
    /// Whether the same operation may be proposed again, unchanged, after a conflict. Otherwise it was planned on what
    /// has changed since, and who planned it has to look again.
    pub fn is_resendable(&self) -> bool {
        match self {
            Op::Join { .. }
            | Op::Renumber { .. }
            | Op::Expel { .. }
            | Op::HandOver { .. }
            | Op::SetWeight { .. }
            | Op::AddTier { .. }
            | Op::PutSetting { .. }
            | Op::SchemaPrepare { .. }
            | Op::GlobalWrite { .. } => true,
            Op::Bootstrap { .. }
            | Op::SetInstanceState { .. }
            | Op::UpdateAddress { .. }
            | Op::SetMaster { .. }
            | Op::SetInSync { .. }
            | Op::SchemaCommit { .. }
            | Op::SchemaAbort { .. }
            | Op::AssignBuckets { .. }
            | Op::MoveStart { .. }
            | Op::MoveFinish { .. }
            | Op::MoveAbort { .. }
            | Op::MoveDone { .. }
            | Op::Recover { .. }
            | Op::SequenceLease { .. } => false,
        }
    }
}

/// A part of the state that has a version of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    Instance(InstanceName),
    Replicaset(ReplicasetName),
    Tier(TierName),
    /// A table by name.
    Table(String),
    /// All tables together.
    Schema,
    Setting(String),
    /// The bucket map of a tier.
    Buckets(TierName),
    Move(MoveId),
}

/// The condition under which an entry is applied: compare-and-swap against the log itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    #[default]
    None,
    /// The catalog is at this version.
    Catalog(u64),
    /// A part is at this version; 0 means that it does not exist.
    Part { part: Part, version: u64 },
}

/// An operation with its guard: one entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub op: Op,
    pub guard: Guard,
}

/// The first byte of an encoded entry.
const FORMAT: u8 = 1;
/// How deep an encoded entry may nest. The decoder recurses, and a fiber's stack is small.
pub(crate) const DEPTH_MAX: usize = 48;

impl Entry {
    pub fn new(op: Op) -> Self {
        Self { op, guard: Guard::None }
    }

    pub fn guarded(op: Op, guard: Guard) -> Self {
        Self { op, guard }
    }

    /// The entry for the log: a format byte, then MessagePack with field names.
    ///
    /// Errors: `Internal` when the encoder refuses, which no entry makes it do.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    /// Reads what `to_bytes` wrote.
    ///
    /// Errors: `Corrupted` for anything else; a newer format says so.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        decode("log entry", bytes)
    }
}

/// A format byte, then MessagePack with field names, so that fields can be added.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = vec![FORMAT];
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    value.serialize(&mut serializer).map_err(|e| Error::internal(format!("the catalog can not be encoded: {e}")))?;
    Ok(bytes)
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    let corrupted = |message: String| Error::new(Code::Corrupted, message);
    match bytes.split_first() {
        Some((&FORMAT, body)) => {
            let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
            deserializer.set_max_depth(DEPTH_MAX);
            T::deserialize(&mut deserializer)
                .map_err(|e| corrupted(format!("the bytes of a {what} can not be read: {e}")))
        }
        Some((format, _)) => Err(corrupted(format!("a {what} has format {format}, this version reads {FORMAT}"))
            .with_hint("the cluster was upgraded: upgrade this instance too")),
        None => Err(corrupted(format!("a {what} is empty"))),
    }
}
