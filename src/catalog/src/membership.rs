//! Who comes, who goes, and where a newcomer is put.

use crate::apply::{Change, Changes, conflict};
use crate::settings::Setting;
use crate::state::{Cluster, State};
use crate::topology::{
    INSTANCES_MAX, Instance, InstanceState, Newcomer, REPLICATION_FACTOR_MAX, Replicaset, ReplicasetState, TIERS_MAX,
    Tier, TierSpec, Topology, WEIGHT_DEFAULT, WEIGHT_MAX,
};
use model::{Code, Error, InstanceName, RaftId, ReplicasetName, Result, TierName, Value, value};
use replication::History;
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_128;

const NAME_BYTES_MAX: usize = 63;
const ADDRESS_BYTES_MAX: usize = 255;
const DOMAINS_MAX: usize = 16;

impl State {
    pub(crate) fn bootstrap(
        &mut self,
        (cluster, id): (&str, &str),
        newcomer: &Newcomer,
        tier: &TierSpec,
        settings: &BTreeMap<String, Value>,
        version: u64,
    ) -> Changes {
        if let Some(own) = &self.cluster {
            return Err(Error::new(Code::AlreadyExists, format!("the cluster \"{}\" exists already", own.name)));
        }
        check_name("cluster", cluster)?;
        value::parse_uuid(id)?;
        check_tier(tier)?;
        let newcomer = check_newcomer(newcomer)?;
        let mut changes = vec![Change::Cluster];
        let mut stored = (*self.settings).clone();
        for (name, value) in settings {
            let setting = Setting::from_name(name)?;
            setting.check(value)?;
            stored.put(setting, value, version);
            changes.push(Change::Setting(name.clone()));
        }
        *self.settings.make_mut() = stored;
        let cluster = Cluster { name: cluster.to_owned(), id: id.to_ascii_lowercase() };
        let topology = self.topology.make_mut();
        topology.tiers.insert(tier.name.clone(), new_tier(tier, version));
        let (instance, replicaset) = topology.admit(&cluster, newcomer, &tier.name, version)?;
        topology.crown_founder(&instance, &replicaset);
        self.cluster = Some(cluster);
        changes.extend([Change::Tier(tier.name.clone()), Change::Replicaset(replicaset), Change::Instance(instance)]);
        Ok(changes)
    }

    pub(crate) fn join(
        &mut self,
        newcomer: &Newcomer,
        tier: &TierName,
        replaces: Option<&str>,
        version: u64,
    ) -> Changes {
        let Some(cluster) = self.cluster.clone() else { return Err(not_bootstrapped()) };
        let newcomer = check_newcomer(newcomer)?;
        self.topology.tier(tier)?;
        let namesake = self.topology.instances.get(&newcomer.name);
        if let Some(known) = namesake.filter(|known| known.state != InstanceState::Expelled) {
            let known = known.clone();
            return match replaces {
                Some(uuid) if known.uuid == uuid && known.uuid != newcomer.uuid => {
                    self.replace(&known, newcomer, tier, version)
                }
                _ => self.rejoin(&known, newcomer, tier, version),
            };
        }
        if namesake.is_some_and(|expelled| expelled.uuid == newcomer.uuid) {
            let message =
                format!("instance \"{}\" was expelled and can not come back with its old data", newcomer.name);
            return Err(Error::new(Code::NameTaken, message).with_hint("empty its data folder and start it again"));
        }
        if let Some(twin) = self.topology.instances.values().find(|other| other.uuid == newcomer.uuid) {
            let message =
                format!("the data of instance \"{}\" can not be used under the name \"{}\"", twin.name, newcomer.name);
            return Err(Error::new(Code::NameTaken, message));
        }
        let topology = self.topology.make_mut();
        topology.make_room(&newcomer.name)?;
        let (instance, replicaset) = topology.admit(&cluster, newcomer, tier, version)?;
        let tier = Change::Tier(tier.clone());
        Ok(vec![tier, Change::Replicaset(replicaset), Change::Instance(instance)])
    }

    /// The process of a known instance has started again.
    fn rejoin(&mut self, known: &Instance, newcomer: Newcomer, tier: &TierName, version: u64) -> Changes {
        let name = &known.name;
        if known.uuid != newcomer.uuid {
            return Err(Error::new(Code::NameTaken, format!("instance \"{name}\" exists already, with other data"))
                .with_hint("choose another name, or expel the old instance first"));
        }
        check_same_tier(known, tier)?;
        let back = Instance {
            address: newcomer.address,
            failure_domain: newcomer.failure_domain,
            incarnation: known.incarnation.saturating_add(1),
            state: if known.state == InstanceState::Joining { known.state } else { InstanceState::Offline },
            version,
            ..known.clone()
        };
        self.topology.make_mut().instances.insert(name.clone(), back);
        let mut changes = vec![Change::Instance(name.clone())];
        // A master that begins another life begins another term: the others in sync say first what they have, and what it
        // has itself by now is the beginning that all have to have.
        let replicaset = self.topology.replicaset(&known.replicaset)?;
        if replicaset.master.as_ref() == Some(name) && self.topology.members(&replicaset.name).count() > 1 {
            let (replicaset, term) = (replicaset.name.clone(), replicaset.master_term + 1);
            changes.extend(self.set_master(&replicaset, term, (None, None), version)?);
        }
        if newcomer.lost_power {
            changes.extend(self.count_out(name, &known.replicaset, version));
        }
        Ok(changes)
    }

    /// Nobody counts on what a member has, while others have everything.
    fn count_out(&mut self, name: &InstanceName, replicaset: &ReplicasetName, version: u64) -> Option<Change> {
        let replicaset = self.topology.make_mut().replicasets.get_mut(replicaset)?;
        if replicaset.in_sync.len() < 2 || !replicaset.in_sync.remove(name) {
            return None;
        }
        replicaset.heir.take_if(|heir| heir == name);
        replicaset.version = version;
        Some(Change::Replicaset(replicaset.name.clone()))
    }

    /// A known instance has thrown its data away and comes back in its old place with none. Nobody counts on the old data
    /// any more, and Raft knows the newcomer under another number: the votes of the old one were thrown away too.
    fn replace(&mut self, known: &Instance, newcomer: Newcomer, tier: &TierName, version: u64) -> Changes {
        let name = &known.name;
        check_same_tier(known, tier)?;
        if let Some(twin) = self.topology.instances.values().find(|other| other.uuid == newcomer.uuid) {
            let message = format!("instance \"{}\" has this UUID already", twin.name);
            return Err(Error::new(Code::NameTaken, message));
        }
        let replicaset = self.topology.replicaset(&known.replicaset)?;
        if replicaset.master.as_ref() == Some(name) {
            return Err(conflict(format!("instance \"{name}\" is the master of \"{}\"", replicaset.name)));
        }
        if replicaset.in_sync.iter().eq([name]) {
            return Err(conflict(format!("instance \"{name}\" is the last in sync of \"{}\"", replicaset.name)));
        }
        let topology = self.topology.make_mut();
        topology.raft_id_last += 1;
        let anew = Instance {
            raft_id: topology.raft_id_last,
            uuid: newcomer.uuid,
            address: newcomer.address,
            failure_domain: newcomer.failure_domain,
            incarnation: known.incarnation.saturating_add(1),
            state: InstanceState::Joining,
            version,
            ..known.clone()
        };
        topology.instances.insert(name.clone(), anew);
        let counted_out = self.count_out(name, &known.replicaset, version);
        Ok(std::iter::once(Change::Instance(name.clone())).chain(counted_out).collect())
    }

    /// A known instance comes back with its rows and without its Raft log, which has lost its end. Raft knows it under
    /// another number, since what the old one has promised is forgotten; and while others are in sync, nobody counts on
    /// rows that may be lost too. A request that comes twice, or late, changes nothing.
    pub(crate) fn renumber(&mut self, newcomer: &Newcomer, tier: &TierName, forgets: RaftId, version: u64) -> Changes {
        let newcomer = check_newcomer(newcomer)?;
        let name = &newcomer.name;
        let known = self.topology.instances.get(name).filter(|known| known.uuid == newcomer.uuid);
        let known = known.filter(|known| known.state != InstanceState::Expelled).cloned();
        let known = known.ok_or_else(|| {
            let message = format!("instance \"{name}\" is no member of this cluster any more");
            Error::new(Code::NameTaken, message).with_hint("to join again, start it with an empty data_dir")
        })?;
        if known.raft_id != forgets {
            return Ok(vec![]);
        }
        let newcomer = Newcomer { lost_power: true, ..newcomer };
        let changes = self.rejoin(&known, newcomer, tier, version)?;
        let topology = self.topology.make_mut();
        topology.raft_id_last += 1;
        if let Some(instance) = topology.instances.get_mut(&known.name) {
            instance.raft_id = topology.raft_id_last;
        }
        Ok(changes)
    }

    pub(crate) fn set_instance_state(
        &mut self,
        name: &InstanceName,
        incarnation: u64,
        state: InstanceState,
        version: u64,
    ) -> Changes {
        let instance = self.topology.instance(name)?;
        check_incarnation(instance, incarnation)?;
        if instance.state == state {
            return Ok(vec![]);
        }
        match state {
            _ if instance.state == InstanceState::Expelled => {
                return Err(conflict(format!("instance \"{name}\" is expelled")));
            }
            InstanceState::Joining => {
                return Err(Error::new(Code::Argument, format!("instance \"{name}\" has joined already")));
            }
            InstanceState::Expelled => return self.finish_expel(&instance.clone(), version),
            InstanceState::Online | InstanceState::Offline => {}
        }
        if let Some(instance) = self.topology.make_mut().instances.get_mut(name) {
            instance.state = state;
            instance.version = version;
        }
        Ok(vec![Change::Instance(name.clone())])
    }

    pub(crate) fn update_address(
        &mut self,
        name: &InstanceName,
        incarnation: u64,
        address: &str,
        version: u64,
    ) -> Changes {
        check_text("address", address, ADDRESS_BYTES_MAX)?;
        let instance = self.topology.instance(name)?;
        check_incarnation(instance, incarnation)?;
        if instance.address == address {
            return Ok(vec![]);
        }
        if let Some(instance) = self.topology.make_mut().instances.get_mut(name) {
            instance.address = address.to_owned();
            instance.version = version;
        }
        Ok(vec![Change::Instance(name.clone())])
    }

    pub(crate) fn expel(&mut self, name: &InstanceName, version: u64) -> Changes {
        let instance = self.topology.instance(name)?;
        if instance.state == InstanceState::Expelled || instance.expelling {
            return Ok(vec![]);
        }
        let last_of = |what: &str| {
            Err(Error::new(
                Code::Argument,
                format!("instance \"{name}\" is the last of its {what} and can not be expelled"),
            )
            .with_hint("add another instance first, or stop the process to end the cluster"))
        };
        let stays = |other: &&Instance| other.stays() && other.name != *name;
        if !self.topology.instances.values().any(|other| stays(&other)) {
            return last_of("cluster");
        }
        let owns_buckets = self.placement.owns_any(&instance.replicaset);
        let mut tier_mates = self.topology.instances.values().filter(|other| other.tier == instance.tier);
        if owns_buckets && !tier_mates.any(|other| stays(&other)) {
            return last_of("tier");
        }
        if let Some(instance) = self.topology.make_mut().instances.get_mut(name) {
            instance.expelling = true;
            instance.version = version;
        }
        Ok(vec![Change::Instance(name.clone())])
    }

    /// The last step of an expulsion. What must be true by then is checked here, whoever proposes it.
    fn finish_expel(&mut self, instance: &Instance, version: u64) -> Changes {
        let name = &instance.name;
        if !instance.expelling {
            return Err(conflict(format!("nobody asked to expel instance \"{name}\"")));
        }
        let replicaset = self.topology.replicaset(&instance.replicaset)?;
        if replicaset.master.as_ref() == Some(name) {
            return Err(conflict(format!("instance \"{name}\" is the master of \"{}\"", replicaset.name)));
        }
        let owns_buckets = self.placement.owns_any(&replicaset.name);
        if owns_buckets && replicaset.in_sync.iter().all(|member| member == name) {
            return Err(conflict(format!("instance \"{name}\" holds the only copy of its buckets")));
        }
        let replicaset = replicaset.name.clone();
        let mut changes = vec![Change::Instance(name.clone()), Change::Replicaset(replicaset.clone())];
        let topology = self.topology.make_mut();
        if let Some(instance) = topology.instances.get_mut(name) {
            instance.state = InstanceState::Expelled;
            instance.version = version;
        }
        if topology.members(&replicaset).next().is_none() {
            topology.replicasets.remove(&replicaset);
            changes.extend(self.placement.make_mut().forget(&replicaset));
        } else if let Some(record) = topology.replicasets.get_mut(&replicaset) {
            record.in_sync.remove(name);
            record.heir.take_if(|heir| heir == name);
            record.version = version;
        }
        Ok(changes)
    }

    pub(crate) fn set_weight(&mut self, name: &ReplicasetName, weight: u32, version: u64) -> Changes {
        if weight > WEIGHT_MAX {
            return Err(Error::new(
                Code::Argument,
                format!("a weight is a number from 0 to {WEIGHT_MAX}, not {weight}"),
            ));
        }
        if self.topology.replicaset(name)?.weight == weight {
            return Ok(vec![]);
        }
        if let Some(replicaset) = self.topology.make_mut().replicasets.get_mut(name) {
            replicaset.weight = weight;
            replicaset.version = version;
        }
        Ok(vec![Change::Replicaset(name.clone())])
    }

    pub(crate) fn add_tier(&mut self, tier: &TierSpec, version: u64) -> Changes {
        if self.cluster.is_none() {
            return Err(not_bootstrapped());
        }
        check_tier(tier)?;
        if self.topology.tiers.contains_key(&tier.name) {
            return Err(Error::new(Code::AlreadyExists, format!("tier \"{}\" exists already", tier.name)));
        }
        if self.topology.tiers.len() >= TIERS_MAX {
            return Err(Error::new(Code::LimitExceeded, format!("a cluster has {TIERS_MAX} tiers at most")));
        }
        self.topology.make_mut().tiers.insert(tier.name.clone(), new_tier(tier, version));
        Ok(vec![Change::Tier(tier.name.clone())])
    }
}

impl Topology {
    /// Gives a newcomer its Raft id and its replicaset. The tier is known to exist.
    fn admit(
        &mut self,
        cluster: &Cluster,
        newcomer: Newcomer,
        tier: &TierName,
        version: u64,
    ) -> Result<(InstanceName, ReplicasetName)> {
        let replicaset = match self.vacancy(&newcomer, tier) {
            Some(replicaset) => replicaset,
            None => self.found_replicaset(cluster, tier, version)?,
        };
        self.raft_id_last += 1;
        let instance = Instance {
            name: newcomer.name,
            raft_id: self.raft_id_last,
            uuid: newcomer.uuid,
            replicaset: replicaset.clone(),
            tier: tier.clone(),
            address: newcomer.address,
            failure_domain: newcomer.failure_domain,
            incarnation: 1,
            state: InstanceState::Joining,
            expelling: false,
            version,
        };
        let name = instance.name.clone();
        self.instances.insert(name.clone(), instance);
        Ok((name, replicaset))
    }

    /// The replicaset that a newcomer fills: one that lacks members, stands in other failure domains, and of those the
    /// fullest, so that one is complete before the next is begun. Then the first by name.
    fn vacancy(&self, newcomer: &Newcomer, tier: &TierName) -> Option<ReplicasetName> {
        let wanted = self.tiers.get(tier)?.replication_factor as usize;
        let fits = |replicaset: &&Replicaset| {
            let staying = self.members(&replicaset.name).filter(|member| member.stays()).count();
            let apart = |member: &Instance| !share_domain(&member.failure_domain, &newcomer.failure_domain);
            (1..wanted).contains(&staying) && self.members(&replicaset.name).filter(|m| m.stays()).all(apart)
        };
        let rank = |replicaset: &&Replicaset| {
            let members = self.members(&replicaset.name).filter(|member| member.stays()).count();
            (std::cmp::Reverse(members), replicaset.name.clone())
        };
        self.replicasets_of(tier).filter(fits).min_by_key(rank).map(|replicaset| replicaset.name.clone())
    }

    fn found_replicaset(&mut self, cluster: &Cluster, tier: &TierName, version: u64) -> Result<ReplicasetName> {
        let Some(record) = self.tiers.get_mut(tier) else {
            return Err(Error::internal(format!("tier \"{tier}\" went missing")));
        };
        record.replicasets_made += 1;
        record.version = version;
        let name = ReplicasetName(format!("{tier}_{}", record.replicasets_made));
        let replicaset = Replicaset {
            name: name.clone(),
            uuid: derived_uuid(&cluster.id, name.as_str()),
            tier: tier.clone(),
            master: None,
            deposed: None,
            heir: None,
            master_term: 0,
            in_sync: BTreeSet::new(),
            history: History::default(),
            weight: WEIGHT_DEFAULT,
            state: ReplicasetState::Forming,
            version,
        };
        self.replicasets.insert(name.clone(), replicaset);
        Ok(name)
    }

    /// The instance that bootstraps a cluster is online by doing so, and the first master.
    fn crown_founder(&mut self, instance: &InstanceName, replicaset: &ReplicasetName) {
        if let Some(instance) = self.instances.get_mut(instance) {
            instance.state = InstanceState::Online;
        }
        if let Some(record) = self.replicasets.get_mut(replicaset) {
            record.master = Some(instance.clone());
            record.master_term = 1;
            record.in_sync = BTreeSet::from([instance.clone()]);
        }
        self.settle(replicaset);
    }

    /// A replicaset is ready once it has had a master and all its members in sync, and stays so.
    pub(crate) fn settle(&mut self, name: &ReplicasetName) {
        let Some(replicaset) = self.replicasets.get_mut(name) else { return };
        let wanted = self.tiers.get(&replicaset.tier).map_or(1, |tier| tier.replication_factor) as usize;
        if replicaset.master.is_some() && replicaset.in_sync.len() >= wanted {
            replicaset.state = ReplicasetState::Ready;
        }
    }

    /// Forgets the instance that was expelled first when there are too many records.
    fn make_room(&mut self, newcomer: &InstanceName) -> Result<()> {
        if self.instances.len() < INSTANCES_MAX || self.instances.contains_key(newcomer) {
            return Ok(());
        }
        let expelled = self.instances.values().filter(|i| i.state == InstanceState::Expelled);
        let Some(oldest) = expelled.min_by_key(|i| i.version).map(|i| i.name.clone()) else {
            return Err(Error::new(Code::LimitExceeded, format!("a cluster has {INSTANCES_MAX} instances at most")));
        };
        self.instances.remove(&oldest);
        Ok(())
    }
}

fn new_tier(spec: &TierSpec, version: u64) -> Tier {
    Tier {
        name: spec.name.clone(),
        replication_factor: spec.replication_factor,
        bucket_count: spec.bucket_count,
        can_vote: spec.can_vote,
        replicasets_made: 0,
        version,
    }
}

/// Whether two instances stand in one place by any of the keys that both name.
fn share_domain(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> bool {
    a.iter().any(|(key, value)| b.get(key) == Some(value))
}

/// A UUID that every instance derives alike: a hash, with the bits that mark version 8 (free form).
fn derived_uuid(cluster_id: &str, name: &str) -> String {
    let mut bytes = xxh3_128(format!("{cluster_id}/{name}").as_bytes()).to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Value::Uuid(bytes).to_string()
}

fn check_incarnation(instance: &Instance, incarnation: u64) -> Result<()> {
    if instance.incarnation == incarnation {
        return Ok(());
    }
    let message =
        format!("instance \"{}\" is in incarnation {}, not {incarnation}", instance.name, instance.incarnation);
    Err(conflict(message))
}

fn check_same_tier(known: &Instance, tier: &TierName) -> Result<()> {
    if known.tier == *tier {
        return Ok(());
    }
    let message =
        format!("instance \"{}\" belongs to tier \"{}\" and can not change to \"{tier}\"", known.name, known.tier);
    Err(Error::new(Code::Config, message))
}

fn not_bootstrapped() -> Error {
    Error::new(Code::NotReady, "the cluster is not bootstrapped yet")
}

fn check_tier(tier: &TierSpec) -> Result<()> {
    check_name("tier", tier.name.as_str())?;
    if !(1..=REPLICATION_FACTOR_MAX).contains(&tier.replication_factor) {
        let given = tier.replication_factor;
        return Err(Error::new(
            Code::Config,
            format!("a replication factor is 1 to {REPLICATION_FACTOR_MAX}, not {given}"),
        ));
    }
    if !(1..=sharding::map::BUCKETS_MAX).contains(&tier.bucket_count) {
        let message = format!("a tier has 1 to {} buckets, not {}", sharding::map::BUCKETS_MAX, tier.bucket_count);
        return Err(Error::new(Code::Config, message));
    }
    Ok(())
}

/// Checks what an instance says of itself; its UUID comes out in lower case.
fn check_newcomer(newcomer: &Newcomer) -> Result<Newcomer> {
    check_name("instance", newcomer.name.as_str())?;
    check_text("address", &newcomer.address, ADDRESS_BYTES_MAX)?;
    if newcomer.failure_domain.len() > DOMAINS_MAX {
        return Err(Error::new(Code::Config, format!("an instance has {DOMAINS_MAX} failure domains at most")));
    }
    for (key, value) in &newcomer.failure_domain {
        check_text("name of a failure domain", key, NAME_BYTES_MAX)?;
        check_text("value of a failure domain", value, NAME_BYTES_MAX)?;
    }
    let uuid = Value::Uuid(value::parse_uuid(&newcomer.uuid)?).to_string();
    Ok(Newcomer { uuid, ..newcomer.clone() })
}

/// Names are used in file names, metrics and URLs, so they are plain.
fn check_name(what: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
        let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
        return Err(Error::new(Code::Config, format!("\"{shown}\" can not be the name of a {what}"))
            .with_hint(format!("1 to {NAME_BYTES_MAX} letters, digits, underscores, hyphens and dots")));
    }
    Ok(())
}

fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<()> {
    if text.is_empty() || text.len() > bytes_max || text.contains(char::is_control) {
        return Err(Error::new(Code::Config, format!("the {what} of an instance is 1 to {bytes_max} bytes of text")));
    }
    Ok(())
}
