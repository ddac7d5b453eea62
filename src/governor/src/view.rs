//! What the governor plans on: the catalog, and what this leader has observed since it took office.
//!
//! What is not known is None or absent, and the rules do nothing about it: the module asks, and the next plan knows.

use catalog::{Instance, MoveId, SchemaId, Setting, State};
use model::{InstanceName, RaftId, ReplicasetName};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a plan depends on.
#[derive(Clone, Debug)]
pub struct View<'a> {
    pub state: &'a State,
    pub raft: Raft,
    /// What is known of each instance; absent while nothing is.
    pub instances: BTreeMap<InstanceName, Observed>,
    /// Milliseconds that this leader has seen the pending schema change pending.
    pub pending_ms: u64,
    /// Milliseconds that this leader has seen each move under way.
    pub moves_ms: BTreeMap<MoveId, u64>,
    /// Keys of steps that are being carried out, or failed so lately that they should rest.
    pub busy: BTreeSet<String>,
}

/// Raft's own membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raft {
    pub leader: RaftId,
    pub voters: BTreeSet<RaftId>,
    pub learners: BTreeSet<RaftId>,
    /// A change of the membership is under way.
    pub is_joint: bool,
}

/// What one instance has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Which life of its process this is about. Reports of another life than the catalog's count as none.
    pub incarnation: u64,
    /// Milliseconds since it last answered, or since this leader took office.
    pub silent_ms: u64,
    /// It has all of its data, its own record in the catalog applied, and as a replica it follows its master.
    pub ready: bool,
    /// The addresses of all members that its replication is set up with.
    pub peers: Option<BTreeSet<String>>,
    /// How far it is with the pending schema change.
    pub schema: Option<SchemaReport>,
    /// It has stopped following the master before this term.
    pub fenced: Option<Fenced>,
    /// As a master: replicas that have everything it ever acknowledged, and without which it acknowledges nothing any
    /// more. They can be counted as in sync.
    pub in_step: BTreeSet<InstanceName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaReport {
    pub id: SchemaId,
    /// Why it can not be done here, such as a duplicate under a new unique index; None when it is done.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// The master term that begins with it.
    pub term: u64,
    /// How much of the old master's writes it has: the old master's component of its vclock.
    pub position: u64,
}

impl View<'_> {
    /// The reports of the instance's present life.
    pub fn observed(&self, instance: &Instance) -> Option<&Observed> {
        self.instances.get(&instance.name).filter(|observed| observed.incarnation == instance.incarnation)
    }

    /// Whether it answers, in its present life; None while that is not known.
    pub fn answers(&self, instance: &Instance) -> Option<bool> {
        let observed = self.instances.get(&instance.name)?;
        let offline_after_ms = self.state.settings.count(Setting::OfflineAfterMs) as u64;
        Some(observed.silent_ms < offline_after_ms && observed.incarnation == instance.incarnation)
    }

    /// Whether the instance can be asked to do something now.
    pub fn can_ask(&self, instance: &Instance) -> bool {
        self.answers(instance) == Some(true)
    }

    /// The replicaset's master, if it has one that is online.
    pub fn live_master(&self, replicaset: &ReplicasetName) -> Option<&Instance> {
        let topology = &self.state.topology;
        let master = topology.replicasets.get(replicaset)?.master.as_ref()?;
        topology.instances.get(master).filter(|master| master.is_online())
    }
}
