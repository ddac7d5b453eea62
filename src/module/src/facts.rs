//! What this instance tells the governor about itself: `picodata.peer.report`.
//!
//! The leader asks again and again; an answer that would repeat the last one waits until something changes or the time of
//! a ping is over, so that news travel at once and silence means that this thread is stuck.

use crate::acks;
use crate::host::{Call, Deadline, Event};
use crate::node::{self, Node};
use crate::start::join::encode;
use crate::start::lua;
use catalog::{Instance, SchemaId};
use model::msgpack::{Reader, write_bin};
use model::{Code, Error, InstanceName, Result};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

pub const DOOR: &str = "picodata.peer.report";

/// The longest that an answer waits for news.
pub const PING_MS: u64 = 100;

/// The governor's `Observed`, as it travels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub incarnation: u64,
    pub ready: bool,
    pub peers: Option<BTreeSet<String>>,
    pub schema: Option<(SchemaId, Option<String>)>,
    /// Term and position.
    pub fenced: Option<(u64, u64)>,
    pub in_step: BTreeSet<InstanceName>,
}

/// What is known here and nowhere else.
pub struct Facts {
    /// Which life of the process this is; 0 before the cluster has counted it.
    pub incarnation: Cell<u64>,
    pub peers: RefCell<Option<BTreeSet<String>>>,
    pub schema: RefCell<Option<(SchemaId, Option<String>)>>,
    pub fenced: Cell<Option<(u64, u64)>>,
    /// Fires when any of these changed.
    pub changed: Event,
}

impl Facts {
    pub fn new() -> Result<Self> {
        Ok(Self {
            incarnation: Cell::new(0),
            peers: RefCell::new(Some(BTreeSet::new())),
            schema: RefCell::new(None),
            fenced: Cell::new(None),
            changed: Event::new()?,
        })
    }
}

/// One other member of the replicaset, as the host's replication sees it.
#[derive(Debug, Default, Deserialize)]
struct Link {
    /// This instance follows it.
    upstream: bool,
    /// It follows this instance.
    downstream: bool,
}

/// The state of replication by the members' UUIDs.
fn links() -> Result<BTreeMap<String, Link>> {
    let bytes = lua::call("links", &[0x90])?;
    rmp_serde::from_slice(&bytes).map_err(|e| Error::new(Code::Internal, format!("box.info.replication: {e}")))
}

/// The report as of now.
pub fn report(node: &Node) -> Result<Report> {
    let facts = &node.facts;
    let state = node.state();
    let links = links()?;
    let topology = &state.topology;
    let record = topology.instances.get(&node.me.name);
    let replicaset = record.and_then(|record| topology.replicasets.get(&record.replicaset));
    let master = replicaset.and_then(|replicaset| replicaset.master.as_ref());
    let is_master = master == Some(&node.me.name);
    let follows = |name: &InstanceName| {
        topology.instances.get(name).is_some_and(|master| links.get(&master.uuid).is_some_and(|link| link.upstream))
    };
    let in_step = record.filter(|_| is_master).map(|record| {
        let members = topology.members(&record.replicaset);
        // The relay to a member that was stopped looks well for a while; the catalog knows better.
        let follows_me = |member: &&Instance| links.get(&member.uuid).is_some_and(|link| link.downstream);
        let followers = members.filter(|member| member.is_online()).filter(follows_me);
        acks::promise(&state, followers.map(|member| member.name.clone()).collect())
    });
    let is_counted = facts.incarnation.get() > 0;
    Ok(Report {
        incarnation: facts.incarnation.get(),
        ready: is_counted && (is_master || master.is_none_or(follows)),
        peers: facts.peers.borrow().clone(),
        schema: facts.schema.borrow().clone(),
        fenced: facts.fenced.get(),
        in_step: in_step.unwrap_or_default(),
    })
}

/// The door: takes the last report that the leader has, answers the one that is true now.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let known = reader.bin()?.to_vec();
    let mut bytes = encode(&report(node)?)?;
    if bytes == known {
        node.facts.changed.wait(Deadline::after_ms(PING_MS));
        bytes = encode(&report(node)?)?;
    }
    let mut reply = Vec::with_capacity(bytes.len() + 5);
    write_bin(&mut reply, &bytes);
    call.reply(&reply)
}
