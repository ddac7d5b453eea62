//! A disk with one log for everything, as the host has it: Raft's rows, the replicaset's rows and the notes become durable
//! in the order in which they were written, and a crash leaves a prefix.

use super::store::{Row, Store};
use crate::catalog_machine::Catalog;
use crate::disk::{Image as RaftImage, Transaction as RaftTransaction};
use crate::invariants::Verdict;
use std::collections::VecDeque;

/// One transaction, and what its writer goes on with once it is durable.
#[derive(Clone, Debug)]
pub struct Transaction<T> {
    pub raft: Option<RaftTransaction>,
    pub rows: Vec<Row>,
    /// A note of the term whose master is followed.
    pub seen: Option<u64>,
    pub then: T,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub raft: RaftImage<Catalog>,
    pub store: Store,
}

impl Image {
    fn write<T>(&mut self, transaction: &Transaction<T>) -> Verdict {
        if let Some(raft) = &transaction.raft {
            self.raft.write(raft)?;
        }
        transaction.rows.iter().for_each(|row| self.store.apply(row));
        self.store.seen = self.store.seen.max(transaction.seen.unwrap_or(0));
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub struct Journal<T> {
    pub image: Image,
    unsynced: VecDeque<Transaction<T>>,
    busy_until_us: u64,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self { image: Image::default(), unsynced: VecDeque::new(), busy_until_us: 0 }
    }
}

impl<T> Journal<T> {
    /// Starts a write; answers when it will be durable.
    pub fn write(&mut self, transaction: Transaction<T>, now_us: u64, latency_us: u64) -> u64 {
        self.unsynced.push_back(transaction);
        self.busy_until_us = self.busy_until_us.max(now_us + latency_us);
        self.busy_until_us
    }

    /// The oldest write becomes durable; answers what to go on with.
    pub fn sync(&mut self) -> Result<T, String> {
        let Some(transaction) = self.unsynced.pop_front() else {
            return Err("the disk finished what nobody wrote".into());
        };
        self.image.write(&transaction)?;
        Ok(transaction.then)
    }

    pub fn unsynced(&self) -> u64 {
        self.unsynced.len() as u64
    }

    /// The process dies: the first `survivors` of what was on its way are durable all the same.
    pub fn crash(&mut self, survivors: u64, now_us: u64) -> Verdict {
        for _ in 0..survivors.min(self.unsynced()) {
            self.sync()?;
        }
        self.unsynced.clear();
        self.busy_until_us = now_us;
        Ok(())
    }
}
