//! Whether this instance's rows are a part of its replicaset's history, and whom it may follow for that.
//!
//! An instance notes the last term whose master it followed or was. Before it follows the master of a later term it stops
//! following anybody, and compares its rows with what the changes of master since then have kept. When it has others it is
//! stray: it follows nobody, is never ready, and begins anew without data as soon as it has no vote (`anew`). At a start it
//! asks the others for the changes of master before it reads its rows (`history`, `start::early`).
//!
//! Following can also end because a row could not be read or applied. The host leaves it at that; here it is begun again, and
//! an instance that fails again and again begins anew too.

mod anew;
mod follow;
mod history;

use crate::host::{Deadline, Event, Exclusive, clock, failpoint, fiber};
use crate::node::Node;
use crate::raft::disk;
use crate::start::{self, folder, lua};
use boot::Followed;
use catalog::{Replicaset, State};
use model::{Code, Error, Result};
use replication::Kept;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use follow::follow_nobody;
pub use follow::{
    FENCE_DOOR, FOLLOW_DOOR, ROOM_DOOR, SPACE_OF_MEMBERS, fence_args, follow_args, make_room, numbers, serve_fence,
    serve_follow, serve_make_room,
};
pub use history::{HISTORY_DOOR, HistoryAnswer, HistoryRequest, serve_history};

/// How often following is begun again in a row, with which pause, before the instance begins anew.
const REPAIRS_MAX: u32 = 5;
const REPAIR_PAUSE_S: f64 = 0.5;
/// What the host says where there is no room for a row: a copy of all rows would not find any either.
const OUT_OF_ROOM: [&str; 2] = ["Failed to write to disk", "Failed to allocate"];
/// A pause after something went wrong.
const REST_S: f64 = 0.1;

pub struct Lineage {
    /// The last term whose master this instance followed or was.
    seen: Cell<u64>,
    /// Why its rows are not of the replicaset's history.
    stray: RefCell<Option<String>>,
    /// That is so because of what is in its log, which another life of the process would find too.
    has_tail: Cell<bool>,
    /// How many instances the catalog knew at its last change.
    members: Cell<usize>,
    /// What the note beside the storage says.
    followed: RefCell<Option<Followed>>,
    /// Changes of whom it follows.
    work: Rc<Exclusive>,
    /// Why following has ended, while it should go on; how often in a row that was, and when it is begun again.
    failure: RefCell<Option<String>>,
    repairs: Cell<u32>,
    repair_at_s: Cell<f64>,
    is_due: Cell<bool>,
    event: Event,
}

impl Lineage {
    /// Reads the note. `joined_in` is the term of the master that the data was copied from, if it was.
    pub fn open(joined_in: u64) -> Result<Self> {
        Ok(Self {
            seen: Cell::new(disk::read_mark(disk::SEEN_KEY)?.max(joined_in)),
            stray: RefCell::new(None),
            has_tail: Cell::new(false),
            members: Cell::new(0),
            followed: RefCell::new(None),
            work: Exclusive::new("another change of replication")?,
            failure: RefCell::new(None),
            repairs: Cell::new(0),
            repair_at_s: Cell::new(0.0),
            is_due: Cell::new(true),
            event: Event::new()?,
        })
    }

    pub fn is_stray(&self) -> bool {
        self.stray.borrow().is_some()
    }

    pub fn wake(&self) {
        self.is_due.set(true);
        self.event.notify_all();
    }

    /// How the link to the master is, seen with each report: it stands, or it has ended for good.
    pub fn saw_link(&self, stands: bool, failure: Option<&str>) {
        if stands {
            self.repairs.set(0);
            return;
        }
        if let Some(failure) = failure.filter(|_| clock::now_s() >= self.repair_at_s.get()) {
            self.repair_at_s.set(clock::now_s() + REPAIR_PAUSE_S);
            *self.failure.borrow_mut() = Some(failure.to_owned());
            self.wake();
        }
    }
}

/// Notes that this instance follows, or is, the master of a term; on disk before anything comes of it.
fn note(node: &Node, term: u64) -> Result<()> {
    let seen = &node.lineage.seen;
    if term > seen.get() {
        // The next start may know of a later term than the data does, not of an earlier one.
        keep_followed(node, term)?;
        disk::write_mark(disk::SEEN_KEY, term)?;
        seen.set(term);
    }
    Ok(())
}

/// Has the note beside the storage say this term, and where the other members are now. Where it can not be written there is
/// none: it is a shortcut of the next start.
fn keep_followed(node: &Node, term: u64) -> Result<()> {
    let state = node.state();
    let others = state.topology.instances.values().filter(|other| other.name != node.me.name && other.stays());
    let members = others.filter_map(|other| other.address.parse().ok()).collect();
    let followed = Followed { term: term.max(node.lineage.seen.get()), machine: start::machine()?, members };
    if node.lineage.followed.borrow().as_ref() == Some(&followed) {
        return Ok(());
    }
    // Not synced, so it takes no longer than the calls; once for each change of master.
    let path = start::data_folder()?;
    if let Err(error) = folder::keep_followed(&path, &followed) {
        log::warn!("lineage: {error}");
        *node.lineage.followed.borrow_mut() = None;
        return folder::forget_followed(&path);
    }
    *node.lineage.followed.borrow_mut() = Some(followed);
    Ok(())
}

/// Starts the fiber that looks for a tail when the replicaset has changed its master.
pub fn start(node: &'static Node) -> Result<()> {
    fiber::spawn("pico_lineage", move || {
        while !fiber::is_cancelled() {
            if let Err(error) = look(node) {
                log::error!("lineage: {error}");
                fiber::sleep(REST_S);
                continue;
            }
            if node.lineage.is_stray() {
                // Whether it has a vote changes without a change of the catalog.
                node.raft.changed.wait(Deadline::NEVER);
                continue;
            }
            while !node.lineage.is_due.replace(false) && !fiber::is_cancelled() {
                node.lineage.event.wait(Deadline::NEVER);
            }
        }
    })
    .map(drop)
}

/// The catalog changed.
pub fn on_change(node: &'static Node, state: &State) {
    let lineage = &node.lineage;
    let is_past = replicaset(node, state).is_some_and(|replicaset| replicaset.history.is_past(lineage.seen.get()));
    let members = state.topology.instances.len();
    if lineage.members.replace(members) != members || is_past {
        lineage.wake();
    }
}

/// Looks for a tail, and does what is to be done about one.
fn look(node: &'static Node) -> Result<()> {
    // Before the cluster has counted this life of the process, the catalog on disk may be long past.
    if node.facts.incarnation.get() == 0 {
        return Ok(());
    }
    if !node.lineage.is_stray() {
        node.lineage.work.run(Deadline::NEVER, || keep_followed(node, 0))?;
        repair(node)?;
    }
    if !node.lineage.is_stray() {
        match check(node) {
            // What is to be done about it follows.
            Err(error) if error.code == Code::Conflict => {}
            other => drop(other?),
        }
    }
    if node.lineage.is_stray() {
        node.lineage.work.run(Deadline::NEVER, || follow_nobody(node, 0))?;
        anew::begin_if_possible(node)?;
    }
    Ok(())
}

/// Begins to follow again where that has ended.
fn repair(node: &'static Node) -> Result<()> {
    let lineage = &node.lineage;
    let Some(failure) = lineage.failure.take() else { return Ok(()) };
    if !OUT_OF_ROOM.iter().any(|words| failure.contains(words)) {
        lineage.repairs.set(lineage.repairs.get() + 1);
    }
    if lineage.repairs.get() > REPAIRS_MAX {
        log::error!("picodata: this instance can not follow its master: {failure}; it begins anew");
        *lineage.stray.borrow_mut() = Some(failure);
        node.facts.changed.notify_all();
        return Ok(());
    }
    log::warn!("picodata: following the master has ended and is begun again: {failure}");
    lineage.work.run(Deadline::NEVER, || follow::again(node))
}

/// Answers the rows that are here, or refuses when they are not of the replicaset's history.
///
/// Errors: `Conflict` for a stray instance, which is known to be one from then on.
fn check(node: &Node) -> Result<Kept> {
    let kept = clock()?;
    let state = node.state();
    let Some(replicaset) = replicaset(node, &state) else { return Ok(kept) };
    let is_master = replicaset.master.as_ref() == Some(&node.me.name);
    let stray = replicaset.history.stray(node.lineage.seen.get(), &kept.clock);
    match stray.filter(|_| !is_master) {
        None => Ok(kept),
        Some(stray) => {
            if !node.lineage.is_stray() {
                log::error!("picodata: this instance has rows that nobody acknowledged: {stray}; it begins anew");
            }
            let reason = stray.to_string();
            *node.lineage.stray.borrow_mut() = Some(reason.clone());
            node.lineage.has_tail.set(true);
            node.facts.changed.notify_all();
            node.lineage.wake();
            Err(Error::new(Code::Conflict, format!("instance \"{}\" is stray: {reason}", node.me.name)))
        }
    }
}

fn replicaset<'a>(node: &Node, state: &'a State) -> Option<&'a Replicaset> {
    let record = state.topology.instances.get(&node.me.name)?;
    state.topology.replicasets.get(&record.replicaset)
}

/// This instance's number, and the rows that it has.
fn clock() -> Result<Kept> {
    let answer = lua::call("clock", &[0x90])?;
    let (number, clock) =
        rmp_serde::from_slice(&answer).map_err(|e| Error::internal(format!("box.info.vclock: {e}")))?;
    Ok(Kept::new(number, clock))
}

/// This instance is to take writes as the master of a term: it follows nobody, and notes the term first.
pub fn lead(node: &Node, term: u64) -> Result<()> {
    node.lineage.work.run(Deadline::NEVER, || {
        failpoint::reach("lead.begins");
        follow_nobody(node, term)?;
        note(node, term)?;
        failpoint::reach("lead.noted");
        Ok(())
    })
}
