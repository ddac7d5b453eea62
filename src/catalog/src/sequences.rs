//! How far each sequence has come. Instances lease ranges of numbers: an entry of the log moves the position on, so no
//! number is given out twice, whoever restarts or fails.

use crate::apply::{Change, Changes, conflict};
use crate::state::State;
use model::{Code, Error, Result, Sequence, SequenceId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const SEQUENCES_MAX: usize = 10_000;

/// All sequences: those of columns and those with names of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequences {
    pub running: BTreeMap<SequenceId, Running>,
    /// Those that CREATE SEQUENCE made.
    pub named: BTreeMap<String, SequenceId>,
    id_last: SequenceId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub sequence: Sequence,
    /// The first number that nobody has leased; None at the end.
    pub next: Option<i64>,
}

impl Sequences {
    /// A new sequence's id.
    pub(crate) fn next_id(&mut self) -> SequenceId {
        self.id_last += 1;
        self.id_last
    }

    /// The id that `next_id` will answer.
    pub(crate) fn id_next(&self) -> SequenceId {
        self.id_last + 1
    }

    pub(crate) fn start(&mut self, sequence: &Sequence) {
        let running = Running { sequence: sequence.clone(), next: Some(sequence.start) };
        self.running.insert(sequence.id, running);
    }

    pub(crate) fn stop(&mut self, id: SequenceId) {
        self.running.remove(&id);
        self.named.retain(|_, named| *named != id);
    }

    /// A sequence with a name of its own.
    pub fn by_name(&self, name: &str) -> Option<&Sequence> {
        self.named.get(name).and_then(|id| self.running.get(id)).map(|running| &running.sequence)
    }

    /// The same without how far each has come: leases do not make a new version of the catalog.
    pub(crate) fn without_positions(&self) -> Self {
        let mut timeless = self.clone();
        timeless.running.values_mut().for_each(|running| running.next = None);
        timeless
    }

    pub(crate) fn check_room(&self) -> Result<()> {
        if self.running.len() < SEQUENCES_MAX {
            return Ok(());
        }
        Err(Error::new(Code::LimitExceeded, format!("a cluster has {SEQUENCES_MAX} sequences at most")))
    }
}

impl State {
    /// Leases `count` numbers from `from` on to whoever asks, when `from` is still the next one.
    pub(crate) fn sequence_lease(&mut self, id: SequenceId, from: i64, count: u32) -> Changes {
        let gone = || Error::new(Code::SchemaChanged, "the sequence was dropped while a statement used it");
        let running = self.sequences.running.get(&id).ok_or_else(gone)?;
        if running.next != Some(from) {
            return Err(conflict(format!("number {from} of sequence {id} is not the next one")));
        }
        let (_, next) = running.sequence.range(from, count);
        if let Some(running) = self.sequences.make_mut().running.get_mut(&id) {
            running.next = next;
        }
        Ok(vec![Change::Leased(id)])
    }
}
