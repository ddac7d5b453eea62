//! The rules, most urgent first; one file each. A rule answers the steps it wants, in the order it wants them; what it
//! chooses among is ordered by a score that ends in an id, so that every leader chooses alike.

mod balancing;
mod distribution;
mod expulsion;
mod in_sync;
mod liveness;
mod masters;
mod replication;
mod schema;
mod voters;

use crate::{Step, View};
use catalog::{Entry, Guard, Op, Part, Replicaset};

pub(crate) type Rule = fn(&View<'_>) -> Vec<Step>;

pub(crate) const RULES: &[(&str, Rule)] = &[
    ("liveness", liveness::steps),
    ("masters", masters::steps),
    ("voters", voters::steps),
    ("in_sync", in_sync::steps),
    ("replication", replication::steps),
    ("schema", schema::steps),
    ("expulsion", expulsion::steps),
    ("distribution", distribution::steps),
    ("balancing", balancing::steps),
];

/// A proposal that holds while the part is as it was planned on.
fn propose(view: &View<'_>, op: Op, part: Part) -> Step {
    let version = view.state.version_of(&part);
    Step::Propose(Box::new(Entry::guarded(op, Guard::Part { part, version })))
}

/// A proposal about a replicaset.
fn propose_for(view: &View<'_>, replicaset: &Replicaset, op: Op) -> Step {
    propose(view, op, Part::Replicaset(replicaset.name.clone()))
}
