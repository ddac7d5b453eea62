//! What is expected of a cluster whose faults have stopped, and the last look at its data.

use super::node::Node;
use super::terms::KEYS;
use super::world::World;
use crate::invariants::Verdict;
use catalog::InstanceState;
use std::collections::BTreeMap;

/// How long recovery may take. What may come together: a process that could not announce itself and begins again, a tail
/// that is found out and thrown away with its vote, a copy that got lost, and the elections and leases between.
pub const RECOVERY_MAX_US: u64 = 60_000_000;

impl World {
    /// Looks whether the cluster has recovered; true when it has, and nothing is missing.
    pub fn probe(&mut self) -> Result<bool, String> {
        let missing = self.missing();
        if let Some(healed) = &self.healed {
            healed.recovers(self.now_us, missing.as_deref())?;
        }
        if missing.is_some() {
            return Ok(false);
        }
        self.report.recovery_us = self.now_us - self.terms.faulty_us;
        self.check_lists()?;
        Ok(true)
    }

    /// Every key can be written again: clients rest, so that all can come to the same.
    pub fn is_resting(&self) -> bool {
        self.written_since_heal.len() as u64 == KEYS
    }

    /// What a recovered cluster would have that this one has not.
    fn missing(&self) -> Option<String> {
        let Some(leader) = self.leader().and_then(|leader| self.nodes.get(&leader)?.process()) else {
            return Some("there is no leader".into());
        };
        let digest = super::raft::digest(&leader.state).ok();
        for node in self.nodes.values() {
            let number = node.number;
            let Some(process) = node.process() else { return Some(format!("i{number} is not a member")) };
            if super::raft::digest(&process.state).ok() != digest {
                return Some(format!("i{number} has another catalog"));
            }
            match process.record() {
                Some(record) if record.is_online() => {}
                record => {
                    let state = record.map(|record| record.state).unwrap_or(InstanceState::Joining);
                    return Some(format!("i{number} is {}: {}", state.name(), why(process)));
                }
            }
        }
        let topology = &leader.state.topology;
        for replicaset in topology.replicasets.values() {
            let members = topology.members(&replicaset.name).count();
            if replicaset.in_sync.len() != members {
                return Some(format!("{} has {:?} in sync of {members}", replicaset.name, replicaset.in_sync));
            }
        }
        if !self.is_resting() {
            return Some(format!("only the keys {:?} of {KEYS} could be written", self.written_since_heal));
        }
        if !leader.state.placement.moves.is_empty() {
            return Some("buckets are on their way".into());
        }
        if leader.state.schema.pending.is_some() {
            return Some("a schema change is pending".into());
        }
        self.unequal()
    }

    /// Members of a replicaset whose rows are not the same.
    fn unequal(&self) -> Option<String> {
        let mut first: BTreeMap<_, &Node> = BTreeMap::new();
        for node in self.nodes.values() {
            let Some(record) = node.process().and_then(|process| process.record()) else { continue };
            let other = first.entry(record.replicaset.clone()).or_insert(node);
            let (mine, theirs) = (&node.disk.image.store, &other.disk.image.store);
            if mine.clock != theirs.clock || mine.lists != theirs.lists {
                return Some(format!(
                    "i{} has {} and i{} {}, or other rows",
                    node.number, mine.clock, other.number, theirs.clock
                ));
            }
        }
        None
    }

    /// Everything that any client was shown is there, on every member.
    fn check_lists(&mut self) -> Verdict {
        for key in 0..KEYS {
            let owners: Vec<Vec<u64>> = self
                .nodes
                .values()
                .filter(|node| self.serves(node, key))
                .map(|node| node.disk.image.store.list(key).to_vec())
                .collect();
            for list in owners {
                self.promises.acknowledged.shows(key, self.promises.acknowledged.floor(key), &list)?;
            }
        }
        Ok(())
    }
}

fn why(process: &super::node::Process) -> String {
    format!(
        "incarnation {}, record {:?}, stray {}, follows {}@{}",
        process.incarnation,
        process.record().map(|record| record.incarnation),
        process.is_stray,
        process.follows.peers.first().map_or("nobody", String::as_str),
        process.follows.term,
    )
}
