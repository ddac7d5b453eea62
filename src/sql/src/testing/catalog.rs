//! The catalog of a cluster in memory: the real state machine, with a log of one.

use catalog::{Entry, Newcomer, Op, Outcome, PendingChange, Running, State, TierSpec};
use model::{Code, Error, Result, SchemaChange, Sequence, Table, TableId, TierName};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct Catalog {
    pub state: State,
    pub row_counts: BTreeMap<TableId, u64>,
    index: u64,
}

impl Catalog {
    /// With the tier that all tables are in.
    pub fn new(bucket_count: u32) -> Self {
        let mut catalog = Self { state: State::default(), row_counts: BTreeMap::new(), index: 0 };
        let instance = Newcomer {
            name: "r1_1".into(),
            uuid: "00000000-0000-0000-0000-000000000001".into(),
            address: "127.0.0.1:3301".into(),
            failure_domain: BTreeMap::new(),
            lost_power: false,
        };
        let tier = TierSpec { name: TierName::from(super::TIER), replication_factor: 1, bucket_count, can_vote: true };
        let id = "00000000-0000-0000-0000-000000000000".into();
        let bootstrap = Op::Bootstrap { cluster: "memory".into(), id, instance, tier, settings: BTreeMap::new() };
        catalog.apply(bootstrap).expect("a cluster begins");
        catalog
    }

    fn apply(&mut self, op: Op) -> Result<()> {
        self.index += 1;
        match self.state.apply(self.index, &Entry::new(op)) {
            Outcome::Applied { .. } => Ok(()),
            Outcome::Conflict(error) | Outcome::Refused(error) => Err(error),
        }
    }

    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.state.schema.operable(name)
    }

    /// Announces a change; None when it is over already.
    pub fn prepare(&mut self, change: &SchemaChange) -> Result<Option<PendingChange>> {
        self.apply(Op::SchemaPrepare { change: change.clone(), timeout_ms: 1000 })?;
        Ok(self.state.schema.pending.clone())
    }

    pub fn commit(&mut self, pending: &PendingChange) -> Result<()> {
        self.apply(Op::SchemaCommit { id: pending.id })
    }

    pub fn abort(&mut self, pending: &PendingChange, error: &Error) -> Result<()> {
        self.apply(Op::SchemaAbort { id: pending.id, reason: error.message.clone() })
    }

    /// The next numbers of a sequence.
    pub fn numbers(&mut self, sequence: &Sequence, count: usize) -> Result<Vec<i64>> {
        let mut numbers = Vec::with_capacity(count);
        while numbers.len() < count {
            let Some(Running { sequence, next }) = self.state.sequences.running.get(&sequence.id) else {
                return Err(Error::new(Code::SchemaChanged, "the sequence is gone"));
            };
            let from = next.ok_or_else(|| crate::cluster::sequence_is_used_up(sequence))?;
            let (taken, _) = sequence.range(from, (count - numbers.len()) as u32);
            numbers.extend((0..i64::from(taken)).map(|n| from + n * sequence.increment));
            self.apply(Op::SequenceLease { id: sequence.id, from, count: taken })?;
        }
        Ok(numbers)
    }
}
