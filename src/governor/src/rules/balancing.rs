//! Buckets move to where the weights want them, a few at a time; moves that take too long are given up.

use super::propose;
use crate::{Step, View};
use catalog::{Move, Op, Part, Replicaset, ReplicasetState, Setting, Tier};
use model::{Distribution, ReplicasetName};
use sharding::balance::{self, Limits, Route, Share};
use sharding::{BucketMap, MovePhase};
use std::collections::BTreeMap;

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    let mut steps: Vec<Step> = view.state.placement.moves.values().filter_map(|record| give_up(view, record)).collect();
    if view.state.settings.boolean(Setting::Balance) {
        steps.extend(view.state.topology.tiers.values().flat_map(|tier| start(view, tier)));
    }
    steps
}

fn give_up(view: &View<'_>, record: &Move) -> Option<Step> {
    let timeout_ms = view.state.settings.count(Setting::MoveTimeoutS) as u64 * 1000;
    let age_ms = view.moves_ms.get(&record.id).copied().unwrap_or(0);
    let reason = if view.state.topology.is_draining(&record.to) {
        format!("replicaset \"{}\" is leaving", record.to)
    } else if age_ms >= timeout_ms {
        format!("it was not finished after {age_ms} ms")
    } else {
        return None;
    };
    let op = Op::MoveAbort { id: record.id, reason };
    (record.phase == MovePhase::Copying).then(|| propose(view, op, Part::Move(record.id)))
}

fn start(view: &View<'_>, tier: &Tier) -> Vec<Step> {
    let Some(map) = view.state.placement.map(&tier.name) else { return vec![] };
    // A move whose source still has its copy to delete takes part in the limits, an aborted one in nothing.
    let of_tier = || view.state.placement.moves.values().filter(|record| record.tier == tier.name);
    let running: Vec<Route> = of_tier().filter(|record| record.phase != MovePhase::Aborted).map(route).collect();
    // Buckets of any record can not move again before it is gone.
    let records: Vec<Route> = of_tier().map(route).collect();
    let future = balance::projected(map, &running);
    let wanted = balance::wanted(map.bucket_count(), &shares(view, tier, &future));
    let routes = balance::routes(map, &running, &wanted);
    let routes: Vec<Route> =
        routes.into_iter().filter(|r| !records.iter().any(|other| other.buckets.overlaps(r.buckets))).collect();
    let able = |name: &ReplicasetName| view.live_master(name).is_some();
    let due = balance::due(map, &routes, &running, limits(view, tier), able);
    let propose_move = |route: Route| {
        let Route { buckets, from, to } = route;
        propose(view, Op::MoveStart { tier: tier.name.clone(), buckets, from, to }, Part::Buckets(tier.name.clone()))
    };
    due.into_iter().map(propose_move).collect()
}

fn route(record: &Move) -> Route {
    Route { buckets: record.buckets, from: record.from.clone(), to: record.to.clone() }
}

/// What weighs for each replicaset of the tier. One that has never been complete gets nothing new, unless there is no
/// other; one whose members all leave gets nothing at all. Being offline for a while changes no weight, so that nothing
/// moves because of it.
fn shares(view: &View<'_>, tier: &Tier, future: &BucketMap) -> BTreeMap<ReplicasetName, Share> {
    let topology = &view.state.topology;
    let stays = |r: &&Replicaset| !topology.is_draining(&r.name) && r.weight > 0 && r.master_term > 0;
    let settled = |r: &Replicaset| r.state == ReplicasetState::Ready || future.count_of(&r.name) > 0;
    let any_settled = topology.replicasets_of(&tier.name).filter(stays).any(settled);
    let share = |replicaset: &Replicaset| {
        let counts = stays(&replicaset) && (settled(replicaset) || !any_settled);
        let weight = if counts { replicaset.weight } else { 0 };
        (replicaset.name.clone(), Share { weight, has: future.count_of(&replicaset.name) })
    };
    topology.replicasets_of(&tier.name).map(share).collect()
}

/// While a tier has no tables there is nothing to copy, and everything moves at once.
fn limits(view: &View<'_>, tier: &Tier) -> Limits {
    let settings = &view.state.settings;
    let in_tier = |d: &Distribution| matches!(d, Distribution::Sharded { tier: of, .. } if *of == tier.name);
    let empty = !view.state.schema.tables.values().any(|table| in_tier(&table.distribution));
    let buckets_max = u32::try_from(settings.integer(Setting::MoveBucketsMax)).unwrap_or(1);
    Limits {
        buckets_max: if empty { u32::MAX } else { buckets_max },
        out_max: settings.count(Setting::MovesOutMax),
        in_max: settings.count(Setting::MovesInMax),
    }
}
