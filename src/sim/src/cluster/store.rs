//! The rows of one instance, as the host keeps them: a log of changes, each with the number of the member that wrote it, and
//! what the log comes to.
//!
//! A key holds a list of the writes to it, in order, so that whoever reads one sees all that came before: the whole
//! history of a key is in its value.

use replication::Vclock;
use std::collections::BTreeMap;

pub type Key = u64;
/// A write, by its number in the run.
pub type WriteId = u64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The member that wrote it, and its place among that one's rows.
    pub number: u32,
    pub lsn: u64,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A write of a client.
    Append {
        key: Key,
        id: WriteId,
    },
    /// A bucket that was moved here: the whole list.
    Put {
        key: Key,
        list: Vec<WriteId>,
    },
    Delete {
        key: Key,
    },
    /// A number is given to a member of the replicaset, or free again.
    Member {
        number: u32,
        uuid: Option<String>,
    },
    /// A master's first row of a term.
    Term(u64),
}

#[derive(Clone, Debug, Default)]
pub struct Store {
    /// This instance's own number in its replicaset; 0 while it has none.
    pub number: u32,
    pub clock: Vclock,
    pub log: Vec<Row>,
    pub lists: BTreeMap<Key, Vec<WriteId>>,
    pub members: BTreeMap<u32, String>,
    /// The last term whose master this instance has followed or been.
    pub seen: u64,
}

impl Store {
    /// The data of a replicaset's first member.
    pub fn first(uuid: &str) -> Self {
        let mut store = Self { number: 1, ..Self::default() };
        let row = store.make(Change::Member { number: 1, uuid: Some(uuid.to_owned()) });
        store.apply(&row);
        store
    }

    /// The next row of this instance.
    pub fn make(&self, change: Change) -> Row {
        Row { number: self.number, lsn: self.written() + 1, change }
    }

    /// How many rows this instance has written of its own.
    pub fn written(&self) -> u64 {
        self.clock.get(self.number)
    }

    /// Applies a row, unless it is here: the host goes by the number and its place.
    pub fn apply(&mut self, row: &Row) {
        if row.lsn <= self.clock.get(row.number) {
            return;
        }
        self.clock.set(row.number, row.lsn);
        match &row.change {
            Change::Append { key, id } => self.lists.entry(*key).or_default().push(*id),
            Change::Put { key, list } => _ = self.lists.insert(*key, list.clone()),
            Change::Delete { key } => _ = self.lists.remove(key),
            Change::Member { number, uuid: Some(uuid) } => _ = self.members.insert(*number, uuid.clone()),
            Change::Member { number, uuid: None } => _ = self.members.remove(number),
            Change::Term(_) => {}
        }
        self.log.push(row.clone());
    }

    /// The next rows for somebody who has so many: in the order of this log, whoever wrote them.
    pub fn beyond(&self, clock: &Vclock, rows_max: usize) -> Vec<Row> {
        let is_new = |row: &&Row| row.lsn > clock.get(row.number);
        // Mostly little is missing, and it stands at the end.
        let known = self.log.iter().rev().take_while(is_new).count();
        let tail_begins = self.log.len() - known;
        let is_all = known as u64 == self.clock.total().saturating_sub(clock.total());
        let from = if is_all { tail_begins } else { 0 };
        self.log.iter().skip(from).filter(is_new).take(rows_max).cloned().collect()
    }

    pub fn list(&self, key: Key) -> &[WriteId] {
        self.lists.get(&key).map_or(&[], Vec::as_slice)
    }
}
