//! The bucket map of a tier: who owns which bucket, and since which change of hands.
//!
//! The catalog stores ranges, so that millions of buckets cost nothing while they lie together. Routers look single
//! buckets up, millions of times a second, in a flat array made from the ranges.

use model::{BucketId, Code, Epoch, Error, ReplicasetName, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Buckets that a tier can have at most.
pub const BUCKETS_MAX: u32 = 1 << 24;
/// Maps up to this size are looked up in a flat array (two bytes a bucket), larger ones by binary search.
const FLAT_BUCKETS_MAX: u32 = 1 << 16;
/// The epoch of the first owner.
pub const FIRST_EPOCH: Epoch = 1;

/// A range of buckets, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BucketRange {
    pub first: BucketId,
    pub last: BucketId,
}

impl BucketRange {
    pub fn new(first: BucketId, last: BucketId) -> Self {
        Self { first, last }
    }

    /// How many buckets; 0 when the ends are the wrong way round.
    pub fn count(self) -> u32 {
        if self.first <= self.last { (self.last - self.first).saturating_add(1) } else { 0 }
    }

    pub fn contains(self, bucket: BucketId) -> bool {
        self.first <= bucket && bucket <= self.last
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for BucketRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Buckets that one replicaset owns since the same change of hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedRange {
    pub buckets: BucketRange,
    pub replicaset: ReplicasetName,
    pub epoch: Epoch,
}

/// The owners of all buckets from 1 to the tier's count: no gap, no overlap, neighbours merged where owner and epoch
/// are the same. Serialised as its ranges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<OwnedRange>", into = "Vec<OwnedRange>")]
pub struct BucketMap {
    ranges: Vec<OwnedRange>,
    /// For each bucket the number of its range; empty when the map is too large for that.
    flat: Box<[u16]>,
}

impl BucketMap {
    /// A map in which one replicaset owns everything.
    ///
    /// Errors: `Argument` for a count that can not be.
    pub fn new(bucket_count: u32, owner: ReplicasetName) -> Result<Self> {
        let buckets = BucketRange::new(1, bucket_count);
        Self::from_ranges(vec![OwnedRange { buckets, replicaset: owner, epoch: FIRST_EPOCH }])
    }

    /// A map of these ranges.
    ///
    /// Errors: `Argument` when they are not all buckets from 1 on in order, without gap or overlap.
    pub fn from_ranges(ranges: Vec<OwnedRange>) -> Result<Self> {
        let mut next: BucketId = 1;
        for range in &ranges {
            let BucketRange { first, last } = range.buckets;
            if first != next || last < first || last > BUCKETS_MAX {
                let message = format!(
                    "the bucket ranges have a gap, an overlap or an end past {BUCKETS_MAX} at {}",
                    range.buckets
                );
                return Err(Error::new(Code::Argument, message));
            }
            next = last + 1;
        }
        if ranges.is_empty() {
            return Err(Error::new(Code::Argument, "a bucket map has one bucket at least"));
        }
        Ok(Self::build(ranges))
    }

    /// Merges neighbours and makes the array. The ranges are known to be whole.
    fn build(ranges: Vec<OwnedRange>) -> Self {
        let mut merged: Vec<OwnedRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.replicaset == range.replicaset && last.epoch == range.epoch => {
                    last.buckets.last = range.buckets.last;
                }
                _ => merged.push(range),
            }
        }
        let mut map = Self { ranges: merged, flat: Box::default() };
        if map.bucket_count() <= FLAT_BUCKETS_MAX {
            // At most as many ranges as buckets, so the numbers fit.
            let numbered = map.ranges.iter().zip(0u16..=u16::MAX);
            map.flat = numbered.flat_map(|(range, n)| std::iter::repeat_n(n, range.buckets.count() as usize)).collect();
        }
        map
    }

    pub fn bucket_count(&self) -> u32 {
        self.ranges.last().map_or(0, |range| range.buckets.last)
    }

    /// All ranges in order of buckets.
    pub fn ranges(&self) -> &[OwnedRange] {
        &self.ranges
    }

    /// The range that holds the bucket; None for a bucket outside the map.
    #[inline]
    pub fn lookup(&self, bucket: BucketId) -> Option<&OwnedRange> {
        let at = bucket.checked_sub(1)? as usize;
        if let Some(&n) = self.flat.get(at) {
            return self.ranges.get(usize::from(n));
        }
        let n = self.ranges.partition_point(|range| range.buckets.last < bucket);
        self.ranges.get(n).filter(|range| range.buckets.contains(bucket))
    }

    #[inline]
    pub fn owner(&self, bucket: BucketId) -> Option<&ReplicasetName> {
        self.lookup(bucket).map(|range| &range.replicaset)
    }

    /// The ranges that `replicaset` owns, in order.
    pub fn owned_by<'a>(&'a self, replicaset: &'a ReplicasetName) -> impl Iterator<Item = &'a OwnedRange> {
        self.ranges.iter().filter(move |range| range.replicaset == *replicaset)
    }

    /// How many buckets `replicaset` owns.
    pub fn count_of(&self, replicaset: &ReplicasetName) -> u32 {
        self.owned_by(replicaset).map(|range| range.buckets.count()).sum()
    }

    /// Whether `replicaset` owns every bucket of the range.
    pub fn owns(&self, replicaset: &ReplicasetName, buckets: BucketRange) -> bool {
        buckets.count() > 0
            && buckets.first > 0
            && buckets.last <= self.bucket_count()
            && self.parts(buckets).all(|range| range.replicaset == *replicaset)
    }

    /// The highest epoch in the range; 0 when it lies outside the map.
    pub fn epoch_of(&self, buckets: BucketRange) -> Epoch {
        self.parts(buckets).map(|range| range.epoch).max().unwrap_or(0)
    }

    /// The ranges that share a bucket with `buckets`.
    fn parts(&self, buckets: BucketRange) -> impl Iterator<Item = &OwnedRange> {
        let from = self.ranges.partition_point(|range| range.buckets.last < buckets.first);
        self.ranges[from..].iter().take_while(move |range| range.buckets.first <= buckets.last)
    }

    /// Gives a range to `owner` under one epoch, one above the highest in it. Answers the epoch.
    ///
    /// Errors: `Argument` when the range is not inside the map.
    pub fn assign(&mut self, buckets: BucketRange, owner: &ReplicasetName) -> Result<Epoch> {
        if buckets.first == 0 || buckets.count() == 0 || buckets.last > self.bucket_count() {
            let message = format!("buckets {buckets} are not among the {} of the tier", self.bucket_count());
            return Err(Error::new(Code::Argument, message));
        }
        let epoch = self.epoch_of(buckets).saturating_add(1);
        let mut ranges = Vec::with_capacity(self.ranges.len() + 2);
        for range in self.ranges.drain(..) {
            let BucketRange { first, last } = range.buckets;
            if first < buckets.first {
                let before = BucketRange::new(first, last.min(buckets.first - 1));
                ranges.push(OwnedRange { buckets: before, ..range.clone() });
            }
            if range.buckets.contains(buckets.first) {
                ranges.push(OwnedRange { buckets, replicaset: owner.clone(), epoch });
            }
            if last > buckets.last {
                let behind = BucketRange::new(first.max(buckets.last + 1), last);
                ranges.push(OwnedRange { buckets: behind, ..range });
            }
        }
        *self = Self::build(ranges);
        Ok(epoch)
    }
}

impl TryFrom<Vec<OwnedRange>> for BucketMap {
    type Error = Error;

    fn try_from(ranges: Vec<OwnedRange>) -> Result<Self> {
        Self::from_ranges(ranges)
    }
}

impl From<BucketMap> for Vec<OwnedRange> {
    fn from(map: BucketMap) -> Self {
        map.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(n: usize) -> ReplicasetName {
        format!("r{n}").into()
    }

    fn show(map: &BucketMap) -> String {
        let show = |r: &OwnedRange| format!("{} {} @{}", r.buckets, r.replicaset, r.epoch);
        map.ranges().iter().map(show).collect::<Vec<_>>().join(", ")
    }

    proptest! {
        /// Against the plainest model: an owner and an epoch a bucket.
        #[test]
        fn a_map_is_an_array_of_owners(
            count in 1u32..200,
            steps in proptest::collection::vec((0u32..220, 0u32..220, 0usize..4), 0..30),
        ) {
            let mut map = BucketMap::new(count, name(0)).unwrap();
            let mut plain = vec![(name(0), FIRST_EPOCH); count as usize];
            for (first, last, owner) in steps {
                let valid = 1 <= first && first <= last && last <= count;
                match map.assign(BucketRange::new(first, last), &name(owner)) {
                    Ok(epoch) => {
                        prop_assert!(valid);
                        let part = &mut plain[first as usize - 1..last as usize];
                        prop_assert_eq!(epoch, 1 + part.iter().map(|(_, e)| *e).max().unwrap());
                        part.fill((name(owner), epoch));
                    }
                    Err(_) => prop_assert!(!valid),
                }
            }
            let looked_up = |map: &BucketMap| (1..=count).map(|b| map.lookup(b).map(|r| (r.replicaset.clone(), r.epoch)).unwrap()).collect::<Vec<_>>();
            prop_assert_eq!(looked_up(&map), plain.clone());
            prop_assert_eq!(map.bucket_count(), count);
            prop_assert!(map.lookup(0).is_none() && map.lookup(count + 1).is_none());
            let counts: u32 = (0..4).map(|n| map.count_of(&name(n))).sum();
            prop_assert_eq!(counts, count);
            prop_assert!(map.ranges().windows(2).all(|w| (&w[0].replicaset, w[0].epoch) != (&w[1].replicaset, w[1].epoch)));
            let searched = BucketMap { ranges: map.ranges.clone(), flat: Box::default() };
            prop_assert_eq!(looked_up(&searched), plain);
            prop_assert!(searched.lookup(0).is_none() && searched.lookup(count + 1).is_none());
        }
    }

    #[test]
    fn ranges_split_and_merge() {
        let mut map = BucketMap::new(3000, name(1)).unwrap();
        map.assign(BucketRange::new(1001, 2000), &name(2)).unwrap();
        assert_eq!(show(&map), "1-1000 r1 @1, 1001-2000 r2 @2, 2001-3000 r1 @1");
        map.assign(BucketRange::new(2001, 2500), &name(2)).unwrap();
        assert_eq!(show(&map), "1-1000 r1 @1, 1001-2500 r2 @2, 2501-3000 r1 @1");
        assert!(map.owns(&name(2), BucketRange::new(1500, 2500)));
        assert!(!map.owns(&name(2), BucketRange::new(1500, 2501)));
        map.assign(BucketRange::new(1, 3000), &name(1)).unwrap();
        assert_eq!(show(&map), "1-3000 r1 @3");
    }

    #[test]
    fn broken_ranges_are_refused() {
        let range = |first, last| OwnedRange { buckets: BucketRange::new(first, last), replicaset: name(1), epoch: 1 };
        let refused = |ranges| BucketMap::from_ranges(ranges).is_err();
        assert!(refused(vec![]));
        assert!(refused(vec![range(2, 3)]));
        assert!(refused(vec![range(1, 3), range(5, 6)]));
        assert!(refused(vec![range(1, 3), range(3, 6)]));
        assert!(refused(vec![range(1, 0)]));
        assert!(refused(vec![range(1, u32::MAX)]));
        assert!(BucketMap::new(0, name(1)).is_err());
        assert!(BucketMap::new(BUCKETS_MAX, name(1)).is_ok());
    }
}
