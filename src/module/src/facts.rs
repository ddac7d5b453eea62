//! What this instance tells the governor about itself: `picodata.peer.report`.
//!
//! The leader asks again and again; an answer that would repeat the last one waits until something changes or the time of
//! a ping is over, so that news travel at once and silence means that this thread is stuck.

use crate::acks;
use crate::host::{Call, Deadline, Event, clock};
use crate::lease;
use crate::node::{self, Node};
use crate::start::join::encode;
use crate::start::lua;
use catalog::{Instance, SchemaId, Setting, State};
use model::msgpack::{Reader, write_array_len, write_bin, write_uint};
use model::{Code, Error, InstanceName, Result};
use replication::Kept;
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
    /// The version of this instance's part in the cluster that the rest is about.
    pub seen: u64,
    pub ready: bool,
    pub stray: bool,
    /// A master's term, and addresses.
    pub follows: Option<(u64, BTreeSet<String>)>,
    pub schema: Option<(SchemaId, Option<String>)>,
    /// The term, and the rows that are here.
    pub fenced: Option<(u64, Kept)>,
    pub stuck: BTreeSet<InstanceName>,
    /// The term, and the versions of the members' records.
    pub in_step: Option<(u64, BTreeMap<InstanceName, u64>)>,
}

/// What is known here and nowhere else.
pub struct Facts {
    /// Which life of the process this is; 0 before the cluster has counted it.
    pub incarnation: Cell<u64>,
    /// The version of this instance's part that was told to the others.
    seen: Cell<u64>,
    /// Some report of this life said that it is ready.
    pub was_ready: Cell<bool>,
    pub follows: RefCell<Option<(u64, BTreeSet<String>)>>,
    pub schema: RefCell<Option<(SchemaId, Option<String>)>>,
    pub fenced: RefCell<Option<(u64, Kept)>>,
    /// Fires when any of these changed.
    pub changed: Event,
}

impl Facts {
    /// Nobody is followed yet.
    pub fn new() -> Result<Self> {
        Ok(Self {
            incarnation: Cell::new(0),
            seen: Cell::new(0),
            was_ready: Cell::new(false),
            follows: RefCell::new(Some((0, BTreeSet::new()))),
            schema: RefCell::new(None),
            fenced: RefCell::new(None),
            changed: Event::new()?,
        })
    }
}

/// The catalog changed: what concerns this instance is news, for its reports are about it from now on.
pub fn on_change(node: &Node, state: &State) {
    let record = state.topology.instances.get(&node.me.name);
    // A request of an earlier attempt to join, long on its way, has counted this life once more: there is no other.
    let counted = record.filter(|record| record.uuid == node.me.uuid).map_or(0, |record| record.incarnation);
    let is_counted = node.facts.incarnation.get() > 0;
    if is_counted && counted > 0 && node.facts.incarnation.replace(counted) != counted {
        log::warn!("picodata: the cluster has counted this start of the process again, as number {counted}");
        node.facts.changed.notify_all();
    }
    let seen = record.map_or(0, |record| state.topology.part_version(record));
    if node.facts.seen.replace(seen) != seen {
        node.facts.changed.notify_all();
    }
}

/// One other member of the replicaset, as the host's replication sees it.
#[derive(Debug, Default, Deserialize)]
struct Link {
    /// This instance follows it.
    upstream: bool,
    /// It follows this instance.
    downstream: bool,
    /// What ended following it for good.
    failure: Option<String>,
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
    let in_step = replicaset.filter(|_| is_master).map(|replicaset| {
        let members = topology.members(&replicaset.name);
        // The relay to a member that was stopped looks well for a while; the catalog knows better.
        let follows_me = |member: &&Instance| links.get(&member.uuid).is_some_and(|link| link.downstream);
        let followers: Vec<&Instance> = members.filter(|member| member.is_online()).filter(follows_me).collect();
        let count = followers.len();
        let in_step = acks::promise(&state, followers);
        if in_step.len() < count {
            acks::nudge(replicaset.master_term);
        }
        (replicaset.master_term, in_step)
    });
    // A master that is away can not be followed; whoever has its writes may have to take over.
    let is_away = |name: &InstanceName| topology.instances.get(name).is_none_or(|master| !master.is_online());
    let is_in_place = is_master || master.is_none_or(|master| is_away(master) || follows(master));
    let stray = node.lineage.is_stray();
    if let Some(master) = master.filter(|_| !is_master).and_then(|master| topology.instances.get(master)) {
        let link = links.get(&master.uuid);
        node.lineage.saw_link(link.is_some_and(|link| link.upstream), link.and_then(|link| link.failure.as_deref()));
    }
    let ready = facts.incarnation.get() > 0 && is_in_place && !stray;
    facts.was_ready.set(facts.was_ready.get() || ready);
    Ok(Report {
        incarnation: facts.incarnation.get(),
        seen: record.map_or(0, |record| topology.part_version(record)),
        ready,
        stray,
        follows: facts.follows.borrow().clone(),
        schema: facts.schema.borrow().clone(),
        fenced: facts.fenced.borrow().clone(),
        stuck: if is_master {
            acks::stuck(state.settings.count(Setting::OfflineAfterMs) as u64)
        } else {
            BTreeSet::new()
        },
        in_step,
    })
}

/// The arguments of the door: the last report that the leader has, and the stamp that it sends back for a lease of so
/// many milliseconds.
pub fn args(known: &[u8], stamp_ns: u64, lease_ms: u64) -> Vec<u8> {
    let mut args = Vec::with_capacity(known.len() + 32);
    write_array_len(&mut args, 3);
    write_bin(&mut args, known);
    write_uint(&mut args, stamp_ns);
    write_uint(&mut args, lease_ms);
    args
}

/// The door: answers the report that is true now, and a stamp.
pub fn serve(call: &mut Call<'_>) -> Result<()> {
    let node = node::get()?;
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let known = reader.bin()?.to_vec();
    lease::renew(reader.uint()?, reader.uint()?);
    let mut bytes = encode(&report(node)?)?;
    if bytes == known {
        node.facts.changed.wait(Deadline::after_ms(PING_MS));
        bytes = encode(&report(node)?)?;
    }
    let mut reply = Vec::with_capacity(bytes.len() + 16);
    write_array_len(&mut reply, 2);
    write_bin(&mut reply, &bytes);
    write_uint(&mut reply, clock::precise_ns());
    call.reply(&reply)
}
