//! How a node sees itself and, as a leader, its followers.

use crate::membership::Membership;
use model::RaftId;

/// The part a node plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Follower,
    /// Asks whether it could win an election, which disturbs nobody.
    PreCandidate,
    Candidate,
    Leader,
}

impl From<raft::StateRole> for Role {
    fn from(role: raft::StateRole) -> Self {
        match role {
            raft::StateRole::Follower => Role::Follower,
            raft::StateRole::PreCandidate => Role::PreCandidate,
            raft::StateRole::Candidate => Role::Candidate,
            raft::StateRole::Leader => Role::Leader,
        }
    }
}

/// A moment of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub raft_id: RaftId,
    pub role: Role,
    pub term: u64,
    pub leader: Option<RaftId>,
    /// The last entry known to be on a majority.
    pub commit: u64,
    /// The last entry whose effects the driver has reported durable.
    pub applied: u64,
    pub first_index: u64,
    pub last_index: u64,
    /// The term of the last entry.
    pub last_term: u64,
    /// What the log holds in memory: data and contexts.
    pub log_bytes: u64,
    pub membership: Membership,
    /// All other members by id, on the leader; empty elsewhere.
    pub followers: Vec<Follower>,
}

/// What a leader knows of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    pub raft_id: RaftId,
    /// It has everything up to here, as the leader has it.
    pub matched: u64,
    pub state: FollowerState,
    /// It was heard from since the leader last looked for its majority.
    pub is_active: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerState {
    /// The leader looks for where their logs meet, one message at a time.
    Probe,
    /// Appends are pipelined.
    Replicate,
    /// A snapshot is on its way.
    Snapshot,
}

impl From<raft::ProgressState> for FollowerState {
    fn from(state: raft::ProgressState) -> Self {
        match state {
            raft::ProgressState::Probe => FollowerState::Probe,
            raft::ProgressState::Replicate => FollowerState::Replicate,
            raft::ProgressState::Snapshot => FollowerState::Snapshot,
        }
    }
}
