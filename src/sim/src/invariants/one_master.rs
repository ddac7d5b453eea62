//! One master a replicaset holds a lease at a time, and never one of an earlier term again (Gray and Cheriton, "Leases: an
//! efficient fault-tolerant mechanism for distributed file cache consistency", 1989; `replication::lease`).

use super::Verdict;
use model::ReplicasetName;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct OneMaster {
    /// The latest term that somebody served in, and who.
    served: BTreeMap<ReplicasetName, (u64, u64)>,
}

impl OneMaster {
    /// All that would serve now: the replicaset, the machine, and the term that it believes to be master of.
    pub fn serve(&mut self, serving: &[(ReplicasetName, u64, u64)]) -> Verdict {
        for (at, (replicaset, number, term)) in serving.iter().enumerate() {
            if let Some((_, other, _)) = serving[..at].iter().find(|(name, ..)| name == replicaset) {
                return Err(format!("one_master: i{other} and i{number} both serve {replicaset}"));
            }
            let (served, by) = self.served.entry(replicaset.clone()).or_insert((*term, *number));
            if term < served {
                return Err(format!(
                    "one_master: i{number} serves {replicaset} in term {term}, after i{by} in {served}"
                ));
            }
            if term == served && number != by {
                return Err(format!("one_master: i{number} and i{by} are masters of term {term} of {replicaset}"));
            }
            (*served, *by) = (*term, *number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_masters_are_noticed_at_once_and_in_turn() {
        let serve = |number, term| (ReplicasetName("r".into()), number, term);
        let mut invariant = OneMaster::default();
        invariant.serve(&[serve(1, 1)]).unwrap();
        invariant.serve(&[serve(2, 3), (ReplicasetName("other".into()), 1, 1)]).unwrap();
        assert!(invariant.serve(&[serve(2, 3), serve(1, 1)]).is_err());
        assert!(invariant.serve(&[serve(1, 1)]).is_err(), "the old one again");
        assert!(invariant.serve(&[serve(1, 3)]).is_err(), "another one of the same term");
    }
}
