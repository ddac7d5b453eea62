//! Notices the end of the leader's process at once, where its silence would tell in half a second.
//!
//! A process that ends closes its connections, and its machine refuses new ones. A network that fails does neither.

use crate::host::{Deadline, fiber};
use crate::net::{LinkEvent, Socket};
use crate::node::Node;
use model::RaftId;

/// How often, and with what pauses, its machine is asked whether anybody listens.
const PROBES: usize = 5;
const PAUSE_S: f64 = 0.01;
const PROBE_MS: u64 = 200;

pub fn start(node: &'static Node) {
    node.pool.subscribe(move |address, event| {
        if matches!(event, LinkEvent::Down) && closed_leader(node, address).is_some() {
            let address = address.to_owned();
            if let Err(error) = fiber::spawn("pico_watch", move || look(node, &address)) {
                log::warn!("raft: nobody looks after the leader: {error}");
            }
        }
    });
}

/// The leader, when this is its address, where it has closed its connection.
fn closed_leader(node: &Node, address: &str) -> Option<RaftId> {
    let leader = node.raft.leader().filter(|leader| *leader != node.me.raft_id)?;
    let is_same = node.address_of(leader).is_ok_and(|at| at.to_string() == address);
    (is_same && node.pool.peer(address).is_ok_and(|peer| peer.was_closed())).then_some(leader)
}

fn look(node: &Node, address: &str) {
    for _ in 0..PROBES {
        let Some(leader) = closed_leader(node, address).filter(|_| !fiber::is_cancelled()) else { return };
        if Socket::is_refused(address, Deadline::after_ms(PROBE_MS)) {
            // This one, whoever leads by now.
            return node.raft.leader_is_gone(leader);
        }
        fiber::sleep(PAUSE_S);
    }
}
