//! Who takes part in Raft: voters and learners, and both halves of a change that is under way.

use crate::config::NUMBER_MAX;
use model::{Code, Error, RaftId, Result};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use std::collections::BTreeSet;
use std::fmt;

/// The members of the group, each list ascending. Empty before an instance has heard from any leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub voters: Vec<RaftId>,
    pub learners: Vec<RaftId>,
    /// The voters from before the change that is under way; empty when none is. Until it is over, a decision needs a
    /// majority of both.
    pub voters_outgoing: Vec<RaftId>,
    /// Outgoing voters that become learners when the change is over.
    pub learners_next: Vec<RaftId>,
    /// The leader ends the change by itself as soon as it is committed.
    pub auto_leave: bool,
}

impl Membership {
    pub fn new(voters: impl IntoIterator<Item = RaftId>, learners: impl IntoIterator<Item = RaftId>) -> Self {
        Self { voters: sorted(voters), learners: sorted(learners), ..Self::default() }
    }

    /// Whether a change is under way.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether the node has a vote, in either half.
    pub fn is_voter(&self, raft_id: RaftId) -> bool {
        self.voters.contains(&raft_id) || self.voters_outgoing.contains(&raft_id)
    }

    pub fn contains(&self, raft_id: RaftId) -> bool {
        self.is_voter(raft_id) || self.learners.contains(&raft_id)
    }

    /// Refuses what raft-rs would stumble over: a membership comes from disk or from another node.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let lists = [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next];
        if lists.iter().any(|list| list.iter().any(|id| *id == 0 || *id >= NUMBER_MAX)) {
            return Err("a raft id is out of range");
        }
        if lists.iter().any(|list| list.windows(2).any(|pair| pair[0] >= pair[1])) {
            return Err("a raft id is listed twice");
        }
        if self.voters.is_empty() {
            return Err("there is no voter");
        }
        if self.learners.iter().any(|id| self.is_voter(*id)) {
            return Err("a learner is a voter too");
        }
        if self.learners_next.iter().any(|id| !self.voters_outgoing.contains(id) || self.voters.contains(id)) {
            return Err("a coming learner is not an outgoing voter");
        }
        if !self.is_joint() && self.auto_leave {
            return Err("a change is to end that never began");
        }
        Ok(())
    }

    /// The single changes that lead from here to the wanted voters and learners; empty when nothing is to do.
    pub(crate) fn changes_to(&self, voters: &[RaftId], learners: &[RaftId]) -> Result<ConfChangeV2> {
        let wanted = Self::new(voters.iter().copied(), learners.iter().copied());
        if wanted.voters.len() != voters.len() || wanted.learners.len() != learners.len() {
            return Err(Error::new(Code::Argument, "a raft id is listed twice"));
        }
        wanted.check().map_err(|why| Error::new(Code::Argument, why))?;
        let step = |kind, raft_id: &RaftId| ConfChangeSingle { change_type: kind as i32, node_id: *raft_id };
        let promoted = wanted.voters.iter().filter(|id| !self.voters.contains(id));
        let demoted = wanted.learners.iter().filter(|id| !self.learners.contains(id));
        let removed = self.voters.iter().chain(&self.learners).filter(|id| !wanted.contains(**id));
        let changes = promoted
            .map(|id| step(ConfChangeType::AddNode, id))
            .chain(demoted.map(|id| step(ConfChangeType::AddLearnerNode, id)))
            .chain(removed.map(|id| step(ConfChangeType::RemoveNode, id)))
            .collect();
        Ok(ConfChangeV2 { changes, ..ConfChangeV2::default() })
    }
}

impl From<&ConfState> for Membership {
    fn from(state: &ConfState) -> Self {
        Self {
            voters: sorted(state.voters.iter().copied()),
            learners: sorted(state.learners.iter().copied()),
            voters_outgoing: sorted(state.voters_outgoing.iter().copied()),
            learners_next: sorted(state.learners_next.iter().copied()),
            auto_leave: state.auto_leave,
        }
    }
}

impl From<&Membership> for ConfState {
    fn from(membership: &Membership) -> Self {
        Self {
            voters: membership.voters.clone(),
            learners: membership.learners.clone(),
            voters_outgoing: membership.voters_outgoing.clone(),
            learners_next: membership.learners_next.clone(),
            auto_leave: membership.auto_leave,
        }
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "voters={:?}", self.voters)?;
        let others = [("learners", &self.learners), ("from", &self.voters_outgoing), ("demoting", &self.learners_next)];
        for (name, list) in others {
            if !list.is_empty() {
                write!(f, " {name}={list:?}")?;
            }
        }
        Ok(())
    }
}

fn sorted(ids: impl IntoIterator<Item = RaftId>) -> Vec<RaftId> {
    ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wanted_membership_becomes_the_fewest_steps() {
        let now = Membership::new([1, 2, 3], [4]);
        let steps = |voters: &[RaftId], learners: &[RaftId]| {
            let change = now.changes_to(voters, learners).unwrap();
            change.changes.iter().map(|step| (step.change_type, step.node_id)).collect::<Vec<_>>()
        };
        const VOTER: i32 = ConfChangeType::AddNode as i32;
        const LEARNER: i32 = ConfChangeType::AddLearnerNode as i32;
        const REMOVE: i32 = ConfChangeType::RemoveNode as i32;
        assert_eq!(steps(&[3, 2, 1], &[4]), []);
        assert_eq!(steps(&[1, 2, 4], &[3]), [(VOTER, 4), (LEARNER, 3)]);
        assert_eq!(steps(&[1], &[5]), [(LEARNER, 5), (REMOVE, 2), (REMOVE, 3), (REMOVE, 4)]);
    }

    #[test]
    fn impossible_memberships_are_refused() {
        let now = Membership::new([1], []);
        for (voters, learners) in [(&[][..], &[1][..]), (&[1], &[1]), (&[0], &[]), (&[1, 1], &[]), (&[u64::MAX], &[])] {
            assert_eq!(now.changes_to(voters, learners).unwrap_err().code, Code::Argument, "{voters:?} {learners:?}");
        }
        let joint = Membership { voters_outgoing: vec![1, 2], learners_next: vec![2], ..Membership::new([1, 3], [4]) };
        assert_eq!(joint.check(), Ok(()));
        assert!(Membership { learners_next: vec![3], ..joint.clone() }.check().is_err());
        assert!(Membership { learners: vec![2], ..joint.clone() }.check().is_err());
        assert!(
            Membership { voters_outgoing: vec![], learners_next: vec![], auto_leave: true, ..joint }.check().is_err()
        );
    }
}
