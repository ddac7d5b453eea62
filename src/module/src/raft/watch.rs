//! Notices the end of the leader's process at once, where its silence would tell in half a second.
//!
//! A process that ends closes its connections, and its machine refuses new ones. A network that fails does neither.

use crate::host::{Deadline, fiber};
use crate::net::{LinkEvent, Socket};
use crate::node::Node;

/// How often, and with what pauses, its machine is asked whether anybody listens.
const PROBES: usize = 5;
const PAUSE_S: f64 = 0.01;
const PROBE_MS: u64 = 200;

pub fn start(node: &'static Node) {
    node.pool.subscribe(move |address, event| {
        if matches!(event, LinkEvent::Down) && is_leaders(node, address) {
            let address = address.to_owned();
            if let Err(error) = fiber::spawn("pico_watch", move || look(node, &address)) {
                log::warn!("raft: nobody looks after the leader: {error}");
            }
        }
    });
}

fn is_leaders(node: &Node, address: &str) -> bool {
    let leader = node.raft.leader().filter(|leader| *leader != node.me.raft_id);
    let is_same = leader.and_then(|leader| node.address_of(leader).ok()).is_some_and(|at| at.to_string() == address);
    is_same && node.pool.peer(address).is_ok_and(|peer| peer.was_closed())
}

fn look(node: &Node, address: &str) {
    for _ in 0..PROBES {
        if !is_leaders(node, address) || fiber::is_cancelled() {
            return;
        }
        if Socket::is_refused(address, Deadline::after_ms(PROBE_MS)) {
            if let Some(leader) = node.raft.leader() {
                node.raft.leader_is_gone(leader);
            }
            return;
        }
        fiber::sleep(PAUSE_S);
    }
}
