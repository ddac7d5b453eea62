//! Who is master of a replicaset, and who holds its acknowledged writes.
//!
//! A term begins before its master does: `SetMaster` to the next term without a master first, so that the old one can be
//! fenced off, then `SetMaster` in that term with the member that was chosen and the rows that it begins with. Where
//! nobody is in sync yet, there is nobody to fence, and one step does both.

use crate::apply::{Change, Changes, conflict};
use crate::settings::Setting;
use crate::state::State;
use crate::topology::Replicaset;
use model::{Code, Error, InstanceName, ReplicasetName, Result};
use replication::Kept;
use std::collections::{BTreeMap, BTreeSet};

impl State {
    pub(crate) fn set_master(
        &mut self,
        name: &ReplicasetName,
        term: u64,
        (master, kept): (Option<&InstanceName>, Option<&Kept>),
        version: u64,
    ) -> Changes {
        let replicaset = self.topology.replicaset(name)?;
        let is_first = replicaset.in_sync.is_empty();
        let begins = replicaset.master_term.checked_add(1) == Some(term) && (master.is_none() || is_first);
        let fills = replicaset.master_term == term && replicaset.master.is_none() && master.is_some();
        if !begins && !fills {
            let now = replicaset.master.as_ref().map_or("no master".into(), |m| format!("master \"{m}\""));
            let message = format!("replicaset \"{name}\" is in master term {} with {now}", replicaset.master_term);
            return Err(conflict(message));
        }
        if let Some(master) = master {
            self.check_master(replicaset, master)?;
        }
        if fills && !is_first && kept.is_none() {
            let message = format!("what the new master of replicaset \"{name}\" begins with is not said");
            return Err(Error::new(Code::Argument, message));
        }
        let topology = self.topology.make_mut();
        if let Some(replicaset) = topology.replicasets.get_mut(name) {
            let before = std::mem::replace(&mut replicaset.master, master.cloned());
            // It was asked of the master that there was: the next one may stay.
            if master.is_some() {
                replicaset.heir = None;
            }
            let is_same = master.is_some() && replicaset.deposed.as_ref() == master;
            replicaset.deposed = if master.is_some() { None } else { before.or(replicaset.deposed.take()) };
            replicaset.master_term = term;
            replicaset.version = version;
            if let Some(kept) = kept.filter(|_| fills) {
                replicaset.history.begin(term, kept.clone(), is_same);
            }
            if replicaset.in_sync.is_empty() {
                replicaset.in_sync.extend(master.cloned());
            }
        }
        topology.settle(name);
        Ok(vec![Change::Replicaset(name.clone())])
    }

    pub(crate) fn hand_over(&mut self, name: &ReplicasetName, to: &InstanceName, version: u64) -> Changes {
        let replicaset = self.topology.replicaset(name)?;
        let heir = self.topology.instance(to)?;
        if heir.replicaset != *name {
            let message = format!("instance \"{to}\" is a member of \"{}\", not of \"{name}\"", heir.replicaset);
            return Err(Error::new(Code::Argument, message));
        }
        if replicaset.master.as_ref() == Some(to) || replicaset.heir.as_ref() == Some(to) {
            return Ok(vec![]);
        }
        if !heir.is_online() || !heir.stays() || !replicaset.in_sync.contains(to) {
            return Err(conflict(format!("instance \"{to}\" is not online and in sync: it can not take over")));
        }
        if let Some(replicaset) = self.topology.make_mut().replicasets.get_mut(name) {
            replicaset.heir = Some(to.clone());
            replicaset.version = version;
        }
        Ok(vec![Change::Replicaset(name.clone())])
    }

    fn check_master(&self, replicaset: &Replicaset, master: &InstanceName) -> Result<()> {
        let name = &replicaset.name;
        if !self.topology.members(name).any(|member| member.name == *master) {
            return Err(conflict(format!("instance \"{master}\" is not a member of replicaset \"{name}\"")));
        }
        if !replicaset.in_sync.is_empty() && !replicaset.in_sync.contains(master) {
            return Err(conflict(format!(
                "instance \"{master}\" is not in sync: as master of \"{name}\" it would lose writes"
            )));
        }
        Ok(())
    }

    pub(crate) fn set_in_sync(
        &mut self,
        name: &ReplicasetName,
        term: u64,
        (in_sync, promised): (&BTreeSet<InstanceName>, &BTreeMap<InstanceName, u64>),
        version: u64,
    ) -> Changes {
        let replicaset = self.topology.replicaset(name)?;
        if replicaset.master_term != term {
            let now = replicaset.master_term;
            return Err(conflict(format!("replicaset \"{name}\" is in master term {now}, not {term}")));
        }
        if replicaset.in_sync == *in_sync {
            return Ok(vec![]);
        }
        let wrong = |message: String| Err(Error::new(Code::Argument, message));
        if let Some(master) = replicaset.master.as_ref().filter(|master| !in_sync.contains(*master)) {
            return wrong(format!("the master \"{master}\" of replicaset \"{name}\" is always in sync"));
        }
        if let Some(other) = in_sync.iter().find(|i| !self.topology.members(name).any(|member| member.name == **i)) {
            return wrong(format!("instance \"{other}\" is not a member of replicaset \"{name}\""));
        }
        let absent = |name: &&InstanceName| self.topology.instances.get(*name).is_none_or(|i| !i.is_online());
        if let Some(other) = in_sync.difference(&replicaset.in_sync).find(absent) {
            return Err(conflict(format!("instance \"{other}\" is not online: it can not be counted in")));
        }
        // It may have been away since the master promised to wait for it.
        let is_stale = |name: &&InstanceName| {
            self.topology.instances.get(*name).map(|instance| instance.version) != promised.get(*name).copied()
        };
        if let Some(other) = in_sync.difference(&replicaset.in_sync).find(is_stale) {
            return Err(conflict(format!("instance \"{other}\" has changed since the master counted on it")));
        }
        let keeps_one = replicaset.in_sync.is_empty() || !in_sync.is_disjoint(&replicaset.in_sync);
        if in_sync.is_empty() || !keeps_one {
            return wrong(format!("replicaset \"{name}\" would lose its last member in sync"));
        }
        let min = self.settings.count(Setting::MinInSync);
        if in_sync.len() < min && in_sync.len() < replicaset.in_sync.len() {
            return wrong(format!("replicaset \"{name}\" would fall below min_in_sync, which is {min}"));
        }
        let topology = self.topology.make_mut();
        if let Some(replicaset) = topology.replicasets.get_mut(name) {
            replicaset.in_sync = in_sync.clone();
            replicaset.heir.take_if(|heir| !in_sync.contains(heir));
            replicaset.version = version;
        }
        topology.settle(name);
        Ok(vec![Change::Replicaset(name.clone())])
    }
}
