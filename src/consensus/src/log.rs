//! The log as it is in memory: all entries after the last compaction, and what stands beside them on disk.
//!
//! It mirrors what has been handed out for writing, so it may be ahead of the disk; raft-rs counts only what `persisted`
//! has reported. Comes from `bootstrap` (the first instance), `empty` (one that joins) or `restore` (one that comes
//! back).

use crate::codec;
use crate::membership::Membership;
use crate::ready::{Committed, LogRow, Payload, Persist, Position, StateKey};
use model::{RaftId, Result};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};

/// The log of one node.
#[derive(Debug, Default)]
pub struct Log {
    pub(crate) hard_state: HardState,
    /// The members as of `applied`, as restored; the node keeps its own as it goes on.
    pub(crate) membership: Membership,
    /// How far the log was applied when it was restored.
    pub(crate) applied: u64,
    /// The last entry that is not here any more.
    compacted: Position,
    /// `entries[i]` has the index `compacted.index + 1 + i`.
    entries: VecDeque<Entry>,
    /// Data and contexts of `entries`.
    bytes: u64,
    /// A snapshot for followers that are too far behind, while one is needed.
    offer: Option<Snapshot>,
    /// The followers that raft-rs asked a snapshot for in vain. A cell, for raft-rs asks through `&self`.
    wanting: RefCell<BTreeSet<RaftId>>,
}

impl Log {
    /// The log of an instance that is to join: it knows nothing, not even who its members are.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The log of the first instance of a cluster, and what to write before a node starts on it. It begins as if entry 1
    /// had been compacted, so every other instance must begin from a snapshot and learns the members from it.
    pub fn bootstrap(raft_id: RaftId) -> (Self, Persist) {
        Self::begin_at(Position { index: 1, term: 1 }, Membership::new([raft_id], []))
    }

    /// A log that begins as if everything up to a position had been compacted, with these members, and what to write before
    /// a node starts on it. No other log may have an entry at that position: then every other member begins from a
    /// snapshot, and learns the members from it.
    pub fn begin_at(compacted: Position, membership: Membership) -> (Self, Persist) {
        let log = Self {
            hard_state: HardState { term: compacted.term, vote: 0, commit: compacted.index },
            membership,
            applied: compacted.index,
            compacted,
            ..Self::default()
        };
        let state = vec![
            (StateKey::HardState, codec::encode_hard_state(&log.hard_state)),
            (StateKey::Membership, codec::encode_membership(&log.membership)),
            (StateKey::Compacted, codec::encode_compacted(log.compacted)),
            (StateKey::Applied, codec::encode_applied(log.applied)),
        ];
        (log, Persist { state, ..Persist::default() })
    }

    /// The log as it was written. Rows come in the order of their indices. Errors: `Corrupted`, when they do not fit
    /// together.
    pub fn restore(
        rows: impl IntoIterator<Item = LogRow>,
        state: impl IntoIterator<Item = (StateKey, Vec<u8>)>,
    ) -> Result<Self> {
        let mut log = Self::default();
        for (key, bytes) in state {
            match key {
                StateKey::HardState => log.hard_state = codec::decode_hard_state(&bytes)?,
                StateKey::Membership => log.membership = codec::decode_membership(&bytes)?,
                StateKey::Compacted => log.compacted = codec::decode_compacted(&bytes)?,
                StateKey::Applied => log.applied = codec::decode_applied(&bytes)?,
            }
        }
        for row in rows {
            let entry = codec::decode_entry(&row.bytes)?;
            if (entry.index, entry.term) != (row.index, row.term) {
                return Err(codec::corrupted("an entry stands under the index or term of another"));
            }
            let last = log.last();
            if entry.index != last.index + 1 || entry.term < last.term {
                return Err(codec::corrupted("the entries are not in sequence"));
            }
            log.push(entry);
        }
        log.check()?;
        Ok(log)
    }

    fn check(&self) -> Result<()> {
        let (hard_state, last) = (&self.hard_state, self.last());
        let wrong = if hard_state.commit < self.compacted.index || hard_state.commit > last.index {
            "what is committed is not in the log"
        } else if self.applied < self.compacted.index || self.applied > hard_state.commit {
            "what is applied is not what is committed"
        } else if hard_state.term < last.term {
            "an entry is from a later term than the node has seen"
        } else if self.applied > 0 && self.membership.voters.is_empty() {
            "the members are missing"
        } else {
            return Ok(());
        };
        Err(codec::corrupted(wrong))
    }

    /// How far the log was applied when it was restored: `Ready::committed` starts behind it.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The applied entries after `index`, for a driver whose state is older than `applied`. Errors: `Corrupted`, when the
    /// log does not reach back to it.
    pub fn replay(&self, index: u64) -> Result<impl Iterator<Item = Committed> + '_> {
        if index < self.compacted.index {
            return Err(codec::corrupted("entries that the state lacks are compacted"));
        }
        let is_missing = move |entry: &&Entry| entry.index > index && entry.index <= self.applied;
        Ok(self.entries.iter().filter(is_missing).cloned().map(committed))
    }

    /// The entries behind `index`, committed or not.
    pub(crate) fn behind(&self, index: u64) -> Vec<Committed> {
        self.entries.iter().filter(|entry| entry.index > index).cloned().map(committed).collect()
    }

    pub(crate) fn compacted(&self) -> Position {
        self.compacted
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.back().map_or(self.compacted, |entry| Position { index: entry.index, term: entry.term })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The term of an entry that is here, or of the last that was compacted.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.compacted.index)? {
            0 => Some(self.compacted.term),
            offset => self.entries.get(offset as usize - 1).map(|entry| entry.term),
        }
    }

    /// Appends entries in place of all that are from the first one's index on.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.compacted.index, "raft-rs rewrites what is compacted");
        assert!(first.index <= self.last().index + 1, "raft-rs leaves a gap in the log");
        while self.last().index >= first.index {
            let dropped = self.entries.pop_back();
            self.bytes -= dropped.as_ref().map_or(0, entry_bytes);
        }
        entries.into_iter().for_each(|entry| self.push(entry));
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
    }

    /// Drops all entries up to and with `index`; false when there are none.
    pub(crate) fn compact(&mut self, index: u64) -> bool {
        let before = self.compacted;
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.index <= index) {
            self.bytes -= entry_bytes(&entry);
            self.compacted = Position { index: entry.index, term: entry.term };
        }
        self.compacted != before
    }

    /// Starts anew behind a snapshot from the leader.
    pub(crate) fn install(&mut self, position: Position) {
        self.entries.clear();
        self.bytes = 0;
        self.compacted = position;
        self.offer = None;
    }

    /// Whether raft-rs asked for a snapshot that was not there.
    pub(crate) fn is_snapshot_wanted(&self) -> bool {
        !self.wanting.borrow().is_empty()
    }

    pub(crate) fn take_wanting(&mut self) -> BTreeSet<RaftId> {
        std::mem::take(self.wanting.get_mut())
    }

    pub(crate) fn want(&self, followers: BTreeSet<RaftId>) {
        self.wanting.borrow_mut().extend(followers);
    }

    pub(crate) fn offer(&mut self, position: Position, membership: &Membership, data: Vec<u8>) {
        let metadata = SnapshotMetadata {
            conf_state: Some(ConfState::from(membership)),
            index: position.index,
            term: position.term,
        };
        self.offer = Some(Snapshot { data, metadata: Some(metadata) });
    }

    pub(crate) fn withdraw_offer(&mut self) {
        self.offer = None;
    }

    /// The snapshot on offer, if the log goes on where it ends and it knows the follower as a member.
    fn offer_for(&self, to: RaftId) -> Option<&Snapshot> {
        self.offer.as_ref().filter(|snapshot| {
            let metadata = snapshot.get_metadata();
            metadata.index >= self.compacted.index && Membership::from(metadata.get_conf_state()).contains(to)
        })
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), ConfState::from(&self.membership)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.compacted.index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last().index + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let offset = self.compacted.index + 1;
        let mut bytes: u64 = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += entry_bytes(entry) + ENTRY_OVERHEAD_BYTES;
            is_first || bytes <= bytes_max
        };
        let range = (low - offset) as usize..(high - offset) as usize;
        Ok(self.entries.range(range).take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_at(index) {
            Some(term) => Ok(term),
            None if index < self.compacted.index => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.compacted.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index)
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<Snapshot> {
        self.offer_for(to).cloned().ok_or_else(|| {
            self.wanting.borrow_mut().insert(to);
            StorageError::SnapshotTemporarilyUnavailable.into()
        })
    }
}

/// What an entry weighs beside its data: keys and numbers.
const ENTRY_OVERHEAD_BYTES: u64 = 24;

fn entry_bytes(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len()) as u64
}

/// An entry as the driver sees it.
pub(crate) fn committed(entry: Entry) -> Committed {
    let Entry { entry_type, term, index, data, context, .. } = entry;
    let payload = if entry_type == EntryType::EntryConfChangeV2 as i32 {
        Payload::Members { context }
    } else if data.is_empty() && context.is_empty() {
        Payload::Empty
    } else {
        Payload::Data { data, context }
    };
    Committed { position: Position { index, term }, payload }
}

pub(crate) fn row(entry: &Entry) -> LogRow {
    LogRow { index: entry.index, term: entry.term, bytes: codec::encode_entry(entry) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Code;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![b'x'; 10], ..Entry::default() }
    }

    fn state(commit: u64, applied: u64, compacted: Position) -> Vec<(StateKey, Vec<u8>)> {
        vec![
            (StateKey::HardState, codec::encode_hard_state(&HardState { term: 9, vote: 0, commit })),
            (StateKey::Membership, codec::encode_membership(&Membership::new([1], []))),
            (StateKey::Compacted, codec::encode_compacted(compacted)),
            (StateKey::Applied, codec::encode_applied(applied)),
        ]
    }

    fn rows(range: std::ops::RangeInclusive<u64>) -> Vec<LogRow> {
        range.map(|index| row(&entry(index, 2))).collect()
    }

    #[test]
    fn what_was_written_is_restored() {
        let compacted = Position { index: 3, term: 1 };
        let log = Log::restore(rows(4..=7), state(6, 5, compacted)).unwrap();
        assert_eq!((log.last().index, log.applied(), log.bytes()), (7, 5, 40));
        assert_eq!((log.term_at(2), log.term_at(3), log.term_at(4), log.term_at(8)), (None, Some(1), Some(2), None));
        let replayed: Vec<u64> = log.replay(3).unwrap().map(|entry| entry.position.index).collect();
        assert_eq!(replayed, [4, 5]);
        assert_eq!(log.replay(2).err().map(|error| error.code), Some(Code::Corrupted));
    }

    #[test]
    fn rows_that_do_not_fit_are_corrupted() {
        let compacted = Position { index: 3, term: 1 };
        let mut swapped = rows(4..=5);
        swapped[0].index = 5;
        let broken = [
            (rows(5..=7), state(6, 5, compacted)),
            (rows(4..=5), state(6, 5, compacted)),
            (rows(4..=7), state(5, 6, compacted)),
            (rows(4..=7), state(6, 2, compacted)),
            (rows(4..=7), state(6, 5, Position { index: 3, term: 4 })),
            (swapped, state(4, 4, compacted)),
            (rows(4..=7), vec![]),
        ];
        for (rows, state) in broken {
            assert_eq!(Log::restore(rows, state).unwrap_err().code, Code::Corrupted);
        }
        assert!(Log::restore([], []).is_ok(), "an instance that never joined has written nothing");
    }

    #[test]
    fn appending_replaces_and_compacting_drops() {
        let mut log = Log::restore(rows(4..=7), state(3, 3, Position { index: 3, term: 1 })).unwrap();
        log.append(vec![entry(6, 5), entry(7, 5), entry(8, 5)]);
        assert_eq!(log.last(), Position { index: 8, term: 5 });
        assert_eq!((log.term_at(5), log.term_at(6), log.bytes()), (Some(2), Some(5), 50));
        assert!(log.compact(6));
        assert!(!log.compact(6));
        assert_eq!((log.compacted(), log.bytes()), (Position { index: 6, term: 5 }, 20));
    }

    #[test]
    fn entries_come_up_to_a_size_but_at_least_one() {
        let log = Log::restore(rows(1..=9), state(0, 0, Position::default())).unwrap();
        let count = |low, high, bytes_max| {
            log.entries(low, high, bytes_max, GetEntriesContext::empty(false)).map(|entries| entries.len()).ok()
        };
        assert_eq!(count(1, 10, Some(0)), Some(1));
        assert_eq!(count(1, 10, Some(2 * (10 + ENTRY_OVERHEAD_BYTES))), Some(2));
        assert_eq!(count(3, 10, None), Some(7));
        assert_eq!((count(0, 3, None), count(3, 11, None)), (None, None));
    }
}
