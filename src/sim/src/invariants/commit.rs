//! Log matching up to commit: once any node counts an index as committed, every node that does has the entry of the same
//! term there (Ongaro, figure 3.2, "log matching" and "leader completeness").

use super::Verdict;
use consensus::Position;
use model::RaftId;

#[derive(Debug, Default)]
pub struct Commit {
    /// `terms[index]`; 0 where nobody has said anything yet.
    terms: Vec<u64>,
}

impl Commit {
    pub fn committed(&mut self, raft_id: RaftId, position: Position) -> Verdict {
        let index = position.index as usize;
        if self.terms.len() <= index {
            self.terms.resize(index + 1, 0);
        }
        match &mut self.terms[index] {
            term if *term == 0 => *term = position.term,
            term if *term == position.term => {}
            term => {
                return Err(format!(
                    "commit: entry {index} is committed in term {term}, and for {raft_id} in {}",
                    position.term
                ));
            }
        }
        Ok(())
    }

    /// The last index that is committed anywhere.
    pub fn last(&self) -> u64 {
        self.terms.len().saturating_sub(1) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_entries_at_one_index_are_noticed() {
        let mut invariant = Commit::default();
        invariant.committed(1, Position { index: 7, term: 2 }).unwrap();
        invariant.committed(2, Position { index: 7, term: 2 }).unwrap();
        invariant.committed(2, Position { index: 6, term: 1 }).unwrap();
        assert!(invariant.committed(3, Position { index: 7, term: 3 }).is_err());
        assert_eq!(invariant.last(), 7);
    }
}
