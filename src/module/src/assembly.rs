//! Puts the rooms together: Raft on the local spaces, the catalog, and everybody who acts on its changes.

use crate::acks;
use crate::copying::Copies;
use crate::facts::Facts;
use crate::host::{Event, clock, guard};
use crate::lineage::{self, Lineage};
use crate::mastership::{self, Mastership};
use crate::net::{LinkEvent, Pool, SERVICE_USER};
use crate::node::{self, Me, Node};
use crate::raft::{Machine, Published, Runtime, disk, machine, watch};
use crate::schema_work::{self, SchemaWork};
use crate::start::lua;
use crate::{bridge, doors, facts, global_rows, governing, moving, query, router};
use boot::Config;
use catalog::State;
use consensus::Log;
use model::{RaftId, Result};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Starts Raft from what is on disk and opens the doors for other instances. The storage is open. `joined_in` is the
/// term of the master that it was copied from, once.
pub fn assemble(config: Config, me: Me, bootstrap: bool, joined_in: u64) -> Result<&'static Node> {
    let pool = Pool::new(SERVICE_USER, &config.cluster_secret)?;
    let log = restore_log(&me, bootstrap)?;
    let (state, snapshot_index) = machine::restore(&log)?;
    let applied = log.applied();
    let catalog = Published::new(state.clone())?;
    let raft_node = consensus::Node::new(consensus::Config::new(me.raft_id, seed(&me)), log)?;
    let machine = Machine::new(
        state,
        applied,
        snapshot_index,
        Rc::new(global_rows::GlobalRows),
        Rc::clone(&catalog),
        Box::new(on_change),
    );
    let raft = Runtime::start(raft_node, machine, Rc::new(PeerTransport))?;
    let node = node::set(Node {
        config,
        me,
        pool,
        raft,
        catalog,
        senders: RefCell::default(),
        facts: Facts::new()?,
        mastership: Mastership::new()?,
        lineage: Lineage::open(joined_in)?,
        copies: Copies::new()?,
        schema_work: SchemaWork::new()?,
        storage_changed: Rc::new(Event::new()?),
    })?;
    lua::call("watch_schema", &[0x90])?;
    node.pool.subscribe(|_, event| {
        if event == LinkEvent::Up {
            router::connected();
        }
    });
    crate::crud::call::set_schema_changer(crate::schema_change::change);
    crate::router::global::set_writer(global_rows::write);
    bridge::configure(node.config.sql_threads.into())?;
    on_change(&node.state());
    mastership::start(node)?;
    schema_work::start(node)?;
    lineage::start(node)?;
    watch::start(node);
    governing::start(node)?;
    Ok(node)
}

/// The log on disk; on the first instance of a cluster, the beginning of one.
fn restore_log(me: &Me, bootstrap: bool) -> Result<Log> {
    let state = disk::read_state()?;
    if !state.is_empty() {
        return Log::restore(disk::read_log()?, state);
    }
    if !bootstrap {
        return Ok(Log::empty());
    }
    let (log, persist) = Log::bootstrap(me.raft_id);
    let transaction = crate::host::Transaction::begin()?;
    disk::write(&persist)?;
    disk::write_catalog(log.applied(), &State::default().to_bytes()?)?;
    transaction.commit()?;
    Ok(log)
}

/// Different on every instance and at every start.
fn seed(me: &Me) -> u64 {
    clock::precise_ns().rotate_left(32) ^ me.raft_id
}

/// After each transaction of Raft, on its fiber: tells everybody, waits for nobody. What goes wrong with one is logged
/// and does not keep the news from the others, nor stop Raft.
fn on_change(state: &Arc<State>) {
    let Ok(node) = node::get() else { return };
    let tell = |f: &dyn Fn()| {
        let _ = guard::contain(|| {
            f();
            Ok(())
        });
    };
    tell(&|| query::on_change(node, state));
    tell(&|| acks::on_change(node, state));
    tell(&|| mastership::on_change(node, state));
    tell(&|| lineage::on_change(node, state));
    tell(&|| facts::on_change(node, state));
    tell(&|| schema_work::on_change(node));
    tell(&|| moving::on_change(node, state));
    tell(&|| governing::on_change());
}

/// Raft's messages over the pool's connections.
struct PeerTransport;

impl crate::raft::Transport for PeerTransport {
    fn send(&self, to: RaftId, message: Vec<u8>, is_snapshot: bool) {
        let Ok(node) = node::get() else { return };
        if let Err(error) = doors::raft::send(node, to, message, is_snapshot) {
            log::debug!("raft: a message to {to} was not sent: {error}");
            node.raft.unreachable(to);
            if is_snapshot {
                node.raft.snapshot_sent(to, false);
            }
        }
    }
}
