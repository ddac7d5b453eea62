//! Election safety: at most one leader a term (Ongaro, "Consensus: bridging theory and practice", figure 3.2). A node that
//! restarts is another leader: it must have kept the term that it led in, and go on in a later one.

use super::Verdict;
use model::RaftId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct OneLeader {
    /// Term -> who led in it, and in which of its starts.
    by_term: BTreeMap<u64, (RaftId, u64)>,
}

impl OneLeader {
    pub fn leads(&mut self, raft_id: RaftId, start: u64, term: u64) -> Verdict {
        match *self.by_term.entry(term).or_insert((raft_id, start)) {
            leader if leader == (raft_id, start) => Ok(()),
            (leader, _) if leader == raft_id => {
                Err(format!("one_leader: {raft_id} leads in term {term} before and after a restart"))
            }
            (leader, _) => Err(format!("one_leader: {leader} and {raft_id} both lead in term {term}")),
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
        invariant.leads(1, 1, 5).unwrap();
        invariant.leads(1, 1, 5).unwrap();
        invariant.leads(2, 1, 6).unwrap();
        assert!(invariant.leads(2, 1, 5).is_err());
        assert!(invariant.leads(1, 2, 5).is_err(), "the same node after a restart");
    }
}
