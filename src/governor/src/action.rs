//! What the governor wants done.

use catalog::{Entry, SchemaId};
use model::{InstanceName, RaftId, ReplicasetName};
use replication::Vclock;
use std::collections::BTreeSet;
use std::fmt;

/// One step for the module to carry out.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// The rule that wants it, for the log.
    pub rule: &'static str,
    pub step: Step,
    /// The catalog version that it was planned on.
    pub planned_on: u64,
}

/// Every step can be carried out twice without harm. Steps that ask instances end when these have answered or are silent;
/// what came of them is seen in the next view.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Propose to the log, and plan again when it has been applied.
    Propose(Box<Entry>),
    /// Bring Raft to this membership.
    ChangeMembership { voters: BTreeSet<RaftId>, learners: BTreeSet<RaftId> },
    /// Hand Raft's leadership over.
    TransferLeadership { to: RaftId },
    /// Have the instance follow these members of its replicaset and no others, by their addresses, as the master of this
    /// term. It refuses when it has rows that are not of the replicaset's history.
    ConfigureReplication { replicaset: ReplicasetName, term: u64, instance: InstanceName, peers: BTreeSet<String> },
    /// Have these members stop following the old master, and say which rows they have; before that, have them wait a moment
    /// for the rows that an old master which takes no more writes has, if that is `reach`.
    Fence { replicaset: ReplicasetName, term: u64, instances: BTreeSet<InstanceName>, reach: Option<Vclock> },
    /// Have these masters do, or these replicas wait for, the pending schema change.
    ApplySchema { id: SchemaId, instances: BTreeSet<InstanceName> },
}

impl Step {
    /// What the step works on: the module does not carry out two steps of one key at a time.
    pub fn key(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Propose(entry) => write!(f, "propose: {}", entry.op),
            Step::ChangeMembership { voters, learners } => {
                write!(f, "raft: voters {}, learners {}", list(voters), list(learners))
            }
            Step::TransferLeadership { to } => write!(f, "raft: leadership to {to}"),
            Step::ConfigureReplication { replicaset, instance, peers, .. } => {
                write!(f, "replication of {replicaset}: {instance} with {}", list(peers))
            }
            Step::Fence { replicaset, term, instances, reach } => {
                write!(f, "fence {replicaset} for term {term}: {}", list(instances))?;
                reach.as_ref().map_or(Ok(()), |reach| write!(f, " at {reach}"))
            }
            Step::ApplySchema { id, instances } => write!(f, "schema change {id} on {}", list(instances)),
        }
    }
}

fn list<T: fmt::Display>(items: &BTreeSet<T>) -> String {
    match items.len() {
        0 => "none".into(),
        _ => items.iter().map(T::to_string).collect::<Vec<_>>().join(" "),
    }
}
