//! Who is online: an instance that is silent for `offline_after_ms` goes offline, and so does one with rows that a change
//! of master did not keep; one that answers and is ready goes online, on a report about its present part in the cluster.
//! Bad news first: others wait for it.

use super::propose;
use crate::{Step, View};
use catalog::{Instance, InstanceState, Op, Part};

pub(super) fn steps(view: &View<'_>) -> Vec<Step> {
    let mut gone = vec![];
    let mut back = vec![];
    for instance in view.state.topology.instances.values() {
        let ready = view.current(instance).is_some_and(|observed| observed.ready && !observed.stray);
        match (instance.state, view.answers(instance)) {
            (InstanceState::Online, _) if view.is_stray(instance) => {
                gone.push(set(view, instance, InstanceState::Offline));
            }
            (InstanceState::Online, Some(false)) => gone.push(set(view, instance, InstanceState::Offline)),
            (InstanceState::Joining | InstanceState::Offline, Some(true)) if ready => {
                back.push(set(view, instance, InstanceState::Online));
            }
            _ => {}
        }
    }
    gone.extend(back);
    gone
}

fn set(view: &View<'_>, instance: &Instance, state: InstanceState) -> Step {
    let op = Op::SetInstanceState { instance: instance.name.clone(), incarnation: instance.incarnation, state };
    propose(view, op, Part::Instance(instance.name.clone()))
}
