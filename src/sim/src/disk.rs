//! A pretended disk: transactions become durable one after the other, some time after they were written; a crash leaves a
//! prefix of them.

use crate::machine::Machine;
use consensus::{LogRow, Persist, StateKey};
use model::msgpack::{self, Reader};
use std::collections::{BTreeMap, VecDeque};
use xxhash_rust::xxh3::xxh3_64;

/// One transaction: what a `Ready` wants on disk, and its effects on the replicated state.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub persist: Persist,
    /// The state to begin anew from, as `Machine::save` wrote it, and how many commands are in it.
    pub snapshot: Option<(Vec<u8>, u64)>,
    /// By the index of their entries.
    pub commands: Vec<(u64, Vec<u8>)>,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Image<M> {
    pub rows: BTreeMap<u64, LogRow>,
    pub state: BTreeMap<StateKey, Vec<u8>>,
    pub machine: M,
    /// How many commands the machine has applied.
    pub version: u64,
}

impl<M: Machine> Image<M> {
    pub fn write(&mut self, transaction: &Transaction) -> Result<(), String> {
        if let Some((bytes, version)) = &transaction.snapshot {
            self.machine = M::load(bytes)?;
            self.version = *version;
        }
        let persist = &transaction.persist;
        if let Some(index) = persist.truncate_from {
            self.rows.split_off(&index);
        }
        if let Some(index) = persist.compact_to {
            self.rows = self.rows.split_off(&(index + 1));
        }
        for row in &persist.entries {
            if self.rows.insert(row.index, row.clone()).is_some() {
                return Err(format!("row {} of the log is written over", row.index));
            }
        }
        self.state.extend(persist.state.iter().cloned());
        for (index, command) in &transaction.commands {
            self.machine.apply(*index, command);
            self.version += 1;
        }
        Ok(())
    }
}

impl<M> Image<M> {
    /// For a defect: changes the stored hard state (term, vote, commit, behind six bytes of head) as if no vote had been
    /// cast in its term.
    pub fn forget_vote(&mut self) {
        let Some(record) = self.state.get_mut(&StateKey::HardState) else { return };
        let (head, payload) = record.split_at(6);
        let mut reader = Reader::new(payload);
        let (Ok(term), Ok(_vote), Ok(commit)) = (reader.uint(), reader.uint(), reader.uint()) else { return };
        let mut payload = Vec::new();
        [term, 0, commit].into_iter().for_each(|number| msgpack::write_uint(&mut payload, number));
        let sum = xxh3_64(&payload).wrapping_add(u64::from(head[1])) as u32;
        *record = [&head[..2], &sum.to_le_bytes(), &payload].concat();
    }
}

/// The durable image and what is on its way to it.
#[derive(Clone, Debug, Default)]
pub struct Disk<M> {
    pub image: Image<M>,
    unsynced: VecDeque<Transaction>,
    /// When the last transaction written will be durable.
    busy_until_us: u64,
    /// A disk that lies: a crash also takes some of what it had reported durable. None on an honest one.
    pub older: Option<Box<Image<M>>>,
    synced: u64,
}

/// How many transactions a lying disk goes back at most.
const LIE_TRANSACTIONS: u64 = 20;

impl<M: Machine> Disk<M> {
    /// Starts a write; returns when it will be durable.
    pub fn write(&mut self, transaction: Transaction, now_us: u64, latency_us: u64) -> u64 {
        self.unsynced.push_back(transaction);
        self.busy_until_us = self.busy_until_us.max(now_us + latency_us);
        self.busy_until_us
    }

    /// The oldest write becomes durable.
    pub fn sync(&mut self) -> Result<(), String> {
        let Some(transaction) = self.unsynced.pop_front() else {
            return Err("the disk finished what nobody wrote".into());
        };
        self.synced += 1;
        if let Some(older) = self.older.as_mut().filter(|_| self.synced.is_multiple_of(LIE_TRANSACTIONS)) {
            **older = self.image.clone();
        }
        self.image.write(&transaction)
    }

    pub fn unsynced(&self) -> u64 {
        self.unsynced.len() as u64
    }

    /// The process dies: the first `survivors` of the writes that nobody has waited for are durable all the same, the
    /// rest never was.
    pub fn crash(&mut self, survivors: u64, now_us: u64) -> Result<(), String> {
        for _ in 0..survivors.min(self.unsynced()) {
            self.sync()?;
        }
        self.unsynced.clear();
        self.busy_until_us = now_us;
        if let Some(older) = &self.older {
            self.image = Image::clone(older);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Registers;

    fn transaction(command: &[u8]) -> Transaction {
        Transaction { commands: vec![(1, command.to_vec())], ..Transaction::default() }
    }

    #[test]
    fn a_crash_leaves_what_was_synced_and_a_prefix_of_the_rest() {
        let mut disk = Disk::<Registers>::default();
        assert_eq!(disk.write(transaction(b"a"), 100, 10), 110);
        assert_eq!(disk.write(transaction(b"b"), 105, 1), 110, "never before an earlier one");
        disk.write(transaction(b"c"), 200, 10);
        disk.sync().unwrap();
        assert_eq!((disk.image.version, disk.unsynced()), (1, 2));
        disk.crash(1, 205).unwrap();
        assert_eq!((disk.image.version, disk.unsynced()), (2, 0));
        assert!(disk.sync().is_err());
    }
}
