//! What a node is told at its start.

use model::{Code, Error, RaftId, Result};

/// Indices, terms and ids on the wire stay below this, so that no sum of them can overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// How long raft-rs would wait before it stands for election by itself: never, for it draws that time from a generator
/// that nobody can seed. `Node::tick` keeps the time in its place.
const NEVER_TICKS: usize = usize::MAX - 1;

/// The settings of a node. Times are in ticks; how long a tick is, the driver decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's own number, from 1. A process that lost its log must come back under another.
    pub raft_id: RaftId,
    /// Where chance comes from: different on every node and at every start, or elections tie and reads mix.
    pub seed: u64,
    /// A follower that hears nothing stands for election after this and up to twice this many ticks; a leader that
    /// hears no majority within it steps down.
    pub election_ticks: u32,
    pub heartbeat_ticks: u32,
    /// A follower that has not reported on its snapshot after so many ticks gets a new one.
    pub snapshot_ticks: u32,
    /// The largest proposal: data and context together.
    pub entry_bytes_max: usize,
    /// How many bytes of entries one message carries; a single larger entry travels alone.
    pub message_bytes_max: u64,
    /// How many appends are on the way to a follower before the leader waits for an answer.
    pub inflight_messages_max: usize,
    /// The leader refuses proposals while more bytes than this wait for a majority.
    pub uncommitted_bytes_max: u64,
    /// How many bytes of committed entries one `Ready` hands out.
    pub committed_bytes_max: u64,
    /// How many reads may wait at once.
    pub reads_max: usize,
}

impl Config {
    /// The settings that the module uses; a tick is meant to be 50 ms.
    pub fn new(raft_id: RaftId, seed: u64) -> Self {
        Self {
            raft_id,
            seed,
            election_ticks: 10,
            heartbeat_ticks: 2,
            snapshot_ticks: 200,
            entry_bytes_max: 16 << 20,
            message_bytes_max: 1 << 20,
            inflight_messages_max: 64,
            uncommitted_bytes_max: 64 << 20,
            committed_bytes_max: 4 << 20,
            reads_max: 65_536,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(Code::Config, format!("raft: {what}")));
        match self {
            _ if self.raft_id == 0 || self.raft_id >= NUMBER_MAX => wrong("the raft id is out of range"),
            _ if self.heartbeat_ticks == 0 => wrong("heartbeat_ticks must be positive"),
            _ if self.election_ticks <= self.heartbeat_ticks => wrong("election_ticks must exceed heartbeat_ticks"),
            _ if self.election_ticks > 1 << 20 => wrong("election_ticks is too large"),
            _ if self.snapshot_ticks <= self.election_ticks => wrong("snapshot_ticks must exceed election_ticks"),
            _ if self.inflight_messages_max == 0 => wrong("inflight_messages_max must be positive"),
            _ if self.uncommitted_bytes_max < self.message_bytes_max => {
                wrong("uncommitted_bytes_max must not be less than message_bytes_max")
            }
            _ => Ok(()),
        }
    }

    /// The same in raft-rs's words.
    pub(crate) fn to_raft(&self, applied: u64) -> raft::Config {
        raft::Config {
            id: self.raft_id,
            election_tick: self.election_ticks as usize,
            heartbeat_tick: self.heartbeat_ticks as usize,
            min_election_tick: NEVER_TICKS,
            max_election_tick: NEVER_TICKS + 1,
            applied,
            max_size_per_msg: self.message_bytes_max,
            max_inflight_msgs: self.inflight_messages_max,
            max_uncommitted_size: self.uncommitted_bytes_max,
            max_committed_size_per_ready: self.committed_bytes_max,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            read_only_option: raft::ReadOnlyOption::Safe,
            ..raft::Config::default()
        }
    }
}
