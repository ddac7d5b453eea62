//! What the governor plans on: the catalog, and what this leader has observed since it took office.
//!
//! What is not known is None or absent, and the rules do nothing about it: the module asks, and the next plan knows.

use catalog::{Instance, MoveId, SchemaId, Setting, State};
use model::{InstanceName, RaftId, ReplicasetName};
use replication::Kept;
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
    /// Which life of its process this is about; None until this leader has heard of it. Reports of another life than the
    /// catalog's count as none.
    pub incarnation: Option<u64>,
    /// Milliseconds since it last answered, or since this leader took office.
    pub silent_ms: u64,
    /// Milliseconds until it is certain that it has no lease as a master, if it does not answer again.
    pub lease_left_ms: u64,
    /// The catalog version of its part in the cluster (`Topology::part_version`) that it had applied when it said the
    /// rest. What it said about an older one says nothing about now.
    pub seen: u64,
    /// It has all of its data, its own record in the catalog applied, and as a replica it follows its master.
    pub ready: bool,
    /// It has rows that a change of master did not keep.
    pub stray: bool,
    /// Whom its replication is set up with.
    pub follows: Option<Follows>,
    /// How far it is with the pending schema change.
    pub schema: Option<SchemaReport>,
    /// It has stopped following the master before this term.
    pub fenced: Option<Fenced>,
    /// As a master: members in sync that do not acknowledge writes, for longer than `offline_after_ms`.
    pub stuck: BTreeSet<InstanceName>,
    /// As a master: who can be counted as in sync.
    pub in_step: Option<InStep>,
}

/// Whom an instance follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follows {
    /// The term whose master that is. Before it followed anybody for it, the instance made sure that it has no tail.
    pub term: u64,
    /// Addresses.
    pub peers: BTreeSet<String>,
}

/// Replicas that have everything their master ever acknowledged, and without which it acknowledges nothing any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InStep {
    /// The master's term.
    pub term: u64,
    /// The version of each one's record when the master said so. It may have been away since when it has another now.
    pub members: BTreeMap<InstanceName, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaReport {
    pub id: SchemaId,
    /// Why it can not be done here, such as a duplicate under a new unique index; None when it is done.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// The master term that begins with it.
    pub term: u64,
    /// The rows that it has, and goes on with if it becomes master.
    pub kept: Kept,
}

impl View<'_> {
    /// The reports of the instance's present life.
    pub fn observed(&self, instance: &Instance) -> Option<&Observed> {
        self.instances.get(&instance.name).filter(|observed| observed.incarnation == Some(instance.incarnation))
    }

    /// Whether it answers, in its present life; None while that is not known: a leader that has just taken office has heard
    /// nobody yet.
    pub fn answers(&self, instance: &Instance) -> Option<bool> {
        let observed = self.instances.get(&instance.name)?;
        let offline_after_ms = self.state.settings.count(Setting::OfflineAfterMs) as u64;
        if observed.silent_ms >= offline_after_ms {
            return Some(false);
        }
        observed.incarnation.map(|incarnation| incarnation == instance.incarnation)
    }

    /// The reports of the instance's present life, when they are about its present part in the cluster.
    pub fn current(&self, instance: &Instance) -> Option<&Observed> {
        let part_version = self.state.topology.part_version(instance);
        self.observed(instance).filter(|observed| observed.seen == part_version)
    }

    /// Whether it is known to have rows that a change of master did not keep.
    pub fn is_stray(&self, instance: &Instance) -> bool {
        self.observed(instance).is_some_and(|observed| observed.stray)
    }

    /// Whether the instance may still serve as a master that does not know of a change of master: it has not said that it
    /// knows, and its lease may hold.
    pub fn may_serve(&self, instance: &Instance) -> bool {
        let knows = self.current(instance).is_some();
        !knows && self.instances.get(&instance.name).is_none_or(|observed| observed.lease_left_ms > 0)
    }

    /// Whether it was heard so lately that it does not seem to be on its way to be offline.
    pub fn is_heard(&self, instance: &Instance) -> bool {
        let offline_after_ms = self.state.settings.count(Setting::OfflineAfterMs) as u64;
        self.observed(instance).is_some_and(|observed| observed.silent_ms.saturating_mul(2) < offline_after_ms)
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
