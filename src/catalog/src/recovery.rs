//! A majority of the voters is gone for good, and with them, perhaps, all copies of some rows: the cluster goes on without
//! them, because somebody decided so. This is the only operation that lets acknowledged writes go.

use crate::apply::{Change, Changes};
use crate::state::State;
use crate::topology::InstanceState;
use model::{Code, Error, InstanceName, ReplicasetName, Result, TierName};
use std::collections::{BTreeMap, BTreeSet};

/// What is lost for good when some instances are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Replicasets that go on with members that may lack the last acknowledged writes: nobody in sync is left.
    pub behind: BTreeSet<ReplicasetName>,
    /// Replicasets of which no member is left, with how many buckets they own: their rows are gone, and the buckets begin
    /// empty elsewhere.
    pub gone: BTreeMap<ReplicasetName, u32>,
}

impl State {
    /// What would be lost without these instances.
    ///
    /// Errors: `NoSuchInstance`; `Argument` when nobody would be left, of the cluster or of a tier with buckets.
    pub fn losses(&self, lost: &BTreeSet<InstanceName>) -> Result<Losses> {
        for name in lost {
            if self.topology.instance(name)?.state == InstanceState::Expelled {
                return Err(Error::new(Code::Argument, format!("instance \"{name}\" is expelled already")));
            }
        }
        let mut losses = Losses::default();
        for replicaset in self.topology.replicasets.values() {
            let name = &replicaset.name;
            if self.survivors(name, lost).next().is_none() {
                let buckets = self.placement.map(&replicaset.tier).map_or(0, |map| map.count_of(name));
                losses.gone.insert(name.clone(), buckets);
                if buckets > 0 && self.heir(&replicaset.tier, lost).is_none() {
                    let tier = &replicaset.tier;
                    return Err(Error::new(Code::Argument, format!("nobody of tier \"{tier}\" would be left")));
                }
            } else if !replicaset.in_sync.is_empty() && replicaset.in_sync.is_subset(lost) {
                losses.behind.insert(name.clone());
            }
        }
        if losses.gone.len() == self.topology.replicasets.len() {
            return Err(Error::new(Code::Argument, "no instance would be left"));
        }
        Ok(losses)
    }

    pub(crate) fn recover(&mut self, lost: &BTreeSet<InstanceName>, version: u64) -> Changes {
        if lost.is_empty() {
            return Err(Error::new(Code::Argument, "no instance is said to be lost"));
        }
        let losses = self.losses(lost)?;
        let mut changes = Vec::new();
        for (name, buckets) in &losses.gone {
            if *buckets > 0 {
                changes.extend(self.give_buckets_away(name, lost, version)?);
            }
        }
        let topology = self.topology.make_mut();
        for name in lost {
            if let Some(instance) = topology.instances.get_mut(name) {
                (instance.state, instance.expelling, instance.version) = (InstanceState::Expelled, true, version);
                changes.push(Change::Instance(name.clone()));
            }
        }
        for name in losses.gone.keys() {
            topology.replicasets.remove(name);
            changes.extend(self.placement.make_mut().forget(name));
            changes.push(Change::Replicaset(name.clone()));
        }
        let touched: Vec<ReplicasetName> = self.topology.replicasets.keys().cloned().collect();
        changes.extend(touched.into_iter().filter_map(|name| self.go_on_without(&name, lost, version)));
        Ok(changes)
    }

    /// The members that are left of a replicaset.
    fn survivors<'a>(
        &'a self,
        replicaset: &'a ReplicasetName,
        lost: &'a BTreeSet<InstanceName>,
    ) -> impl Iterator<Item = &'a InstanceName> {
        let members = self.topology.members(replicaset).map(|member| &member.name);
        members.filter(|name| !lost.contains(*name))
    }

    /// The replicaset that is given the buckets of those that are gone: the one that owns fewest.
    fn heir(&self, tier: &TierName, lost: &BTreeSet<InstanceName>) -> Option<ReplicasetName> {
        let map = self.placement.map(tier)?;
        let alive =
            self.topology.replicasets_of(tier).filter(|other| self.survivors(&other.name, lost).next().is_some());
        let heir = alive.min_by_key(|other| (map.count_of(&other.name), other.name.clone()))?;
        Some(heir.name.clone())
    }

    fn give_buckets_away(&mut self, gone: &ReplicasetName, lost: &BTreeSet<InstanceName>, version: u64) -> Changes {
        let tier = self.topology.replicaset(gone)?.tier.clone();
        let Some(heir) = self.heir(&tier, lost) else { return Ok(vec![]) };
        let placement = self.placement.make_mut();
        let Some(entry) = placement.maps.get_mut(&tier) else { return Ok(vec![]) };
        let owned: Vec<_> = entry.map.owned_by(gone).map(|range| range.buckets).collect();
        for buckets in owned {
            entry.map.make_mut().assign(buckets, &heir)?;
        }
        (entry.version, placement.version) = (version, version);
        Ok(vec![Change::Buckets(tier)])
    }

    /// A replicaset of which somebody is left. Without its master it begins a new term; with nobody in sync, all who are
    /// left have an equal right to be master, and the one with most rows will be.
    fn go_on_without(&mut self, name: &ReplicasetName, lost: &BTreeSet<InstanceName>, version: u64) -> Option<Change> {
        let has_data = |name: &&InstanceName| {
            self.topology.instances.get(*name).is_some_and(|member| member.state != InstanceState::Joining)
        };
        let survivors: BTreeSet<InstanceName> = self.survivors(name, lost).filter(has_data).cloned().collect();
        let replicaset = self.topology.make_mut().replicasets.get_mut(name)?;
        let is_lost = |name: &InstanceName| lost.contains(name);
        let has_lost_master = replicaset.master.as_ref().is_some_and(is_lost);
        let has_lost = has_lost_master
            || replicaset.deposed.as_ref().is_some_and(is_lost)
            || replicaset.in_sync.iter().any(is_lost);
        if !has_lost {
            return None;
        }
        replicaset.in_sync.retain(|name| !lost.contains(name));
        if replicaset.in_sync.is_empty() {
            replicaset.in_sync = survivors;
        }
        replicaset.heir.take_if(|heir| lost.contains(heir));
        replicaset.deposed.take_if(|deposed| lost.contains(deposed));
        if has_lost_master {
            replicaset.master = None;
            replicaset.master_term += 1;
        }
        replicaset.version = version;
        Some(Change::Replicaset(name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{bootstrap, newcomer};
    use crate::{Entry, Op, Outcome};
    use sharding::BucketRange;

    fn apply(state: &mut State, op: Op) -> Outcome {
        let outcome = state.apply(state.index + 1, &Entry::new(op));
        state.check().unwrap();
        outcome
    }

    /// Two replicasets of two, each with everybody in sync and half of the buckets.
    fn cluster() -> State {
        let mut state = State::default();
        apply(&mut state, bootstrap(2));
        for n in 2..=4 {
            let instance = newcomer(n, 0, &n.to_string());
            apply(&mut state, Op::Join { instance, tier: "default".into(), replaces: None });
            let (instance, incarnation) = (format!("i{n}").into(), 1);
            apply(&mut state, Op::SetInstanceState { instance, incarnation, state: InstanceState::Online });
        }
        let (first, second) = (ReplicasetName("default_1".into()), ReplicasetName("default_2".into()));
        let master = Some("i3".into());
        apply(&mut state, Op::SetMaster { replicaset: second.clone(), term: 1, master, kept: None });
        for (replicaset, members) in [(&first, ["i1", "i2"]), (&second, ["i3", "i4"])] {
            let in_sync: BTreeSet<InstanceName> = members.into_iter().map(InstanceName::from).collect();
            let promised = in_sync.iter().map(|name| (name.clone(), state.topology.instances[name].version)).collect();
            apply(&mut state, Op::SetInSync { replicaset: replicaset.clone(), term: 1, in_sync, promised });
        }
        let owners = vec![(BucketRange::new(1, 15), first), (BucketRange::new(16, 30), second)];
        apply(&mut state, Op::AssignBuckets { tier: "default".into(), owners });
        state
    }

    fn lose(state: &mut State, names: &[&str]) -> Outcome {
        apply(state, Op::Recover { lost: names.iter().map(|name| InstanceName::from(*name)).collect() })
    }

    #[test]
    fn a_replicaset_goes_on_with_who_is_left_in_sync() {
        let mut state = cluster();
        let losses = state.losses(&BTreeSet::from(["i1".into(), "i4".into()])).unwrap();
        assert_eq!(losses, Losses::default());
        assert!(matches!(lose(&mut state, &["i1", "i4"]), Outcome::Applied { .. }));
        let first = &state.topology.replicasets[&"default_1".into()];
        assert_eq!((first.master.clone(), first.master_term, first.in_sync.len()), (None, 2, 1));
        let second = &state.topology.replicasets[&"default_2".into()];
        assert_eq!((second.master.clone(), second.master_term), (Some("i3".into()), 1));
        assert!(second.in_sync.iter().eq(&[InstanceName::from("i3")]));
        assert_eq!(state.topology.instances[&"i1".into()].state, InstanceState::Expelled);
    }

    #[test]
    fn with_nobody_in_sync_all_who_are_left_stand_for_it() {
        let mut state = cluster();
        let (replicaset, in_sync) = (ReplicasetName("default_1".into()), BTreeSet::from(["i1".into()]));
        apply(&mut state, Op::SetInSync { replicaset, term: 1, in_sync, promised: BTreeMap::new() });
        let losses = state.losses(&BTreeSet::from(["i1".into()])).unwrap();
        assert!(losses.behind.iter().eq(&[ReplicasetName("default_1".into())]) && losses.gone.is_empty());
        lose(&mut state, &["i1"]);
        let first = &state.topology.replicasets[&"default_1".into()];
        assert!(first.in_sync.iter().eq(&[InstanceName::from("i2")]));
    }

    #[test]
    fn buckets_of_a_replicaset_that_is_gone_begin_empty_elsewhere() {
        let mut state = cluster();
        lose(&mut state, &["i1", "i2"]);
        let map = state.placement.map(&"default".into()).unwrap();
        assert_eq!(map.count_of(&"default_2".into()), 30);
        assert!(!state.topology.replicasets.contains_key(&ReplicasetName("default_1".into())));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut state = cluster();
        for names in [&[][..], &["i1", "i2", "i3", "i4"], &["nobody"]] {
            assert!(matches!(lose(&mut state, names), Outcome::Refused(_)), "{names:?}");
        }
        lose(&mut state, &["i1"]);
        assert!(matches!(lose(&mut state, &["i1"]), Outcome::Refused(_)), "twice");
    }
}
