//! What each change of master kept, and who has rows that it did not keep.
//!
//! A new master begins with the rows that it has; rows that only others have are not in the replicaset's history, and
//! whoever has one has a divergent tail: pulled from it, the tail would come back over newer writes, and what follows the
//! tail in its own log is not what it seems. So every term has a cut: the new master's clock when its term began.
//!
//! An instance remembers the last term whose master it has followed or been: its rows are a part of that term's history.
//! What has to be looked at are the cuts of later terms. The number of a member may be given to another one when it has
//! left, so a row's number alone says little about who wrote it; the order of terms says enough. The one number that a
//! cut says nothing about is its own master's, who goes on writing; unless that master led the term before too, and writes
//! under the numbers of rows that its log may have lost. Who pulled some of the new ones before it heard of the term is taken
//! to have a tail as well.

use crate::clock::Vclock;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Cuts that are remembered. Who has missed more changes of master than that is taken to have a tail.
pub const CUTS_MAX: usize = 64;

/// With what a master begins: its number, and the rows that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub number: u32,
    pub clock: Vclock,
    /// The rows among them that all members in sync are known to have: they count as acknowledged, though the old master may
    /// not have heard of it before its followers turned away.
    #[serde(default)]
    pub shared: Vclock,
}

impl Kept {
    pub fn new(number: u32, clock: Vclock) -> Self {
        Self { number, clock, shared: Vclock::default() }
    }
}

/// The beginning of a term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    pub term: u64,
    pub kept: Kept,
    /// The master is that of the term before, in another life of its process, which may have lost the end of its log.
    #[serde(default)]
    pub is_same: bool,
}

/// The changes of master of one replicaset, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    cuts: Vec<Cut>,
    /// The last term whose cut was forgotten; 0 while none was.
    forgotten: u64,
}

/// Why somebody's rows are not a part of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stray {
    /// It has more rows of a member than a later term kept.
    Tail { term: u64, number: u32, has: u64, kept: u64 },
    /// Too many terms have begun since it last followed a master.
    TooOld { seen: u64 },
}

impl History {
    /// A term begins with these rows; `is_same`: under the master of the term before.
    pub fn begin(&mut self, term: u64, kept: Kept, is_same: bool) {
        self.cuts.push(Cut { term, kept, is_same });
        if self.cuts.len() > CUTS_MAX {
            self.forgotten = self.cuts.remove(0).term;
        }
    }

    /// The last change of master that is known.
    pub fn last(&self) -> Option<&Cut> {
        self.cuts.last()
    }

    /// Whether cuts are to be looked at for somebody who last followed the master of term `seen`.
    pub fn is_past(&self, seen: u64) -> bool {
        self.last().is_some_and(|cut| cut.term > seen)
    }

    /// What keeps rows from being a part of the history, when they were one of term `seen`.
    pub fn stray(&self, seen: u64, clock: &Vclock) -> Option<Stray> {
        if seen < self.forgotten {
            return Some(Stray::TooOld { seen });
        }
        self.cuts.iter().filter(|cut| cut.term > seen).find_map(|cut| {
            let others = clock.iter().filter(|(number, _)| cut.is_same || *number != cut.kept.number);
            others.into_iter().find_map(|(number, has)| {
                let kept = cut.kept.clock.get(number);
                (has > kept).then_some(Stray::Tail { term: cut.term, number, has, kept })
            })
        })
    }
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stray::Tail { term, number, has, kept } => {
                write!(f, "it has {has} rows of member {number}, of which master term {term} kept {kept}")
            }
            Stray::TooOld { seen } => write!(f, "it last followed the master of term {seen}, too many terms ago"),
        }
    }
}
