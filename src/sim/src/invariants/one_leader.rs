//! Election safety: at most one leader a term (Ongaro, "Consensus: bridging theory and practice", figure 3.2).

use super::Verdict;
use model::RaftId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct OneLeader {
    by_term: BTreeMap<u64, RaftId>,
}

impl OneLeader {
    pub fn leads(&mut self, raft_id: RaftId, term: u64) -> Verdict {
        match *self.by_term.entry(term).or_insert(raft_id) {
            leader if leader == raft_id => Ok(()),
            leader => Err(format!("one_leader: {leader} and {raft_id} both lead in term {term}")),
        }
    }

    /// How many terms had a leader.
    pub fn elections(&self) -> u64 {
        self.by_term.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_leader_of_a_term_is_noticed() {
        let mut invariant = OneLeader::default();
        invariant.leads(1, 5).unwrap();
        invariant.leads(1, 5).unwrap();
        invariant.leads(2, 6).unwrap();
        assert!(invariant.leads(2, 5).is_err());
    }
}
