//! The first distribution of a tier's buckets: all to the first replicaset that has a master, at once, so that a cluster
//! can be used as soon as it has one instance. Moves spread them when others come; without tables that takes one step.

use super::propose;
use crate::{Step, View};
use catalog::{Op, Part, ReplicasetState, Tier};
use sharding::BucketRange;
use std::cmp::Reverse;

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    let undistributed =
        view.state.topology.tiers.values().filter(|tier| view.state.placement.map(&tier.name).is_none());
    undistributed.filter_map(|tier| distribute(view, tier)).collect()
}

fn distribute(view: &View<'_>, tier: &Tier) -> Option<Step> {
    let topology = &view.state.topology;
    let able = topology
        .replicasets_of(&tier.name)
        .filter(|r| view.live_master(&r.name).is_some() && !topology.is_draining(&r.name));
    let first = able.min_by_key(|r| (r.state != ReplicasetState::Ready, Reverse(r.in_sync.len()), r.name.clone()))?;
    let owners = vec![(BucketRange::new(1, tier.bucket_count), first.name.clone())];
    Some(propose(view, Op::AssignBuckets { tier: tier.name.clone(), owners }, Part::Buckets(tier.name.clone())))
}
