//! This instance's part in its replicaset follows the catalog: writable as its master, read-only otherwise; and what is
//! served follows both.

use crate::acks;
use crate::host::{Event, failpoint, fiber, space};
use crate::lineage;
use crate::node::Node;
use crate::router;
use crate::schema_work;
use crate::start::storage;
use crate::storage::truncation;
use catalog::State;
use model::Result;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// How soon what failed is tried again.
const RETRY_S: f64 = 0.1;

/// Starts the fiber that does what takes time.
pub fn start(node: &'static Node) -> Result<()> {
    fiber::spawn("pico_mastership", move || {
        while !fiber::is_cancelled() {
            if let Err(error) = follow(node) {
                log::error!("mastership: {error}");
                fiber::sleep(RETRY_S);
                node.mastership.wake();
            }
            node.mastership.wait();
        }
    })
    .map(drop)
}

/// What wakes that fiber.
pub struct Mastership {
    is_due: Cell<bool>,
    event: Event,
}

impl Mastership {
    pub fn new() -> Result<Rc<Self>> {
        Ok(Rc::new(Self { is_due: Cell::new(true), event: Event::new()? }))
    }

    pub fn wake(&self) {
        self.is_due.set(true);
        self.event.notify_all();
    }

    fn wait(&self) {
        while !self.is_due.replace(false) && !fiber::is_cancelled() {
            self.event.wait(crate::host::Deadline::NEVER);
        }
    }
}

/// The catalog changed: takes over at once what takes no time.
pub fn on_change(node: &'static Node, state: &Arc<State>) {
    end_if_expelled(node, state);
    node.forget_senders(state);
    if let Err(error) = router::install(state, &node.me.name, !space::is_read_only(), &node.pool) {
        log::error!("router: {error}");
    }
    node.mastership.wake();
}

/// An instance that was expelled has nothing left to do: its process ends as if it had been asked to.
fn end_if_expelled(node: &Node, state: &State) {
    let is_expelled = |instance: &catalog::Instance| instance.state == catalog::InstanceState::Expelled;
    // While it starts, `start` refuses with the reason.
    let is_started = node.facts.incarnation.get() > 0;
    if is_started && state.topology.instances.get(&node.me.name).is_some_and(is_expelled) {
        log::error!("picodata: instance {} was expelled from the cluster; its process ends", node.me.name);
        // SAFETY: sends this process the signal by which the host shuts down in good order.
        unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
    }
}

/// Takes writes as the master of a term, beginning with a row of its own.
///
/// What the term began with may not be on all members in sync yet. Reads wait until they have all that this instance has
/// written; with that row they have everything before it too.
fn lead(node: &Node, term: u64) -> Result<()> {
    lineage::lead(node, term)?;
    // Reads that begin before the row is in the log wait for this commit first.
    let commit = acks::begin_commit()?;
    storage::set_read_only(false)?;
    failpoint::reach("lead.writable");
    let begun = truncation::begin_term(term);
    drop(commit);
    failpoint::reach("lead.begun");
    begun.or_else(|error| storage::set_read_only(true).and(Err(error)))
}

/// Makes the host writable or read-only as the catalog says.
fn follow(node: &'static Node) -> Result<()> {
    // Before the cluster has counted this life of the process, what the catalog on disk says may be long past.
    if node.facts.incarnation.get() == 0 {
        return Ok(());
    }
    let state = node.state();
    let record = state.topology.instances.get(&node.me.name);
    let replicaset = record.and_then(|record| state.topology.replicasets.get(&record.replicaset));
    // The first member of a replicaset makes its data before there is a master.
    let Some(replicaset) = replicaset.filter(|r| r.master.is_some() || !r.in_sync.is_empty()) else { return Ok(()) };
    let (is_master, term) = (replicaset.master.as_ref() == Some(&node.me.name), replicaset.master_term);
    if is_master == space::is_read_only() {
        if is_master {
            lead(node, term)?;
        } else {
            storage::set_read_only(true)?;
            failpoint::reach("depose.read_only");
        }
        log::info!("mastership: this instance is {}", if is_master { "the master" } else { "a replica" });
        node.facts.changed.notify_all();
        node.storage_changed.notify_all();
    }
    // A new master, of a new replicaset too, may lack what was made while it was not the one to make it.
    schema_work::follow(node)?;
    router::install(&node.state(), &node.me.name, !space::is_read_only(), &node.pool)?;
    crate::moving::on_change(node, &node.state());
    Ok(())
}
