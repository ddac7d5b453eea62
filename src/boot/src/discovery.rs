//! Which cluster a process without data belongs to: one that a peer knows, or a new one that exactly one of them makes.
//!
//! Every such process asks every address it has heard of, saying who it is and which addresses it has heard of; the
//! one asked adds them to its own. So the sets of all that can reach one another grow to be the same, and only grow.
//!
//! The rule: a process bootstraps when everyone in its set has answered that it is waiting too and with that same
//! set, and its own address is the smallest of the set. Two can not both do so: of two that know each other only
//! one is the smallest; and if B did not know A when it decided, then A, which must ask B before it decides, is told
//! that B bootstraps, and joins it.

use crate::address::Address;
use model::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Addresses that a process keeps in mind at most: far above any real list, to bound what strangers can add.
const ADDRESSES_MAX: usize = 4096;

/// What one process tells another when it asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub cluster: String,
    pub name: String,
    pub address: Address,
    pub known: BTreeSet<Address>,
}

/// What it hears back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Without data as well, and looking.
    Waiting { name: String, known: BTreeSet<Address> },
    /// Making the cluster at this moment: ask again.
    Bootstrapping,
    /// A member of the cluster; `members` are addresses to ask for admission.
    Member { cluster_id: String, members: BTreeSet<Address> },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Ask these addresses (again).
    Ask(BTreeSet<Address>),
    Bootstrap,
    Join {
        cluster_id: String,
        members: BTreeSet<Address>,
    },
}

/// One process's view of the search.
#[derive(Clone, Debug)]
pub struct Discovery {
    cluster: String,
    name: String,
    address: Address,
    known: BTreeSet<Address>,
    answers: BTreeMap<Address, Answer>,
    bootstrapping: bool,
}

impl Discovery {
    pub fn new(cluster: &str, name: &str, address: Address, peers: impl IntoIterator<Item = Address>) -> Self {
        let mut known: BTreeSet<Address> = peers.into_iter().collect();
        known.insert(address.clone());
        Self {
            cluster: cluster.into(),
            name: name.into(),
            address,
            known,
            answers: BTreeMap::new(),
            bootstrapping: false,
        }
    }

    /// What to say when asking.
    pub fn hello(&self) -> Hello {
        Hello {
            cluster: self.cluster.clone(),
            name: self.name.clone(),
            address: self.address.clone(),
            known: self.known.clone(),
        }
    }

    /// Somebody asked. Errors: `ForeignCluster`, `NameTaken` when another waiting process has our name.
    pub fn asked(&mut self, hello: &Hello) -> Result<Answer> {
        check_cluster(&self.cluster, &hello.cluster)?;
        if hello.name == self.name && hello.address != self.address {
            return Err(Error::new(
                Code::NameTaken,
                format!("instance \"{}\" is already starting at {}", self.name, self.address),
            ));
        }
        if self.bootstrapping {
            return Ok(Answer::Bootstrapping);
        }
        self.learn(hello.known.iter().chain([&hello.address]));
        Ok(Answer::Waiting { name: self.name.clone(), known: self.known.clone() })
    }

    /// Somebody answered.
    pub fn answered(&mut self, from: Address, answer: Answer) {
        if let Answer::Waiting { known, .. } = &answer {
            self.learn(known);
        }
        self.answers.insert(from, answer);
    }

    /// Somebody did not answer: what it said before no longer counts.
    pub fn failed(&mut self, from: &Address) {
        self.answers.remove(from);
    }

    /// What follows from all that is known. After `Bootstrap` the answer stays `Bootstrap`.
    pub fn decide(&mut self) -> Decision {
        let member = self.answers.values().find_map(|answer| match answer {
            Answer::Member { cluster_id, members } => Some((cluster_id.clone(), members.clone())),
            _ => None,
        });
        if let Some((cluster_id, members)) = member {
            return Decision::Join { cluster_id, members };
        }
        if self.bootstrapping {
            return Decision::Bootstrap;
        }
        let agrees = |address: &Address| matches!(self.answers.get(address), Some(Answer::Waiting { known, .. }) if *known == self.known);
        let others: BTreeSet<Address> = self.known.iter().filter(|a| **a != self.address).cloned().collect();
        if self.known.first() == Some(&self.address) && others.iter().all(agrees) {
            self.bootstrapping = true;
            return Decision::Bootstrap;
        }
        Decision::Ask(others)
    }

    fn learn<'a>(&mut self, addresses: impl IntoIterator<Item = &'a Address>) {
        for address in addresses {
            if self.known.len() < ADDRESSES_MAX {
                self.known.insert(address.clone());
            }
        }
    }
}

/// Refuses a process of another cluster.
pub fn check_cluster(ours: &str, theirs: &str) -> Result<()> {
    if ours == theirs {
        return Ok(());
    }
    Err(Error::new(Code::ForeignCluster, format!("this is cluster \"{ours}\", not \"{theirs}\""))
        .with_hint("check the options cluster and peers of the instance that asks"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(port: u16) -> Address {
        Address { host: "127.0.0.1".into(), port }
    }

    /// Runs processes with these peer lists in an order of steps that the numbers choose; answers who bootstraps.
    /// A step is one process asking one address it knows, or deciding; processes beyond `started` do not answer.
    fn run(peers: &[Vec<usize>], steps: &[(usize, usize)]) -> Vec<usize> {
        let mut nodes: Vec<Discovery> = peers
            .iter()
            .enumerate()
            .map(|(i, list)| {
                Discovery::new(
                    "c",
                    &format!("i{i}"),
                    address(i as u16 + 1),
                    list.iter().map(|p| address(*p as u16 + 1)),
                )
            })
            .collect();
        let mut bootstrapped = Vec::new();
        let mut member_of = vec![None; peers.len()];
        let fair = (0..40).flat_map(|_| (0..peers.len()).flat_map(|a| (0..=peers.len()).map(move |b| (a, b))));
        for (asker, action) in steps.iter().copied().chain(fair) {
            let (asker, action) = (asker % peers.len(), action % (peers.len() + 1));
            if member_of[asker].is_some() {
                continue;
            }
            if action == peers.len() {
                match nodes[asker].decide() {
                    Decision::Bootstrap => {
                        bootstrapped.push(asker);
                        member_of[asker] = Some(asker);
                    }
                    Decision::Join { cluster_id, .. } => member_of[asker] = cluster_id.parse().ok(),
                    Decision::Ask(_) => {}
                }
                continue;
            }
            let target = address(action as u16 + 1);
            if action == asker || !nodes[asker].known.contains(&target) {
                continue;
            }
            let hello = nodes[asker].hello();
            let answer = match member_of[action] {
                Some(cluster) => Answer::Member { cluster_id: cluster.to_string(), members: BTreeSet::new() },
                None => nodes[action].asked(&hello).unwrap(),
            };
            nodes[asker].answered(target, answer);
        }
        assert!(member_of.iter().all(Option::is_some), "everyone ends up somewhere: {member_of:?}");
        bootstrapped
    }

    proptest! {
        /// All lists contain process 0, so everyone can reach everyone through it.
        #[test]
        fn exactly_one_cluster_in_any_order(
            lists in proptest::collection::vec(proptest::collection::vec(0usize..5, 0..4), 1..5),
            steps in proptest::collection::vec((0usize..5, 0usize..6), 0..200),
        ) {
            let count = lists.len();
            let peers: Vec<Vec<usize>> =
                lists.into_iter().map(|l| l.into_iter().filter(|p| *p < count).chain([0]).collect()).collect();
            prop_assert_eq!(run(&peers, &steps).len(), 1);
        }
    }

    #[test]
    fn nobody_bootstraps_while_a_peer_is_silent() {
        let mut node = Discovery::new("c", "i1", address(1), [address(2)]);
        assert!(matches!(node.decide(), Decision::Ask(_)));
        node.answered(address(2), Answer::Waiting { name: "i2".into(), known: [address(1), address(2)].into() });
        node.failed(&address(2));
        assert!(matches!(node.decide(), Decision::Ask(_)));
        node.answered(address(2), Answer::Waiting { name: "i2".into(), known: [address(1), address(2)].into() });
        assert_eq!(node.decide(), Decision::Bootstrap);
    }

    #[test]
    fn strangers_and_doubles_are_refused() {
        let mut node = Discovery::new("c", "i1", address(1), []);
        let hello = |cluster: &str, name: &str, port| Discovery::new(cluster, name, address(port), []).hello();
        assert_eq!(node.asked(&hello("other", "i2", 2)).unwrap_err().code, Code::ForeignCluster);
        assert_eq!(node.asked(&hello("c", "i1", 2)).unwrap_err().code, Code::NameTaken);
        assert!(node.asked(&hello("c", "i2", 2)).is_ok());
    }
}
