//! Which buckets should move where: three separate steps, as vshard taught the field to take them.
//!
//! `wanted` says how many buckets each replicaset should have, `routes` which of them to move for that, `due` which moves
//! to start now. All three are pure and choose alike every time, so that a new leader goes on where the old one stopped,
//! and nothing moves once the counts are right.

use crate::map::{BucketMap, BucketRange};
use model::ReplicasetName;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What a replicaset has and what weighs for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub weight: u32,
    /// Buckets that it has, or will have when the running moves are through.
    pub has: u32,
}

/// Buckets to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub buckets: BucketRange,
    pub from: ReplicasetName,
    pub to: ReplicasetName,
}

/// Bounds on what moves at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Buckets in one move.
    pub buckets_max: u32,
    /// Moves out of one replicaset.
    pub out_max: usize,
    /// Moves into one replicaset.
    pub in_max: usize,
}

/// How many of `bucket_count` buckets each replicaset should have: in proportion to the weights, what does not divide
/// going to the largest remainders, among equal ones to those that already have more than their whole part, so that the
/// answer stays the same when it has come true. Without any weight nothing moves.
pub fn wanted(bucket_count: u32, shares: &BTreeMap<ReplicasetName, Share>) -> BTreeMap<ReplicasetName, u32> {
    let total: u64 = shares.values().map(|share| u64::from(share.weight)).sum();
    if total == 0 {
        return shares.iter().map(|(name, share)| (name.clone(), share.has)).collect();
    }
    let mut counts = BTreeMap::new();
    let mut remainders = Vec::with_capacity(shares.len());
    let mut left = bucket_count;
    for (name, share) in shares {
        let product = u64::from(bucket_count) * u64::from(share.weight);
        let whole = (product / total) as u32; // At most the bucket count.
        left -= whole;
        counts.insert(name.clone(), whole);
        remainders.push((Reverse(product % total), Reverse(share.has.saturating_sub(whole)), name));
    }
    remainders.sort();
    for (_, _, name) in remainders.into_iter().take(left as usize) {
        counts.entry(name.clone()).and_modify(|count| *count += 1);
    }
    counts
}

/// The map as it will be when the running moves are through.
pub fn projected(map: &BucketMap, running: &[Route]) -> BucketMap {
    let mut map = map.clone();
    for route in running {
        // A move outside the map changes nothing.
        let _ = map.assign(route.buckets, &route.to);
    }
    map
}

/// The moves that bring every replicaset to its wanted count: no bucket twice, no more of them than needed, in few and
/// long ranges. Who is not in `wanted` gives everything away. Buckets that are moving already stay out of it.
pub fn routes(map: &BucketMap, running: &[Route], wanted: &BTreeMap<ReplicasetName, u32>) -> Vec<Route> {
    let future = projected(map, running);
    let mut givers: Vec<(u32, ReplicasetName)> = vec![];
    let mut takers: Vec<(u32, ReplicasetName)> = vec![];
    let owners: BTreeSet<&ReplicasetName> = future.ranges().iter().map(|range| &range.replicaset).collect();
    for name in owners.into_iter().chain(wanted.keys()).collect::<BTreeSet<_>>() {
        let (has, wants) = (future.count_of(name), wanted.get(name).copied().unwrap_or(0));
        if has > wants {
            givers.push((has - wants, name.clone()));
        } else if has < wants {
            takers.push((wants - has, name.clone()));
        }
    }
    // The largest first, so that pairs are few.
    givers.sort_by_key(|(count, name)| (Reverse(*count), name.clone()));
    takers.sort_by_key(|(count, name)| (Reverse(*count), name.clone()));
    let mut routes = vec![];
    let mut takers = takers.into_iter().peekable();
    for (mut surplus, from) in givers {
        let mut free = free_ranges(&future, running, &from);
        while let Some((lacking, to)) = takers.peek_mut().filter(|_| surplus > 0) {
            let taken = take(&future, &mut free, surplus.min(*lacking), to);
            let count: u32 = taken.iter().map(|buckets| buckets.count()).sum();
            routes.extend(taken.into_iter().map(|buckets| Route { buckets, from: from.clone(), to: to.clone() }));
            surplus -= count;
            *lacking -= count;
            if *lacking == 0 {
                takers.next();
            } else if count == 0 || surplus > 0 {
                break; // What is left of the surplus is on the move already.
            }
        }
    }
    routes
}

/// The ranges of `owner` that no running move touches.
fn free_ranges(map: &BucketMap, running: &[Route], owner: &ReplicasetName) -> Vec<BucketRange> {
    let mut free: Vec<BucketRange> = vec![];
    for range in map.owned_by(owner) {
        // Neighbours of another epoch count as one range.
        match free.last_mut() {
            Some(last) if last.last + 1 == range.buckets.first => last.last = range.buckets.last,
            _ => free.push(range.buckets),
        }
    }
    for moving in running {
        free = free.into_iter().flat_map(|range| without(range, moving.buckets)).collect();
    }
    free
}

/// What is left of a range without another: up to two pieces.
fn without(range: BucketRange, hole: BucketRange) -> Vec<BucketRange> {
    if !range.overlaps(hole) {
        return vec![range];
    }
    let before = BucketRange::new(range.first, hole.first.saturating_sub(1));
    let behind = BucketRange::new(hole.last.saturating_add(1), range.last);
    [before, behind].into_iter().filter(|piece| piece.count() > 0).collect()
}

/// Takes `count` buckets out of `free`: whole ranges where they fit, the longest first; the rest from the end of the
/// shortest range that is too long, or from its beginning where that continues what the taker has.
fn take(map: &BucketMap, free: &mut Vec<BucketRange>, mut count: u32, taker: &ReplicasetName) -> Vec<BucketRange> {
    let mut taken = vec![];
    while count > 0 {
        let fitting = free.iter().copied().filter(|range| range.count() <= count);
        let longer = free.iter().copied().filter(|range| range.count() > count);
        let whole = fitting.max_by_key(|range| (range.count(), Reverse(range.first)));
        let Some(range) = whole.or_else(|| longer.min_by_key(|range| (range.count(), range.first))) else { break };
        let piece = end_for(map, range, count, taker);
        *free = free.iter().flat_map(|range| without(*range, piece)).collect();
        count -= piece.count();
        taken.push(piece);
    }
    taken
}

/// At most `count` buckets of a range, from the end at which they continue what `taker` has, else from its last.
fn end_for(map: &BucketMap, range: BucketRange, count: u32, taker: &ReplicasetName) -> BucketRange {
    let count = count.clamp(1, range.count().max(1));
    let continues = |bucket| map.owner(bucket) == Some(taker);
    if continues(range.first.saturating_sub(1)) && !continues(range.last.saturating_add(1)) {
        BucketRange::new(range.first, range.first + (count - 1))
    } else {
        BucketRange::new(range.last - (count - 1), range.last)
    }
}

/// The moves to start now, within the limits, between replicasets that are both `able` (have a live master).
pub fn due(
    map: &BucketMap,
    routes: &[Route],
    running: &[Route],
    limits: Limits,
    able: impl Fn(&ReplicasetName) -> bool,
) -> Vec<Route> {
    let future = projected(map, running);
    let mut out: BTreeMap<&ReplicasetName, usize> = BTreeMap::new();
    let mut into: BTreeMap<&ReplicasetName, usize> = BTreeMap::new();
    for route in running {
        *out.entry(&route.from).or_default() += 1;
        *into.entry(&route.to).or_default() += 1;
    }
    let mut starting = vec![];
    for route in routes.iter().filter(|route| able(&route.from) && able(&route.to)) {
        let (leaving, coming) = (out.entry(&route.from).or_default(), into.entry(&route.to).or_default());
        if *leaving >= limits.out_max || *coming >= limits.in_max {
            continue;
        }
        *leaving += 1;
        *coming += 1;
        let buckets = end_for(&future, route.buckets, limits.buckets_max, &route.to);
        starting.push(Route { buckets, ..route.clone() });
    }
    starting
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(n: usize) -> ReplicasetName {
        format!("r{n}").into()
    }

    fn shares(map: &BucketMap, weights: &[u32]) -> BTreeMap<ReplicasetName, Share> {
        let share = |n| Share { weight: weights[n], has: map.count_of(&name(n)) };
        (0..weights.len()).map(|n| (name(n), share(n))).collect()
    }

    fn show_map(map: &BucketMap) -> String {
        map.ranges().iter().map(|r| format!("{}:{}", r.replicaset, r.buckets)).collect::<Vec<_>>().join(" ")
    }

    fn show(routes: &[Route]) -> String {
        routes.iter().map(|r| format!("{} {}>{}", r.buckets, r.from, r.to)).collect::<Vec<_>>().join(", ")
    }

    /// Plans and carries out move by move until nothing is due; answers one line a round.
    fn rebalance(map: &mut BucketMap, weights: &[u32], limits: Limits) -> Vec<String> {
        let mut lines = vec![];
        loop {
            let wanted = wanted(map.bucket_count(), &shares(map, weights));
            let due = due(map, &routes(map, &[], &wanted), &[], limits, |_| true);
            if due.is_empty() {
                return lines;
            }
            for route in &due {
                map.assign(route.buckets, &route.to).unwrap();
            }
            lines.push(show(&due));
            assert!(lines.len() < 1000, "it does not end: {lines:?}");
        }
    }

    const WIDE: Limits = Limits { buckets_max: u32::MAX, out_max: 99, in_max: 99 };

    proptest! {
        #[test]
        fn routes_move_what_is_needed_and_no_more(
            count in 1u32..3000,
            pieces in proptest::collection::vec((0u32..3000, 1u32..500, 0usize..5), 0..12),
            weights in proptest::collection::vec(0u32..4, 1..6),
            busy in proptest::collection::vec((0usize..8, 0usize..5), 0..3),
        ) {
            let mut map = BucketMap::new(count, name(0)).unwrap();
            for (first, len, owner) in pieces {
                let first = 1 + first % count;
                map.assign(BucketRange::new(first, (first + len).min(count)), &name(owner)).unwrap();
            }
            let mut running: Vec<Route> = vec![];
            for (at, to) in busy {
                let range = &map.ranges()[at % map.ranges().len()];
                if range.replicaset != name(to) && !running.iter().any(|r| r.buckets.overlaps(range.buckets)) {
                    running.push(Route { buckets: range.buckets, from: range.replicaset.clone(), to: name(to) });
                }
            }
            let future = projected(&map, &running);
            let wanted = wanted(count, &shares(&future, &weights));
            if weights.iter().any(|w| *w > 0) {
                prop_assert_eq!(wanted.values().sum::<u32>(), count);
            }
            let routes = routes(&map, &running, &wanted);
            let mut result = future.clone();
            for route in &routes {
                prop_assert!(map.owns(&route.from, route.buckets), "{:?}", route);
                prop_assert!(!running.iter().any(|r| r.buckets.overlaps(route.buckets)));
                result.assign(route.buckets, &route.to).unwrap();
            }
            let moved: u32 = routes.iter().map(|r| r.buckets.count()).sum();
            let lacks = |n: &ReplicasetName| wanted.get(n).copied().unwrap_or(0).saturating_sub(future.count_of(n));
            let needed: u32 = wanted.keys().map(lacks).sum();
            prop_assert!(moved <= needed);
            if running.is_empty() && weights.iter().any(|w| *w > 0) {
                prop_assert_eq!(moved, needed);
                prop_assert!(wanted.iter().all(|(n, count)| result.count_of(n) == *count));
                // Nothing is left to do, and the next plan sees that too.
                let again = super::wanted(count, &shares(&result, &weights));
                prop_assert_eq!(super::routes(&result, &[], &again), vec![]);
            }
        }
    }

    #[test]
    fn counts_follow_weights() {
        let counts = |total, weights: &[u32], owner| {
            let map = BucketMap::new(total, name(owner)).unwrap();
            wanted(total, &shares(&map, weights)).into_values().collect::<Vec<_>>()
        };
        assert_eq!(counts(3000, &[1, 1], 0), [1500, 1500]);
        assert_eq!(counts(3000, &[1, 1, 1, 1, 1, 1, 1], 0), [429, 429, 429, 429, 428, 428, 428]);
        assert_eq!(counts(10, &[1, 1, 1], 2), [3, 3, 4]);
        assert_eq!(counts(10, &[2, 1, 0], 0), [7, 3, 0]);
        assert_eq!(counts(10, &[0, 0], 1), [0, 10]);
        assert_eq!(counts(u32::MAX >> 8, &[1_000_000, 1_000_000], 0), [8_388_608, 8_388_607]);
    }

    #[test]
    fn two_more_replicasets_get_their_share_in_one_piece_each() {
        let mut map = BucketMap::new(3000, name(0)).unwrap();
        assert_eq!(rebalance(&mut map, &[1, 1], WIDE), ["1501-3000 r0>r1"]);
        assert_eq!(rebalance(&mut map, &[1, 1, 1], WIDE), ["1001-1500 r0>r2, 2501-3000 r1>r2"]);
        assert_eq!(show_map(&map), "r0:1-1000 r2:1001-1500 r1:1501-2500 r2:2501-3000");
        assert_eq!(rebalance(&mut map, &[1, 1, 1], WIDE), [""; 0]);
    }

    #[test]
    fn move_by_move_the_ranges_stay_together() {
        let mut map = BucketMap::new(1000, name(0)).unwrap();
        let limits = Limits { buckets_max: 200, out_max: 1, in_max: 1 };
        let lines = rebalance(&mut map, &[1, 1, 1], limits);
        assert_eq!(lines, ["801-1000 r0>r1", "601-800 r0>r2", "468-600 r0>r1", "335-467 r0>r2"]);
        assert_eq!(show_map(&map), "r0:1-334 r2:335-467 r1:468-600 r2:601-800 r1:801-1000");
        // One leaves: what it has goes to the others, and nothing else moves.
        let lines = rebalance(&mut map, &[1, 1, 0], limits);
        assert_eq!(lines, ["335-467 r2>r1", "635-800 r2>r0", "601-634 r2>r1"]);
        assert_eq!(show_map(&map), "r0:1-334 r1:335-467 r1:468-600 r1:601-634 r0:635-800 r1:801-1000");
    }
}
