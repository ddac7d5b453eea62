//! What instances send one another. Only Raft's messages, and requests that may be carried out twice, are ever doubled:
//! everything travels on connections, which end with the process at either end.

use super::moves::Rows;
use super::store::{Key, Row, Store};
use catalog::MoveId;
use governor::Observed;
use model::{RaftId, ReplicasetName};
use replication::Vclock;
use sharding::moves::{Pull, Pulled};
use std::collections::BTreeSet;

/// A request, by its number in the run: an answer to another one is passed over.
pub type CallId = u64;

#[derive(Clone, Debug)]
pub enum Letter {
    Raft {
        to: RaftId,
        bytes: Vec<u8>,
        is_snapshot: bool,
    },
    /// The leader asks for a report, and sends a stamp back that grants a lease.
    Ask {
        call: CallId,
        stamp_us: u64,
        lease_us: u64,
    },
    Report {
        call: CallId,
        report: Box<Observed>,
        stamp_us: u64,
    },
    /// Nobody listens.
    Refused {
        call: CallId,
    },
    Fence {
        replicaset: ReplicasetName,
        term: u64,
        reach: Option<Vclock>,
    },
    Follow {
        replicaset: ReplicasetName,
        term: u64,
        peers: BTreeSet<String>,
    },
    Schema {
        id: u64,
    },
    /// A change of the catalog, for the leader.
    Propose {
        call: CallId,
        entry: Vec<u8>,
    },
    /// The change's place in the log; None when nothing happened.
    Proposed {
        call: CallId,
        index: Option<u64>,
    },
    /// A process without data asks for its place; `from` is who asked first.
    Join {
        call: CallId,
        from: u64,
        entry: Vec<u8>,
    },
    Placed {
        call: CallId,
        place: Place,
    },
    /// Asks a master for all that it has.
    Copy {
        call: CallId,
        uuid: String,
        /// The entry of the log by which the newcomer was let in.
        index: u64,
    },
    Copied {
        call: CallId,
        store: Box<Store>,
    },
    /// A follower asks for the rows behind those that it has on disk, which acknowledges them.
    Pull {
        call: CallId,
        uuid: String,
        clock: Vclock,
    },
    Rows {
        call: CallId,
        rows: Vec<Row>,
    },
    /// The destination of a move asks for the next slice, and whether it may take writes.
    MovePull {
        id: MoveId,
        pull: Pull,
    },
    MovePulled {
        id: MoveId,
        pulled: Pulled<Key>,
        rows: Rows,
    },
    AskRelease {
        id: MoveId,
        finish_index: u64,
    },
    Released {
        id: MoveId,
    },
}

impl Letter {
    /// Whether it may arrive twice.
    pub fn may_be_doubled(&self) -> bool {
        matches!(
            self,
            Letter::Raft { .. }
                | Letter::Ask { .. }
                | Letter::Fence { .. }
                | Letter::Follow { .. }
                | Letter::Schema { .. }
        )
    }

    /// Stands for it in the digest of a run.
    pub fn kind(&self) -> u8 {
        match self {
            Letter::Raft { .. } => 0,
            Letter::Ask { .. } => 1,
            Letter::Report { .. } => 2,
            Letter::Refused { .. } => 3,
            Letter::Fence { .. } => 4,
            Letter::Follow { .. } => 5,
            Letter::Schema { .. } => 6,
            Letter::Propose { .. } => 7,
            Letter::Proposed { .. } => 8,
            Letter::Join { .. } => 9,
            Letter::Placed { .. } => 10,
            Letter::Copy { .. } => 11,
            Letter::Copied { .. } => 12,
            Letter::Pull { .. } => 13,
            Letter::Rows { .. } => 14,
            Letter::MovePull { .. } => 15,
            Letter::MovePulled { .. } => 16,
            Letter::AskRelease { .. } => 17,
            Letter::Released { .. } => 18,
        }
    }
}

/// Where a newcomer belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub raft_id: RaftId,
    /// The master to copy from; None for a replicaset's first member.
    pub donor: Option<u64>,
    /// The term of that master, and the entry of the log that let the newcomer in.
    pub term: u64,
    pub index: u64,
}
