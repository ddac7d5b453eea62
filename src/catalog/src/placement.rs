//! Who owns which buckets, and the moves under way.

use crate::apply::{Change, Changes, conflict};
use crate::shared::Shared;
use crate::state::State;
use model::{Code, Epoch, Error, ReplicasetName, Result, TierName};
use serde::{Deserialize, Serialize};
use sharding::map::FIRST_EPOCH;
use sharding::{BucketMap, BucketRange, MovePhase, OwnedRange, Tenure};
use std::collections::BTreeMap;

/// Counts moves; never reused.
pub type MoveId = u64;

/// Moves that can be under way at once.
pub const MOVES_MAX: usize = 1000;

/// Buckets on their way from one replicaset to another. The record stays until the copy that is left over is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub id: MoveId,
    pub tier: TierName,
    pub buckets: BucketRange,
    pub from: ReplicasetName,
    pub to: ReplicasetName,
    /// The epoch under which the destination owns the buckets once the move is finished.
    pub epoch: Epoch,
    pub phase: MovePhase,
    /// The catalog version that last changed this record.
    pub version: u64,
}

/// A tier's bucket map and the catalog version that last changed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierMap {
    pub map: Shared<BucketMap>,
    pub version: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The catalog version that last changed an owner.
    pub version: u64,
    /// A tier is absent until its buckets are first distributed.
    pub maps: BTreeMap<TierName, TierMap>,
    pub moves: BTreeMap<MoveId, Move>,
    move_id_last: MoveId,
}

impl Placement {
    /// The tier's map; None before the first distribution.
    pub fn map(&self, tier: &TierName) -> Option<&Shared<BucketMap>> {
        self.maps.get(tier).map(|entry| &entry.map)
    }

    pub fn owns_any(&self, replicaset: &ReplicasetName) -> bool {
        self.maps.values().any(|entry| entry.map.owned_by(replicaset).next().is_some())
    }

    /// Drops the moves of a replicaset that is no more: there is nobody left to delete a copy.
    pub(crate) fn forget(&mut self, replicaset: &ReplicasetName) -> Vec<Change> {
        let gone = |m: &Move| m.from == *replicaset || m.to == *replicaset;
        let ids: Vec<MoveId> = self.moves.values().filter(|m| gone(m)).map(|m| m.id).collect();
        self.moves.retain(|_, m| !gone(m));
        ids.into_iter().map(Change::Move).collect()
    }
}

impl State {
    pub(crate) fn assign_buckets(
        &mut self,
        tier: &TierName,
        owners: &[(BucketRange, ReplicasetName)],
        version: u64,
    ) -> Changes {
        let bucket_count = self.topology.tier(tier)?.bucket_count;
        if self.placement.maps.contains_key(tier) {
            return Err(conflict(format!("the buckets of tier \"{tier}\" are distributed already")));
        }
        for (_, owner) in owners {
            self.require_owner(tier, owner)?;
        }
        let owned = |(buckets, owner): &(BucketRange, ReplicasetName)| OwnedRange {
            buckets: *buckets,
            replicaset: owner.clone(),
            epoch: FIRST_EPOCH,
        };
        let map = BucketMap::from_ranges(owners.iter().map(owned).collect())?;
        if map.bucket_count() != bucket_count {
            let message = format!("tier \"{tier}\" has {bucket_count} buckets, not {}", map.bucket_count());
            return Err(Error::new(Code::Argument, message));
        }
        let placement = self.placement.make_mut();
        placement.maps.insert(tier.clone(), TierMap { map: Shared::new(map), version });
        placement.version = version;
        Ok(vec![Change::Buckets(tier.clone())])
    }

    /// A replicaset that can be given buckets: of the tier, with a master.
    fn require_owner(&self, tier: &TierName, owner: &ReplicasetName) -> Result<()> {
        let replicaset = self.topology.replicaset(owner)?;
        if replicaset.tier != *tier {
            return Err(Error::new(Code::Argument, format!("replicaset \"{owner}\" is not part of tier \"{tier}\"")));
        }
        if replicaset.master.is_none() {
            return Err(conflict(format!("replicaset \"{owner}\" has no master")));
        }
        Ok(())
    }

    pub(crate) fn move_start(
        &mut self,
        tier: &TierName,
        buckets: BucketRange,
        (from, to): (&ReplicasetName, &ReplicasetName),
        version: u64,
    ) -> Changes {
        self.require_owner(tier, from)?;
        self.require_owner(tier, to)?;
        if from == to {
            return Err(Error::new(Code::Argument, format!("a move from \"{from}\" to itself")));
        }
        let Some(map) = self.placement.map(tier).filter(|map| map.owns(from, buckets)) else {
            return Err(conflict(format!("replicaset \"{from}\" does not own all of the buckets {buckets}")));
        };
        let clash = self.placement.moves.values().find(|m| m.tier == *tier && m.buckets.overlaps(buckets));
        if let Some(other) = clash {
            return Err(conflict(format!("move {} of the buckets {} is not over yet", other.id, other.buckets)));
        }
        if self.placement.moves.len() >= MOVES_MAX {
            return Err(Error::new(Code::LimitExceeded, format!("{MOVES_MAX} moves at most at a time")));
        }
        let epoch = map.epoch_of(buckets).saturating_add(1);
        let placement = self.placement.make_mut();
        placement.move_id_last += 1;
        let id = placement.move_id_last;
        let (tier, from, to) = (tier.clone(), from.clone(), to.clone());
        let phase = MovePhase::Copying;
        placement.moves.insert(id, Move { id, tier, buckets, from, to, epoch, phase, version });
        Ok(vec![Change::Move(id)])
    }

    pub(crate) fn move_finish(&mut self, id: MoveId, source: &Tenure, destination: &Tenure, version: u64) -> Changes {
        let record = self.copying(id)?;
        for (replicaset, claimed) in [(&record.from, source), (&record.to, destination)] {
            if self.topology.tenure(replicaset).as_ref() != Some(claimed) {
                let message = format!("move {id}: {claimed} is not the master of \"{replicaset}\" any more");
                return Err(conflict(message));
            }
        }
        let Move { tier, buckets, to, .. } = record.clone();
        let placement = self.placement.make_mut();
        if let Some(entry) = placement.maps.get_mut(&tier) {
            entry.map.make_mut().assign(buckets, &to)?;
            entry.version = version;
        }
        placement.version = version;
        self.set_phase(id, MovePhase::Finished, version);
        Ok(vec![Change::Buckets(tier), Change::Move(id)])
    }

    pub(crate) fn move_abort(&mut self, id: MoveId, version: u64) -> Changes {
        self.copying(id)?;
        self.set_phase(id, MovePhase::Aborted, version);
        Ok(vec![Change::Move(id)])
    }

    pub(crate) fn move_done(&mut self, id: MoveId) -> Changes {
        match self.placement.moves.get(&id) {
            None => Ok(vec![]),
            Some(record) if record.phase == MovePhase::Copying => Err(conflict(format!("move {id} is still copying"))),
            Some(_) => {
                self.placement.make_mut().moves.remove(&id);
                Ok(vec![Change::Move(id)])
            }
        }
    }

    fn copying(&self, id: MoveId) -> Result<&Move> {
        let record = self.placement.moves.get(&id).filter(|record| record.phase == MovePhase::Copying);
        record.ok_or_else(|| conflict(format!("move {id} is not under way")))
    }

    fn set_phase(&mut self, id: MoveId, phase: MovePhase, version: u64) {
        if let Some(record) = self.placement.make_mut().moves.get_mut(&id) {
            record.phase = phase;
            record.version = version;
        }
    }
}
