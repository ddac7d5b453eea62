//! Which buckets this instance serves at this moment, and who is busy with them.
//!
//! Every read and write passes here. Writes are counted for each bucket until they are committed, so that a move that
//! locks a bucket knows when the last one is through; scans are listed with their ranges, so that the rows of a bucket
//! that has left are kept while one of them reads.

use model::{BucketId, Code, Error, Result};
use sharding::BucketRange;
use std::collections::BTreeSet;

/// What this instance does with a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BucketState {
    /// Nothing: another replicaset owns it. Rows of it that are still here are not shown.
    #[default]
    Foreign,
    /// Its rows are arriving. Neither reads nor writes.
    Receiving,
    /// Owned; reads only, until the old owner has said that it serves it no more, or while the last changes are
    /// handed over.
    ReadOnly,
    /// Owned: reads and writes.
    Active,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    state: BucketState,
    writes_in_flight: u32,
    /// Writes that ended without anybody knowing whether they are kept, since all were known to be.
    doubts: u32,
}

/// Names a running scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanId(u64);

/// The state of every bucket of this instance's tier, on this instance.
#[derive(Debug)]
pub struct BucketGuard {
    slots: Vec<Slot>,
    is_master: bool,
    /// How often this instance has become the master.
    tenures: u64,
    /// What it has from the masters before it may be lost yet: others in sync may lack it.
    inherits: bool,
    /// A master serves only as long as it is certain that there is no other.
    has_lease: bool,
    version: u64,
    instance: String,
    scans: Vec<(ScanId, Vec<BucketRange>)>,
    scans_opened: u64,
    /// Ranges that are being copied, and which of their buckets were written to since they were last copied.
    copied: Vec<(BucketRange, BTreeSet<BucketId>)>,
}

impl BucketGuard {
    /// A guard that knows no bucket yet and refuses everything.
    pub fn new(instance: impl Into<String>) -> Self {
        let instance = instance.into();
        Self {
            slots: Vec::new(),
            is_master: false,
            tenures: 0,
            inherits: false,
            has_lease: true,
            version: 0,
            instance,
            scans: Vec::new(),
            scans_opened: 0,
            copied: Vec::new(),
        }
    }

    /// The catalog version that the states come from; refusals carry it.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn is_master(&self) -> bool {
        self.is_master
    }

    /// Sets the name under which refusals speak of this instance.
    pub fn set_instance(&mut self, name: &str) {
        if self.instance != name {
            self.instance = name.to_owned();
        }
    }

    /// Sets what the catalog says: a new version, and whether this instance may write. Buckets are set apart.
    ///
    /// Returns the number of the tenure when this instance has become the master: all that it has is in doubt then,
    /// until `inherited` is told that it is kept.
    pub fn set_version(&mut self, version: u64, bucket_count: u32, is_master: bool) -> Option<u64> {
        let begins = is_master && !self.is_master;
        self.version = version;
        self.is_master = is_master;
        let len = bucket_count as usize + 1;
        if len > self.slots.len() {
            self.slots.resize(len, Slot::default());
        }
        if !begins {
            return None;
        }
        self.tenures += 1;
        self.inherits = true;
        Some(self.tenures)
    }

    /// The number of the present tenure, or of the last one.
    pub fn tenure(&self) -> u64 {
        self.tenures
    }

    /// All that was here at some time in a tenure is kept.
    pub fn inherited(&mut self, tenure: u64) {
        if self.tenures == tenure {
            self.inherits = false;
        }
    }

    /// Sets whether this instance is certain, as of now, that nobody else is master in its place.
    #[inline]
    pub fn set_lease(&mut self, has_lease: bool) {
        self.has_lease = has_lease;
    }

    /// Sets the state of a range of buckets; those outside the tier are ignored.
    pub fn set_state(&mut self, buckets: BucketRange, state: BucketState) {
        let end = (buckets.last as usize + 1).min(self.slots.len());
        for slot in self.slots.get_mut(buckets.first as usize..end).unwrap_or_default() {
            slot.state = state;
        }
    }

    pub fn state(&self, bucket: BucketId) -> BucketState {
        self.slots.get(bucket as usize).map_or(BucketState::Foreign, |slot| slot.state)
    }

    /// Checks a read of one bucket. Reads are for the master, unless the reader accepts a replica's delay.
    ///
    /// Errors: `NoMaster`, `WrongBucket`.
    #[inline]
    pub fn check_read(&self, bucket: BucketId, any_replica: bool) -> Result<()> {
        if !any_replica {
            self.check_master()?;
        }
        if self.is_readable(bucket) { Ok(()) } else { Err(self.wrong_bucket(bucket)) }
    }

    /// Whether the rows of a bucket here are those that readers see.
    #[inline]
    pub fn is_readable(&self, bucket: BucketId) -> bool {
        matches!(self.state(bucket), BucketState::Active | BucketState::ReadOnly)
    }

    /// Checks a write to one bucket and counts it as in flight. Each success needs one `end_write`.
    ///
    /// Errors: `NoMaster`, `WrongBucket`, `BucketLocked`.
    #[inline]
    pub fn begin_write(&mut self, bucket: BucketId) -> Result<()> {
        self.check_master()?;
        let state = self.state(bucket);
        match (state, self.slots.get_mut(bucket as usize)) {
            (BucketState::Active, Some(slot)) => {
                slot.writes_in_flight += 1;
                self.touch(bucket);
                Ok(())
            }
            (BucketState::ReadOnly, _) => Err(self.locked(bucket)),
            _ => Err(self.wrong_bucket(bucket)),
        }
    }

    /// The write to this bucket is committed or undone.
    #[inline]
    pub fn end_write(&mut self, bucket: BucketId) {
        if let Some(slot) = self.slots.get_mut(bucket as usize) {
            debug_assert!(slot.writes_in_flight > 0, "a write to bucket {bucket} ended twice");
            slot.writes_in_flight = slot.writes_in_flight.saturating_sub(1);
            // What was undone was seen by a copy that was made meanwhile.
            self.touch(bucket);
        }
    }

    /// The write is in this instance's log, and it is not known whether the others have it.
    pub fn end_in_doubt(&mut self, bucket: BucketId) {
        self.end_write(bucket);
        if let Some(slot) = self.slots.get_mut(bucket as usize) {
            slot.doubts = slot.doubts.saturating_add(1);
        }
    }

    /// Whether rows of a bucket can be here that may be lost yet, so that what is read there has to wait: the number of
    /// doubts about it then. Writes of the reader's own, so many of them, do not count.
    #[inline]
    pub fn unsettled(&self, bucket: BucketId, own_writes: impl FnOnce() -> usize) -> Option<u32> {
        let slot = self.slots.get(bucket as usize)?;
        if slot.writes_in_flight == 0 && slot.doubts == 0 && !self.inherits {
            return None;
        }
        (self.inherits || slot.doubts > 0 || slot.writes_in_flight as usize > own_writes()).then_some(slot.doubts)
    }

    /// The buckets among these of which that is so, with the number of doubts about each.
    pub fn unsettled_among(&self, ranges: &[BucketRange]) -> Vec<(BucketId, u32)> {
        let buckets = ranges.iter().flat_map(|range| range.first..=range.last);
        buckets.filter_map(|bucket| Some((bucket, self.unsettled(bucket, || 0)?))).collect()
    }

    /// All that was here when these were unsettled is kept. Doubts that came since remain.
    pub fn settle(&mut self, buckets: &[(BucketId, u32)]) {
        for (bucket, doubts) in buckets {
            if let Some(slot) = self.slots.get_mut(*bucket as usize).filter(|slot| slot.doubts == *doubts) {
                slot.doubts = 0;
            }
        }
    }

    #[inline]
    fn touch(&mut self, bucket: BucketId) {
        for (range, touched) in &mut self.copied {
            if range.contains(bucket) {
                touched.insert(bucket);
            }
        }
    }

    /// From now on remembers which buckets of the range are written to.
    pub fn begin_copy(&mut self, buckets: BucketRange) {
        self.end_copy(buckets);
        self.copied.push((buckets, BTreeSet::new()));
    }

    pub fn end_copy(&mut self, buckets: BucketRange) {
        self.copied.retain(|(range, _)| *range != buckets);
    }

    /// The buckets of the range that were written to since this was last asked.
    pub fn take_touched(&mut self, buckets: BucketRange) -> BTreeSet<BucketId> {
        let copied = self.copied.iter_mut().find(|(range, _)| *range == buckets);
        copied.map(|(_, touched)| std::mem::take(touched)).unwrap_or_default()
    }

    /// How many writes to these buckets have begun and not ended. A move waits for 0 after it has made them read-only.
    pub fn writes_in_flight(&self, buckets: BucketRange) -> u64 {
        let end = (buckets.last as usize + 1).min(self.slots.len());
        self.slots
            .get(buckets.first as usize..end)
            .unwrap_or_default()
            .iter()
            .map(|s| u64::from(s.writes_in_flight))
            .sum()
    }

    /// Checks that all buckets of a scan are readable and lists the scan until `end_scan`.
    ///
    /// Errors: `NoMaster`, `WrongBucket` with the first bucket that is not.
    pub fn begin_scan(&mut self, ranges: &[BucketRange], any_replica: bool) -> Result<ScanId> {
        for range in ranges {
            for bucket in range.first..=range.last {
                self.check_read(bucket, any_replica)?;
            }
        }
        self.scans_opened += 1;
        let id = ScanId(self.scans_opened);
        self.scans.push((id, ranges.to_vec()));
        Ok(id)
    }

    pub fn end_scan(&mut self, id: ScanId) {
        self.scans.retain(|(other, _)| *other != id);
    }

    /// Whether a running scan reads one of these buckets. Their rows must stay until it does not.
    pub fn is_scanned(&self, buckets: BucketRange) -> bool {
        self.scans.iter().any(|(_, ranges)| ranges.iter().any(|range| range.overlaps(buckets)))
    }

    /// The ranges of buckets that can be read here.
    pub fn readable(&self) -> Vec<BucketRange> {
        let mut ranges: Vec<BucketRange> = Vec::new();
        for (bucket, slot) in (0 as BucketId..).zip(&self.slots) {
            if !matches!(slot.state, BucketState::Active | BucketState::ReadOnly) {
                continue;
            }
            match ranges.last_mut() {
                Some(range) if range.last + 1 == bucket => range.last = bucket,
                _ => ranges.push(BucketRange { first: bucket, last: bucket }),
            }
        }
        ranges
    }

    /// Whether these ranges, apart from one another, are all the buckets that can be read here.
    pub fn are_all_readable(&self, buckets: &[BucketRange]) -> bool {
        let readable = self.readable();
        let count = |ranges: &[BucketRange]| ranges.iter().map(|range| u64::from(range.count())).sum::<u64>();
        let is_here =
            |range: &BucketRange| readable.iter().any(|here| here.first <= range.first && range.last <= here.last);
        count(&readable) == count(buckets) && buckets.iter().all(is_here)
    }

    #[inline]
    fn check_master(&self) -> Result<()> {
        if self.is_master && self.has_lease { Ok(()) } else { Err(self.not_master()) }
    }

    fn not_master(&self) -> Error {
        if self.is_master {
            let message = format!("master {} does not serve: it does not hear from the Raft leader", self.instance);
            return Error::new(Code::NoMaster, message)
                .with_hint("check that most voters run and reach one another: picodata.status()");
        }
        Error::new(Code::NoMaster, format!("instance {} is not the master of its replicaset", self.instance))
    }

    fn wrong_bucket(&self, bucket: BucketId) -> Error {
        let message =
            format!("bucket {bucket} is not on instance {} at catalog version {}", self.instance, self.version);
        Error::new(Code::WrongBucket, message)
    }

    fn locked(&self, bucket: BucketId) -> Error {
        Error::new(Code::BucketLocked, format!("bucket {bucket} on instance {} is changing hands", self.instance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: BucketId, last: BucketId) -> BucketRange {
        BucketRange { first, last }
    }

    /// Of a master that has been one for a while.
    fn guard() -> BucketGuard {
        let mut guard = BucketGuard::new("i1");
        let tenure = guard.set_version(7, 10, true).unwrap();
        guard.inherited(tenure);
        guard.set_state(range(1, 5), BucketState::Active);
        guard
    }

    fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
        result.unwrap_err().code
    }

    #[test]
    fn only_owned_buckets_are_served() {
        let mut guard = guard();
        assert_eq!(guard.check_read(5, false), Ok(()));
        assert_eq!(code(guard.check_read(6, false)), Code::WrongBucket);
        assert_eq!(code(guard.check_read(11, false)), Code::WrongBucket);
        assert_eq!(code(guard.begin_write(6)), Code::WrongBucket);
        assert_eq!(code(guard.begin_write(u32::MAX)), Code::WrongBucket);
        assert_eq!(guard.begin_write(1), Ok(()));
        assert_eq!(guard.readable(), [range(1, 5)]);
        // A map may name what lies side by side one by one.
        assert!(guard.are_all_readable(&[range(1, 2), range(3, 5)]));
        assert!(!guard.are_all_readable(&[range(1, 2), range(4, 5)]) && !guard.are_all_readable(&[range(1, 6)]));
    }

    #[test]
    fn a_locked_bucket_waits_for_its_last_write() {
        let mut guard = guard();
        guard.begin_write(3).unwrap();
        guard.set_state(range(2, 4), BucketState::ReadOnly);
        assert_eq!(code(guard.begin_write(3)), Code::BucketLocked);
        assert_eq!(guard.check_read(3, false), Ok(()));
        assert_eq!(guard.writes_in_flight(range(2, 4)), 1);
        guard.end_write(3);
        assert_eq!(guard.writes_in_flight(range(1, 10)), 0);
    }

    #[test]
    fn a_master_without_a_lease_serves_nothing() {
        let mut guard = guard();
        guard.set_lease(false);
        assert_eq!(code(guard.check_read(1, false)), Code::NoMaster);
        assert_eq!(code(guard.begin_write(1)), Code::NoMaster);
        assert_eq!(guard.check_read(1, true), Ok(()), "as a replica it does");
        guard.set_lease(true);
        assert_eq!(guard.begin_write(1), Ok(()));
    }

    #[test]
    fn what_is_not_known_to_be_kept_is_unsettled() {
        let mut guard = guard();
        let all = [range(1, 5)];
        guard.begin_write(3).unwrap();
        assert_eq!(guard.unsettled_among(&all), [(3, 0)]);
        assert_eq!(guard.unsettled(3, || 1), None, "who wrote it knows");
        guard.end_write(3);
        assert_eq!(guard.unsettled_among(&all), []);
        guard.begin_write(3).unwrap();
        guard.end_in_doubt(3);
        let seen = guard.unsettled_among(&all);
        assert_eq!(seen, [(3, 1)]);
        guard.begin_write(3).unwrap();
        guard.end_in_doubt(3);
        guard.settle(&seen);
        assert_eq!(guard.unsettled_among(&all), [(3, 2)], "the second doubt is younger than what was settled");
        guard.settle(&[(3, 2)]);
        assert_eq!(guard.unsettled(3, || 0), None);
    }

    #[test]
    fn what_a_new_master_has_from_the_one_before_is_unsettled() {
        let mut guard = guard();
        let all = [range(4, 5)];
        assert_eq!(guard.set_version(8, 10, true), None, "it was the master already");
        assert_eq!(guard.unsettled_among(&all), []);
        guard.set_version(9, 10, false);
        let tenure = guard.set_version(10, 10, true).unwrap();
        guard.settle(&[(4, 0)]);
        assert_eq!(guard.unsettled_among(&all), [(4, 0), (5, 0)], "others may read more than was settled");
        guard.inherited(tenure - 1);
        assert_eq!(guard.unsettled(4, || 1), Some(0), "that was another tenure");
        guard.inherited(tenure);
        assert_eq!(guard.unsettled(4, || 0), None);
    }

    #[test]
    fn a_replica_serves_only_who_accepts_its_delay() {
        let mut guard = guard();
        guard.set_version(8, 10, false);
        assert_eq!(code(guard.check_read(1, false)), Code::NoMaster);
        assert_eq!(guard.check_read(1, true), Ok(()));
        assert_eq!(code(guard.begin_write(1)), Code::NoMaster);
    }

    #[test]
    fn rows_of_a_bucket_that_left_stay_while_a_scan_reads_them() {
        let mut guard = guard();
        let scan = guard.begin_scan(&[range(1, 2), range(4, 5)], false).unwrap();
        guard.set_state(range(4, 4), BucketState::Foreign);
        assert!(guard.is_scanned(range(4, 4)));
        assert!(!guard.is_scanned(range(3, 3)));
        assert_eq!(code(guard.begin_scan(&[range(4, 4)], false)), Code::WrongBucket);
        guard.end_scan(scan);
        assert!(!guard.is_scanned(range(1, 10)));
    }
}
