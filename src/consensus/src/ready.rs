//! What a node wants done: the whole contract between this room and whoever drives it.

use crate::membership::Membership;
use crate::status::Role;
use model::RaftId;

/// A place in the log. An entry keeps its place for good only once it is committed: the same index under another term
/// is another entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub index: u64,
    pub term: u64,
}

/// Work for the driver, to be done in the order of the fields:
/// 1. send `messages`;
/// 2. in one transaction: load `snapshot` into the state, write `persist`, apply `committed`, in this order;
/// 3. once that is durable: send `messages_after` and call `Node::persisted(number)`.
///
/// Several may be under way at once as long as each step is done in the order of the numbers; the node takes other calls
/// meanwhile. A driver that fails to write tries again, as a slow disk would, or ends the node and starts another from what is
/// on disk.
#[derive(Debug, Default)]
pub struct Ready {
    pub number: u64,
    /// May leave before anything is written: a leader's appends go out while its own disk works. Empty while the term that
    /// it leads in is not on disk itself.
    pub messages: Vec<Outgoing>,
    /// The state of the cluster as of `snapshot.position`, in place of all that was applied before.
    pub snapshot: Option<Snapshot>,
    pub persist: Persist,
    /// Entries to apply, in order, each exactly once in the life of the log.
    pub committed: Vec<Committed>,
    pub messages_after: Vec<Outgoing>,
    /// Reads (by the context given to `read_index`) that may be answered from the state once `committed` is applied.
    pub reads: Vec<u64>,
    /// The members, when they changed with this.
    pub membership: Option<Membership>,
    /// Who leads and what part this node plays, when that changed: (leader, own role, term).
    pub leadership: Option<(Option<RaftId>, Role, u64)>,
    /// A follower needs what the log no longer has: call `Node::provide_snapshot` when this has been persisted.
    pub snapshot_wanted: bool,
}

impl Ready {
    /// Whether step 2 has anything to do. Without, step 3 still waits for the `Ready`s before.
    pub fn has_writes(&self) -> bool {
        self.snapshot.is_some() || !self.persist.is_empty() || !self.committed.is_empty()
    }
}

/// What to write, in one transaction and in the order of the fields. Rows are opaque: `Log::restore` reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persist {
    /// Delete the log's rows from this index on.
    pub truncate_from: Option<u64>,
    /// Delete the log's rows up to and with this index.
    pub compact_to: Option<u64>,
    /// Insert these rows into the log.
    pub entries: Vec<LogRow>,
    /// Put these values under their keys.
    pub state: Vec<(StateKey, Vec<u8>)>,
}

impl Persist {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    pub index: u64,
    pub term: u64,
    pub bytes: Vec<u8>,
}

/// The keys beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKey {
    /// Term, vote and commit index.
    HardState,
    /// The members as of `Applied`.
    Membership,
    /// The last entry that is no longer in the log.
    Compacted,
    /// How far the log is applied.
    Applied,
}

impl StateKey {
    pub const ALL: [StateKey; 4] = [Self::HardState, Self::Membership, Self::Compacted, Self::Applied];

    /// The name under which it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::HardState => "hard_state",
            Self::Membership => "membership",
            Self::Compacted => "compacted",
            Self::Applied => "applied",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }
}

/// A message on its way to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub to: RaftId,
    pub bytes: Vec<u8>,
    /// It carries a snapshot: report on it with `Node::snapshot_finished` or `snapshot_failed`.
    pub is_snapshot: bool,
}

/// The state of the cluster at one position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub position: Position,
    pub data: Vec<u8>,
}

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub position: Position,
    pub payload: Payload,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// What was proposed.
    Data { data: Vec<u8>, context: Vec<u8> },
    /// A step of a change of members. What came of it is in `Ready::membership`.
    Members { context: Vec<u8> },
    /// A new leader's first entry.
    Empty,
}
