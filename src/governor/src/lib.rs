//! The governor room: what to do next for the cluster.
//!
//! The catalog and what the leader has observed come in; one action goes out, or none when all is well. The governor
//! keeps nothing: it looks at what is wanted and at what is, and picks the most urgent step between them. So it can stop
//! at any moment, on any leader, and the next one goes on. An action carries the catalog version that it was planned on,
//! and every proposal a guard, so that a step that came too late is refused.

pub mod action;
mod rules;
pub mod view;

pub use action::{Action, Step};
pub use view::{Fenced, Follows, InStep, Observed, Raft, SchemaReport, View};

/// The most urgent step that is not `busy`.
pub fn plan(view: &View<'_>) -> Option<Action> {
    let planned_on = view.state.version;
    rules::RULES.iter().find_map(|(rule, steps)| {
        let step = steps(view).into_iter().find(|step| !view.busy.contains(&step.key()))?;
        Some(Action { rule, step, planned_on })
    })
}
