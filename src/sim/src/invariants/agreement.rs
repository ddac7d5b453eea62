//! State machine safety: what one instance applies at an index, every instance applies there, each exactly once and in
//! order, and the states that come of it are equal (Ongaro, figure 3.2).

use super::Verdict;
use consensus::Position;
use model::RaftId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Agreement {
    /// Index -> (term, digest of the state behind it), by whoever came first.
    applied: BTreeMap<u64, (u64, u64)>,
    /// Where each running instance is.
    last: BTreeMap<RaftId, u64>,
}

impl Agreement {
    /// An instance starts, from its disk or from a snapshot, with a state as of `index`.
    pub fn starts_at(&mut self, raft_id: RaftId, index: u64, digest: u64) -> Verdict {
        self.last.insert(raft_id, index);
        match self.applied.get(&index) {
            Some((_, known)) if *known != digest => {
                Err(format!("agreement: {raft_id} starts with another state at {index} than the others had"))
            }
            _ => Ok(()),
        }
    }

    pub fn applies(&mut self, raft_id: RaftId, position: Position, digest: u64) -> Verdict {
        let last = self.last.entry(raft_id).or_default();
        if position.index != *last + 1 {
            return Err(format!("agreement: {raft_id} applies {} after {last}", position.index));
        }
        *last = position.index;
        let known = self.applied.entry(position.index).or_insert((position.term, digest));
        match *known {
            (term, _) if term != position.term => Err(format!(
                "agreement: {raft_id} applies the entry of term {} at {}, others that of {term}",
                position.term, position.index
            )),
            (_, other) if other != digest => {
                Err(format!("agreement: {raft_id} has another state after {} than the others", position.index))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, term: u64) -> Position {
        Position { index, term }
    }

    #[test]
    fn gaps_repetitions_other_entries_and_other_states_are_noticed() {
        let mut invariant = Agreement::default();
        invariant.starts_at(1, 4, 40).unwrap();
        invariant.applies(1, at(5, 1), 50).unwrap();
        invariant.applies(1, at(6, 1), 60).unwrap();
        let mut other = |start, position, digest| {
            invariant.starts_at(2, start, 0).ok();
            invariant.applies(2, position, digest)
        };
        other(4, at(5, 1), 50).unwrap();
        assert!(other(4, at(6, 1), 60).is_err(), "a gap");
        assert!(other(5, at(5, 1), 50).is_err(), "again");
        assert!(other(4, at(5, 2), 50).is_err(), "another entry");
        assert!(other(4, at(5, 1), 51).is_err(), "another state");
        assert!(invariant.starts_at(2, 5, 51).is_err());
        invariant.starts_at(2, 5, 50).unwrap();
    }
}
