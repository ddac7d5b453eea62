//! One machine: a clock, a disk that survives, and a process that may run.

use super::acks::Acks;
use super::journal::Journal;
use super::letter::CallId;
use super::moves::Moves;
use super::office::Office;
use super::store::Store;
use catalog::{Instance, Newcomer, Replicaset, State};
use consensus::{Node as Raft, Outgoing};
use governor::{Fenced, Follows, Observed, SchemaReport};
use model::{InstanceName, RaftId};
use replication::Vclock;
use std::collections::{BTreeMap, VecDeque};

/// A clock that is ahead of the pretended one and runs at a speed of its own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub ahead_us: u64,
    /// How many of its microseconds go by in a second.
    pub rate_ppm: u64,
}

impl Clock {
    pub fn at(&self, now_us: u64) -> u64 {
        self.ahead_us + now_us * self.rate_ppm / 1_000_000
    }
}

/// Who the instance on this machine is. Kept in a file of its own, replaced as a whole.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Counts how often it threw its data away.
    pub life: u64,
    /// The UUID of the data that it threw away, until it has its place again.
    pub replaces: Option<String>,
    pub raft_id: Option<RaftId>,
}

pub struct Node {
    pub number: u64,
    pub identity: Identity,
    pub disk: Journal<Then>,
    pub run: Run,
    /// How often a process was started: events for an earlier one are void.
    pub starts: u64,
    /// Until when the process does nothing, as if stopped by its host.
    pub frozen_until_us: u64,
    pub tick_us: u64,
    pub clock: Clock,
}

pub enum Run {
    Down,
    /// A process without data asks for its place, then for a copy.
    Joining(Joining),
    Member(Box<Process>),
}

#[derive(Clone, Debug, Default)]
pub struct Joining {
    pub call: CallId,
    pub since_us: u64,
    pub is_copying: bool,
}

/// What a process does when a write of its is durable.
#[derive(Clone, Debug)]
pub enum Then {
    Raft(Box<Written>),
    /// A client's write, or rows that were pulled.
    Write(super::acks::Waiting),
    Pulled,
    Written,
    Copied {
        to: u64,
        call: CallId,
        uuid: String,
    },
    Fenced {
        term: u64,
    },
    Followed {
        follows: Follows,
    },
    Noted {
        follows: Follows,
        term: u64,
    },
    Led {
        term: u64,
    },
}

/// What is left to do of a `Ready` when it is on disk.
#[derive(Clone, Debug)]
pub struct Written {
    pub number: u64,
    pub messages: Vec<Outgoing>,
    pub is_snapshot_wanted: bool,
    pub leads: Option<u64>,
    pub reads: Vec<u64>,
    pub snapshot: Option<(u64, Vec<u8>)>,
    pub committed: Vec<consensus::Committed>,
}

/// Who waits for a proposal.
#[derive(Clone, Debug)]
pub enum Asker {
    Nobody,
    Governor { key: String },
    Other { to: u64, call: CallId },
    Newcomer { to: u64, call: CallId, name: InstanceName },
    Announcement,
}

/// A change of whom this instance follows; one at a time.
#[derive(Clone, Debug)]
pub struct Fencing {
    pub term: u64,
    pub reach: Vclock,
    pub until_us: u64,
}

/// All that is gone with a crash.
pub struct Process {
    pub raft: Raft,
    pub raft_id: RaftId,
    pub uuid: String,
    pub name: InstanceName,
    /// The catalog as it is published.
    pub state: State,
    /// What reached the node while the disk was at work, which it waits for.
    pub inbox: VecDeque<super::raft::Input>,
    pub is_writing: bool,
    pub commit_seen: u64,
    pub proposals: BTreeMap<u64, (u64, Asker)>,
    pub store: Store,
    /// Which life of the process the cluster has counted it as; 0 before.
    pub incarnation: u64,
    /// It has got its place and its rows in this life of the process.
    pub is_newcomer: bool,
    /// It founded the cluster.
    pub is_founder: bool,
    /// When it told the cluster that it is here, under which call, and what came of it.
    pub announced: Option<(u64, CallId, Option<u64>)>,
    pub is_writable: bool,
    pub lease_end_us: u64,
    pub follows: Follows,
    pub fenced: Option<Fenced>,
    pub schema: Option<SchemaReport>,
    pub is_stray: bool,
    /// A change of whom it follows is under way, since then.
    pub is_changing: bool,
    pub fencing: Option<Fencing>,
    /// The pull that is under way: its number and since when.
    pub pull: Option<(CallId, u64)>,
    /// When the master last answered.
    pub heard_master_us: Option<u64>,
    pub acks: Acks,
    pub moves: Moves,
    /// By those that take themselves for the leader: the report that was told last, and the question that waits for news,
    /// since when.
    pub told: BTreeMap<u64, Observed>,
    pub held: BTreeMap<u64, (CallId, u64)>,
    /// Some report of this life said that it is ready.
    pub was_ready: bool,
    /// Newcomers that were let in and wait for a master to copy.
    pub placing: Vec<(u64, CallId, InstanceName, u64)>,
    pub office: Option<Office>,
}

impl Process {
    pub fn record(&self) -> Option<&Instance> {
        self.state.topology.instances.get(&self.name)
    }

    pub fn replicaset(&self) -> Option<&Replicaset> {
        self.state.topology.replicasets.get(&self.record()?.replicaset)
    }

    /// The term of this instance as the master, in this life of its process.
    pub fn master_term(&self) -> Option<u64> {
        let (record, replicaset) = (self.record()?, self.replicaset()?);
        let is_master = replicaset.master.as_ref() == Some(&self.name);
        (is_master && self.incarnation > 0 && record.incarnation == self.incarnation).then_some(replicaset.master_term)
    }

    /// Whether it serves what its replicaset owns, at this time of its own clock.
    pub fn serves(&self, clock_us: u64) -> bool {
        clock_us < self.lease_end_us && self.is_writable && self.master_term().is_some()
    }
}

impl Node {
    pub fn uuid(&self) -> String {
        uuid(self.number, self.identity.life)
    }

    pub fn process(&self) -> Option<&Process> {
        match &self.run {
            Run::Member(process) => Some(process),
            Run::Down | Run::Joining(_) => None,
        }
    }

    pub fn process_mut(&mut self) -> Option<&mut Process> {
        match &mut self.run {
            Run::Member(process) => Some(process),
            Run::Down | Run::Joining(_) => None,
        }
    }

    pub fn is_up(&self) -> bool {
        !matches!(self.run, Run::Down)
    }

    /// How the instance introduces itself.
    pub fn newcomer(&self) -> Newcomer {
        Newcomer {
            name: name_of(self.number),
            uuid: self.uuid(),
            address: address_of(self.number),
            failure_domain: BTreeMap::new(),
            lost_power: false,
        }
    }
}

pub fn uuid(number: u64, life: u64) -> String {
    format!("00000000-0000-0000-{life:04x}-{number:012x}")
}

pub fn name_of(number: u64) -> InstanceName {
    format!("i{number}").into()
}

pub fn address_of(number: u64) -> String {
    format!("i{number}:3301")
}

/// The machine of an instance or an address: the number in `i7` and `i7:3301`.
pub fn number_of(name: &str) -> u64 {
    let digits: String = name.chars().skip(1).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}
