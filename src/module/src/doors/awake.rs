//! `picodata.peer.awake(address, is_passed_on)`: the instance at an address has just started. Whoever could not reach it tries again at
//! once, where it would have waited up to a second; the leader's messages are what the start waits for.

use crate::host::{Call, Deadline, failpoint, fiber};
use crate::net::CallError;
use crate::node::{self, Node};
use boot::Address;
use model::Result;
use model::msgpack::{Reader, write_array_len, write_bool, write_nil, write_str};
use std::collections::BTreeSet;

pub const AWAKE_DOOR: &str = "picodata.peer.awake";

/// How many members are told; each passes it to the leader.
const TOLD_MAX: usize = 8;
const TIMEOUT_MS: u64 = 2_000;

/// Tells others that this instance is there. Waits for nobody: without it they find out by themselves.
pub fn tell(node: &'static Node, members: &BTreeSet<Address>) {
    let me = node.config.advertise.to_string();
    let told: Vec<Address> = node.config.advertise.others(members).take(TOLD_MAX).cloned().collect();
    for member in told {
        let args = args(&me, false);
        let told = fiber::spawn("pico_awake", move || {
            if let Err(error) = node.call(&member, AWAKE_DOOR, &args, Deadline::after_ms(TIMEOUT_MS)) {
                log::debug!("{member} was not told of this start: {}", CallError::for_read(error));
            }
        });
        if let Err(error) = told {
            log::warn!("picodata: no fiber to tell others of this start: {error}");
        }
    }
}

pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let (address, is_passed_on) = (reader.str()?.to_owned(), reader.bool()?);
    failpoint::reach("start.heard");
    if is_passed_on {
        connect(node, &address)?;
    } else {
        announce(node, &address)?;
    }
    let mut reply = Vec::new();
    write_nil(&mut reply);
    call.reply(&reply)
}

/// The instance at an address is there: connects to it, as does the leader.
pub fn announce(node: &Node, address: &str) -> Result<()> {
    connect(node, address)?;
    if let Some(leader) = node.raft.leader().filter(|leader| *leader != node.me.raft_id) {
        // One that knows of no leader, or of an old one, is not the only one that was told.
        let sent = node.pool.peer(&node.address_of(leader)?.to_string()).map_err(CallError::not_sent);
        let _ = sent.and_then(|leader| leader.send(AWAKE_DOOR, &args(address, true)));
    }
    Ok(())
}

fn connect(node: &Node, address: &str) -> Result<()> {
    if node.state().topology.instances.values().any(|instance| instance.address == address) {
        node.pool.peer(address)?.retry_now();
    }
    Ok(())
}

fn args(address: &str, is_passed_on: bool) -> Vec<u8> {
    let mut args = Vec::new();
    write_array_len(&mut args, 2);
    write_str(&mut args, address);
    write_bool(&mut args, is_passed_on);
    args
}
