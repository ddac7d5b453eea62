//! Moves of buckets carried out: the sharding room's two state machines over this instance's storage and connections.
//!
//! The unit is the bucket: a bucket that was written to while it was copied is sent again as a whole. Each side runs on
//! the master of its replicaset, and begins anew there after a restart or a change of master.

mod destination;
mod rows;
mod source;

use crate::host::{Call, fiber};
use crate::node::{self, Node};
use catalog::{Move, MoveId, State};
use model::Result;
use sharding::moves::{MoveView, Tenure};
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

pub const PULL_DOOR: &str = "picodata.peer.move_pull";
pub const RELEASE_DOOR: &str = "picodata.peer.move_release";

thread_local! {
    /// Moves to here that a fiber carries out, by the tenure that it began in.
    static ARRIVING: RefCell<HashSet<(MoveId, Tenure)>> = RefCell::default();
}

/// What the catalog says about a move.
fn view(state: &State, m: &Move) -> MoveView {
    let record = state.placement.moves.get(&m.id);
    MoveView {
        index: state.index,
        phase: record.map(|record| record.phase),
        moved: state.placement.map(&m.tier).is_some_and(|map| map.owns(&m.to, m.buckets)),
        source: state.topology.tenure(&m.from),
        destination: state.topology.tenure(&m.to),
    }
}

/// This instance's own tenure as the master of its replicaset, in this life of the process.
fn my_tenure(node: &Node, state: &State) -> Option<Tenure> {
    let record = state.topology.instances.get(&node.me.name)?;
    let tenure = state.topology.tenure(&record.replicaset)?;
    (tenure.instance == node.me.name && tenure.incarnation == node.facts.incarnation.get()).then_some(tenure)
}

/// The catalog changed. Called on Raft's fiber; does not wait.
pub fn on_change(node: &'static Node, state: &Arc<State>) {
    let Some(me) = my_tenure(node, state) else {
        source::forget_all();
        return;
    };
    let Some(replicaset) = state.topology.instances.get(&node.me.name).map(|record| &record.replicaset) else { return };
    source::on_change(node, state, &me, replicaset);
    for m in state.placement.moves.values().filter(|m| m.to == *replicaset) {
        let name = (m.id, me.clone());
        if !ARRIVING.with_borrow_mut(|arriving| arriving.insert(name.clone())) {
            continue;
        }
        let (m, me) = (m.clone(), me.clone());
        let spawned = fiber::spawn("pico_move", move || {
            let id = m.id;
            if let Err(error) = destination::Worker::new(node, m, me).run() {
                log::warn!("move {id}: {error}");
            }
            ARRIVING.with_borrow_mut(|arriving| arriving.remove(&name));
            // The catalog may have gone on meanwhile.
            on_change(node, &node.state());
        });
        if let Err(error) = spawned {
            log::warn!("moves: no fiber: {error}");
        }
    }
}

/// `picodata.peer.move_pull(id, pull)`: the next slice.
pub fn serve_pull(call: &mut Call<'_>) -> Result<()> {
    source::serve_pull(node::get()?, call)
}

/// `picodata.peer.move_release(id, index)`: whether this instance has stopped serving the buckets.
pub fn serve_release(call: &mut Call<'_>) -> Result<()> {
    source::serve_release(node::get()?, call)
}
