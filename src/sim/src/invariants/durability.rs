//! Nothing applied is lost: an instance comes back with at least what its disk had reported durable, and in the end every
//! member has every write that was ever acknowledged.

use super::Verdict;
use model::RaftId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Durability {
    /// The last index that each instance was told to be durable.
    durable: BTreeMap<RaftId, u64>,
    /// How many commands the state had to hold for the last write that was acknowledged.
    acknowledged: u64,
}

impl Durability {
    pub fn made_durable(&mut self, raft_id: RaftId, applied: u64) {
        self.durable.insert(raft_id, applied);
    }

    pub fn restarts_with(&mut self, raft_id: RaftId, applied: u64) -> Verdict {
        match self.durable.get(&raft_id) {
            Some(durable) if applied < *durable => {
                Err(format!("durability: {raft_id} had applied {durable} durably and is back at {applied}"))
            }
            _ => Ok(()),
        }
    }

    /// A write was acknowledged that stands at `place` of all commands, from 0.
    pub fn acknowledges(&mut self, place: u64) {
        self.acknowledged = self.acknowledged.max(place + 1);
    }

    /// A member that has caught up holds so many commands.
    pub fn ends_with(&self, raft_id: RaftId, version: u64) -> Verdict {
        match version < self.acknowledged {
            true => Err(format!("durability: {raft_id} has {version} of {} acknowledged writes", self.acknowledged)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_missing_is_noticed() {
        let mut invariant = Durability::default();
        invariant.made_durable(1, 10);
        invariant.restarts_with(1, 10).unwrap();
        invariant.restarts_with(2, 0).unwrap();
        assert!(invariant.restarts_with(1, 9).is_err());
        invariant.acknowledges(4);
        invariant.ends_with(1, 5).unwrap();
        assert!(invariant.ends_with(1, 4).is_err());
    }
}
