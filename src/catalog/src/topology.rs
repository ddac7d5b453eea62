//! Who belongs to the cluster: tiers, instances and replicasets.
//!
//! Only data and look-ups stand here; `membership` and `mastership` change it.

use model::{Code, Error, InstanceName, RaftId, ReplicasetName, Result, TierName};
use replication::History;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Instances that the catalog remembers at most, expelled ones with them.
pub const INSTANCES_MAX: usize = 1024;
pub const TIERS_MAX: usize = 64;
/// The host replicates among 32 instances at most, and the last id stays free for one that is being replaced.
pub const REPLICATION_FACTOR_MAX: u32 = 31;
pub const WEIGHT_MAX: u32 = 1_000_000;
pub const WEIGHT_DEFAULT: u32 = 1;

/// A tier as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierSpec {
    pub name: TierName,
    /// Members that a replicaset of the tier should have.
    pub replication_factor: u32,
    pub bucket_count: u32,
    /// Whether instances of the tier may be Raft voters.
    pub can_vote: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    pub name: TierName,
    pub replication_factor: u32,
    pub bucket_count: u32,
    pub can_vote: bool,
    /// Replicasets made so far: the number in the next one's name.
    pub replicasets_made: u64,
    /// The catalog version that last changed this record.
    pub version: u64,
}

/// An instance as it introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newcomer {
    pub name: InstanceName,
    /// The UUID of its box, as text: tells a restart from another instance of the same name.
    pub uuid: String,
    /// Where others reach it: `host:port`.
    pub address: String,
    /// Where it stands, like `{dc = "a", rack = "7"}`: members of a replicaset share none of it.
    pub failure_domain: BTreeMap<String, String>,
    /// Its machine has started anew since the instance was online, and its log was not forced to the disk: the end of it may
    /// be lost.
    #[serde(default)]
    pub lost_power: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum InstanceState {
    /// Known, never seen ready.
    Joining,
    Online,
    /// Not reachable, or restarted and not ready again.
    Offline,
    /// Out for good: its data never counts again.
    Expelled,
}

impl InstanceState {
    pub fn name(self) -> &'static str {
        match self {
            InstanceState::Joining => "Joining",
            InstanceState::Online => "Online",
            InstanceState::Offline => "Offline",
            InstanceState::Expelled => "Expelled",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub name: InstanceName,
    pub raft_id: RaftId,
    pub uuid: String,
    pub replicaset: ReplicasetName,
    pub tier: TierName,
    pub address: String,
    pub failure_domain: BTreeMap<String, String>,
    /// Counts the starts of the process.
    pub incarnation: u64,
    pub state: InstanceState,
    /// It was asked to leave.
    pub expelling: bool,
    /// The catalog version that last changed this record.
    pub version: u64,
}

impl Instance {
    /// Whether the instance has a place in the cluster and keeps it.
    pub fn stays(&self) -> bool {
        self.state != InstanceState::Expelled && !self.expelling
    }

    pub fn is_online(&self) -> bool {
        self.state == InstanceState::Online
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicasetState {
    /// It has not had all its members in sync yet: it is given no buckets by balancing.
    Forming,
    Ready,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicaset {
    pub name: ReplicasetName,
    /// The UUID of the replicaset's box, made from the cluster's id and the name.
    pub uuid: String,
    pub tier: TierName,
    pub master: Option<InstanceName>,
    /// The master before, while a term has none: it may not know yet.
    #[serde(default)]
    pub deposed: Option<InstanceName>,
    /// The member that the master was asked to hand over to.
    #[serde(default)]
    pub heir: Option<InstanceName>,
    /// Counts masters: one more before each change, so that two of them never share a term.
    pub master_term: u64,
    /// The members that hold every acknowledged write. A write needs all of them; a new master is one of them.
    pub in_sync: BTreeSet<InstanceName>,
    /// What each change of master has kept.
    #[serde(default)]
    pub history: History,
    /// Its share of the tier's buckets, against the others' weights.
    pub weight: u32,
    pub state: ReplicasetState,
    /// The catalog version that last changed this record.
    pub version: u64,
}

impl Replicaset {
    /// Whether a member is its master, or the only one in sync: nobody else may have what it has acknowledged.
    pub fn needs(&self, member: &InstanceName) -> bool {
        self.master.as_ref() == Some(member) || self.in_sync.iter().eq([member])
    }
}

/// All of it, with the counter that gives out Raft ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    pub tiers: BTreeMap<TierName, Tier>,
    pub instances: BTreeMap<InstanceName, Instance>,
    pub replicasets: BTreeMap<ReplicasetName, Replicaset>,
    /// The last Raft id given out; never reused.
    pub raft_id_last: RaftId,
}

/// Where a newcomer belongs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub instance: &'a Instance,
    pub replicaset: &'a Replicaset,
    /// The master whose rows it copies; None for the first member of its replicaset.
    pub donor: Option<&'a Instance>,
}

impl Topology {
    /// The instance of this name, expelled ones included.
    ///
    /// Errors: `NoSuchInstance`, with the nearest name.
    pub fn instance(&self, name: &InstanceName) -> Result<&Instance> {
        self.instances.get(name).ok_or_else(|| {
            let names = self.instances.keys().map(InstanceName::as_str);
            missing(Code::NoSuchInstance, "instance", name.as_str(), names)
        })
    }

    /// Errors: `NoSuchReplicaset`, with the nearest name.
    pub fn replicaset(&self, name: &ReplicasetName) -> Result<&Replicaset> {
        self.replicasets.get(name).ok_or_else(|| {
            let names = self.replicasets.keys().map(ReplicasetName::as_str);
            missing(Code::NoSuchReplicaset, "replicaset", name.as_str(), names)
        })
    }

    /// Errors: `Config`, with the nearest name.
    pub fn tier(&self, name: &TierName) -> Result<&Tier> {
        let names = self.tiers.keys().map(TierName::as_str);
        self.tiers.get(name).ok_or_else(|| missing(Code::Config, "tier", name.as_str(), names))
    }

    pub fn instance_by_raft_id(&self, raft_id: RaftId) -> Option<&Instance> {
        self.instances.values().find(|instance| instance.raft_id == raft_id)
    }

    /// The members of a replicaset, those that are leaving included, those expelled not; in order of names.
    pub fn members<'a>(&'a self, replicaset: &'a ReplicasetName) -> impl Iterator<Item = &'a Instance> {
        let belongs = move |i: &&Instance| i.replicaset == *replicaset && i.state != InstanceState::Expelled;
        self.instances.values().filter(belongs)
    }

    /// Where an instance that has joined belongs; None while it has to wait for a master to copy, and for a stranger.
    pub fn place(&self, name: &InstanceName) -> Option<Place<'_>> {
        let instance = self.instances.get(name)?;
        let replicaset = self.replicasets.get(&instance.replicaset)?;
        let master = replicaset.master.as_ref().and_then(|master| self.instances.get(master));
        let donor = master.filter(|master| master.is_online() && master.name != *name);
        let is_behind = |member: &Instance| member.raft_id < instance.raft_id || member.state != InstanceState::Joining;
        let is_first = !self.members(&instance.replicaset).any(is_behind);
        (donor.is_some() || is_first).then_some(Place { instance, replicaset, donor })
    }

    /// The replicasets of a tier, in order of names.
    pub fn replicasets_of<'a>(&'a self, tier: &'a TierName) -> impl Iterator<Item = &'a Replicaset> {
        self.replicasets.values().filter(move |replicaset| replicaset.tier == *tier)
    }

    /// Whether every member of the replicaset is leaving, so that it must hand its buckets to others.
    pub fn is_draining(&self, replicaset: &ReplicasetName) -> bool {
        !self.members(replicaset).any(Instance::stays)
    }

    /// The catalog version as of which an instance's part in the cluster is what it is now: the later one of its own and
    /// its replicaset's record. Who has seen it knows all that the instance must go by.
    pub fn part_version(&self, instance: &Instance) -> u64 {
        self.replicasets.get(&instance.replicaset).map_or(0, |replicaset| replicaset.version).max(instance.version)
    }

    /// The replicaset's present master as moves know it; None without one.
    pub fn tenure(&self, replicaset: &ReplicasetName) -> Option<sharding::Tenure> {
        let record = self.replicasets.get(replicaset)?;
        let master = self.instances.get(record.master.as_ref()?)?;
        let (instance, incarnation) = (master.name.clone(), master.incarnation);
        Some(sharding::Tenure { instance, incarnation, master_term: record.master_term })
    }
}

/// The error for a name that is not there, with the nearest one that is.
pub(crate) fn missing<'a>(code: Code, what: &str, name: &str, names: impl Iterator<Item = &'a str>) -> Error {
    let error = Error::new(code, format!("there is no {what} \"{name}\""));
    match model::error::nearest(name, names) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None => error,
    }
}
