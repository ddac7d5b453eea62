//! A replicaset that ever had a master has somebody in sync, its master among them; else nobody could take over without
//! losing writes (Lin et al., "PacificA: replication in log-based distributed storage systems", 2008).

use super::Verdict;
use catalog::topology::Topology;

#[derive(Debug, Default)]
pub struct InSync;

impl InSync {
    /// The catalog has come to this.
    pub fn stands(&self, topology: &Topology) -> Verdict {
        for replicaset in topology.replicasets.values().filter(|replicaset| replicaset.master_term > 0) {
            let name = &replicaset.name;
            if replicaset.in_sync.is_empty() {
                return Err(format!("in_sync: nobody of {name} is in sync in term {}", replicaset.master_term));
            }
            if let Some(master) = replicaset.master.as_ref().filter(|master| !replicaset.in_sync.contains(*master)) {
                return Err(format!("in_sync: {master}, the master of {name}, is not in sync"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::{Entry, Newcomer, Op, State, TierSpec};
    use std::collections::BTreeMap;

    #[test]
    fn a_replicaset_without_anybody_in_sync_is_noticed() {
        let instance = Newcomer {
            name: "i1".into(),
            uuid: "00000000-0000-0000-0000-000000000001".into(),
            address: "i1:3301".into(),
            failure_domain: BTreeMap::new(),
            lost_power: false,
        };
        let tier = TierSpec { name: "default".into(), replication_factor: 2, bucket_count: 8, can_vote: true };
        let id = "3a1f0c52-9c3e-4c0f-8b8e-000000000001".into();
        let mut state = State::default();
        let op = Op::Bootstrap { cluster: "c".into(), id, instance, tier, settings: BTreeMap::new() };
        state.apply(1, &Entry::new(op));
        let mut topology = Topology::clone(&state.topology);
        InSync.stands(&topology).unwrap();
        topology.replicasets.values_mut().for_each(|replicaset| replicaset.in_sync.clear());
        assert!(InSync.stands(&topology).is_err());
        topology.replicasets.values_mut().for_each(|replicaset| _ = replicaset.in_sync.insert("i2".into()));
        assert!(InSync.stands(&topology).is_err(), "the master is not");
    }
}
