//! Writes are answered when every member in sync has them in its log.
//!
//! The master commits first and then waits; the host's appliers acknowledge each write after their own log has it. Who
//! is in sync stands in the catalog, so the set shrinks and grows by Raft only. A follower that the governor is told of
//! as keeping up is waited for from that moment on, before it is counted in; the promise ends when anything about the
//! follower changes in the catalog, and the catalog counts nobody in on a promise that has ended.
//!
//! A row can be read before it is acknowledged, and before it is in the log. Whoever read such a row waits with the answer
//! until it can not be lost any more (`settle`).
//!
//! A write that is not acknowledged in time, or not before another master takes over, is in this master's log all the
//! same, so its outcome is unknown.

use crate::host::{Deadline, Event, Waiter, clock, failpoint, fiber, relays, turn};
use crate::lineage;
use crate::node::Node;
use crate::raft::disk;
use crate::start::lua;
use crate::storage::truncation;
use catalog::{Instance, Replicaset, Setting, State};
use model::{Code, Error, InstanceName, Result};
use replication::{Follower, Promises};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::{Rc, Weak};

/// How often Lua is asked where the host's clocks can not be read.
const POLL_S: f64 = 0.001;
/// A member without a number has never followed anybody, so it has nothing.
const NO_NUMBER: u32 = u32::MAX;

thread_local! {
    static ACKS: OnceCell<&'static Acks> = const { OnceCell::new() };
}

/// A fiber that waits until all members have `target` rows of this instance.
struct Waiting {
    target: u64,
    waiter: Waiter,
    since_s: f64,
    is_write: bool,
    /// Another master is to take over.
    is_deposed: Cell<bool>,
}

/// Commits of which some are on their way to the log.
struct Commits {
    last: Cell<u64>,
    underway: RefCell<BTreeSet<u64>>,
    /// Fires when one ended that somebody waits for.
    ended: Event,
    awaited: Cell<usize>,
    /// Users' functions that run and commit by themselves, unseen.
    functions: Cell<usize>,
}

struct Acks {
    /// The members to wait for, by name, with their numbers: in sync, or promised to the governor.
    required: RefCell<BTreeMap<InstanceName, u32>>,
    promised: RefCell<Promises<InstanceName>>,
    /// In the order of their targets, because commits end in the order of the log.
    waiting: RefCell<VecDeque<Weak<Waiting>>>,
    timeout_ms: Cell<u64>,
    /// Others are in sync and this instance is not their master.
    is_deposed: Cell<bool>,
    /// As such: how many of its rows all members in sync had when their master took over.
    shared: Cell<u64>,
    /// How many members are in sync, and how many have to be for writes to be taken.
    in_sync: Cell<(usize, usize)>,
    /// What had been written when that was looked at last, and when; it is looked at again once all have it.
    seen: Cell<(u64, f64)>,
    /// The term that this instance was the master of last.
    led: Cell<u64>,
    /// What had been written at the last report in which a follower lagged.
    nudged: Cell<u64>,
}

thread_local! {
    static COMMITS: OnceCell<&'static Commits> = const { OnceCell::new() };
}

fn commits() -> Result<&'static Commits> {
    COMMITS.with(|cell| match cell.get() {
        Some(commits) => Ok(*commits),
        None => {
            let (last, underway) = (Cell::default(), RefCell::default());
            let (awaited, functions) = (Cell::default(), Cell::default());
            let commits = Commits { last, underway, ended: Event::new()?, awaited, functions };
            Ok(*cell.get_or_init(|| Box::leak(Box::new(commits))))
        }
    })
}

/// A commit that may not be in the log yet; until it is dropped.
pub struct Commit {
    commits: &'static Commits,
    number: u64,
}

/// A commit begins. Errors: `Storage` when there is no memory.
pub fn begin_commit() -> Result<Commit> {
    let commits = commits()?;
    let number = commits.last.get() + 1;
    commits.last.set(number);
    commits.underway.borrow_mut().insert(number);
    Ok(Commit { commits, number })
}

/// A user's function that may commit; until it is dropped.
pub struct Function {
    commits: &'static Commits,
}

/// A function that may commit begins. Errors: `Storage` when there is no memory.
pub fn begin_function() -> Result<Function> {
    let commits = commits()?;
    commits.functions.set(commits.functions.get() + 1);
    Ok(Function { commits })
}

impl Drop for Function {
    fn drop(&mut self) {
        self.commits.functions.set(self.commits.functions.get() - 1);
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        self.commits.underway.borrow_mut().remove(&self.number);
        if self.commits.awaited.get() > 0 {
            self.commits.ended.notify_all();
        }
    }
}

/// Waits until all that could be read here just now is in the logs of all members in sync. Yields, unless it is.
///
/// Errors: `Timeout` when it is not after `ack_timeout_ms`.
pub fn settle() -> Result<()> {
    let commits = commits()?;
    let last = commits.last.get();
    let is_logged = || commits.underway.borrow().first().is_none_or(|first| *first > last);
    if !is_logged() {
        let deadline = Deadline::after_ms(acks().timeout_ms.get());
        commits.awaited.set(commits.awaited.get() + 1);
        let waited = commits.ended.wait_until(deadline, "rows to be in the log", || is_logged().then_some(()));
        commits.awaited.set(commits.awaited.get() - 1);
        waited?;
    }
    if commits.functions.get() > 0 {
        // Passes through the log behind whatever they have committed.
        disk::write_mark(disk::BARRIER_KEY, 0)?;
    }
    wait(false).map_err(|error| match error.code {
        Code::Unknown => Error::new(
            Code::Timeout,
            "what was read is not in the logs of all members in sync yet, and could be lost with this master",
        ),
        _ => error,
    })
}

fn acks() -> &'static Acks {
    ACKS.with(|cell| {
        *cell.get_or_init(|| {
            turn::each(wake_acknowledged);
            Box::leak(Box::new(Acks {
                required: RefCell::default(),
                promised: RefCell::default(),
                waiting: RefCell::default(),
                timeout_ms: Cell::new(0),
                is_deposed: Cell::new(false),
                shared: Cell::new(0),
                in_sync: Cell::new((0, 0)),
                seen: Cell::new((0, 0.0)),
                led: Cell::new(0),
                nudged: Cell::new(u64::MAX),
            }))
        })
    })
}

/// Takes over what the catalog says.
pub fn on_change(node: &'static Node, state: &State) {
    let acks = acks();
    acks.timeout_ms.set(state.settings.count(Setting::AckTimeoutMs) as u64);
    let Some(me) = state.topology.instances.get(&node.me.name) else { return };
    let Some(replicaset) = state.topology.replicasets.get(&me.replicaset) else { return };
    acks.in_sync.set((replicaset.in_sync.len(), state.settings.count(Setting::MinInSync)));
    let is_master = replicaset.master.as_ref() == Some(&me.name);
    // While a term has no master, members that still follow this one acknowledge what they have, and keep it: whoever
    // becomes master is one of them.
    acks.is_deposed.set(!is_master && replicaset.master.is_some());
    if !is_master {
        acks.promised.borrow_mut().clear();
    } else if acks.led.replace(replicaset.master_term) != replicaset.master_term {
        // Its followers have had no time yet to acknowledge anything.
        acks.seen.set((written(), clock::now_s()));
    }
    if acks.is_deposed.get() {
        acks.shared.set(shared(node, replicaset));
        acks.let_go();
    }
    acks.promised.borrow_mut().retain(|name, version| {
        let holds = |instance: &Instance| instance.is_online() && instance.version == version;
        !replicaset.in_sync.contains(name) && state.topology.instances.get(name).is_some_and(holds)
    });
    let mut members: BTreeSet<InstanceName> = replicaset.in_sync.clone();
    members.extend(acks.promised.borrow().names().cloned());
    members.remove(&me.name);
    acks.require(state, &members);
    acks.wake(false);
}

/// How many rows of this instance all members in sync had when the present master took over.
fn shared(node: &Node, replicaset: &Replicaset) -> u64 {
    let numbers = lineage::numbers().unwrap_or_default();
    let mine = numbers.iter().find(|(_, uuid)| *uuid == node.me.uuid).map_or(0, |(number, _)| *number);
    replicaset.history.last().map_or(0, |cut| cut.kept.shared.get(mine))
}

/// Which of these followers can be counted in, with the versions of their records: from now on no write is acknowledged
/// without them, they have all that was written before, and no rows that are not here.
pub fn promise(state: &State, followers: Vec<&Instance>) -> BTreeMap<InstanceName, u64> {
    let acks = acks();
    let numbers = lineage::numbers().unwrap_or_default();
    // Nobody waits for those that still lack what others wrote before.
    let lacks = |follower: &Instance| {
        let number = numbers.iter().find(|(_, uuid)| *uuid == follower.uuid);
        number.is_some_and(|(number, _)| relays::lacks_older_rows(*number) == Some(true))
    };
    let followers: Vec<&Instance> = followers.into_iter().filter(|follower| !lacks(follower)).collect();
    acks.make_promises(&followers, &numbers);
    let mut members: BTreeSet<InstanceName> = acks.required.borrow().keys().cloned().collect();
    members.extend(acks.promised.borrow().names().cloned());
    acks.require(state, &members);
    let (promised, required) = (acks.promised.borrow(), acks.required.borrow());
    let positions = positions(required.values().copied());
    let keeps_up = |follower: &&Instance| {
        let Some(id) = required.get(&follower.name) else { return false };
        let has_all = positions.get(id).is_some_and(|position| promised.is_kept_up(&follower.name, *position));
        has_all && relays::is_beyond(*id) != Some(true)
    };
    followers.into_iter().filter(keeps_up).map(|follower| (follower.name.clone(), follower.version)).collect()
}

/// The members that have not acknowledged for so long what this instance had written, whether or not somebody waits for it.
pub fn stuck(after_ms: u64) -> BTreeSet<InstanceName> {
    let acks = acks();
    let is_late = |since_s: f64| (clock::now_s() - since_s) * 1e3 >= after_ms as f64;
    let oldest = acks.waiting.borrow().iter().find_map(Weak::upgrade).map(|waiting| (waiting.target, waiting.since_s));
    let (seen, since_s) = acks.seen.get();
    if acks.acknowledged() >= seen {
        acks.seen.set((written(), clock::now_s()));
    }
    let late = oldest.into_iter().chain([(seen, since_s)]).find(|(_, since_s)| is_late(*since_s));
    late.map(|(target, _)| acks.missing(target).into_iter().collect()).unwrap_or_default()
}

/// Has followers heard that are where they had been before: the host keeps back a position that equals the last one that it
/// passed on from the connection before, so nothing is heard of a follower that has lost rows and caught up again, until
/// something is written. Called with each report while some follower lags; writes a row when nobody else does.
pub fn nudge(term: u64) {
    let written = written();
    if acks().nudged.replace(written) != written {
        return;
    }
    let nudged = fiber::spawn("pico_nudge", move || {
        if let Err(error) = truncation::begin_term(term) {
            log::warn!("replication: no row to make followers heard: {error}");
        }
    });
    if let Err(error) = nudged {
        log::warn!("replication: no fiber to make followers heard: {error}");
    }
}

/// Whether a write may begin.
///
/// Errors: `TooFewInSync`.
pub fn check_in_sync() -> Result<()> {
    let (now, wanted) = acks().in_sync.get();
    if now >= wanted {
        return Ok(());
    }
    let message = format!("the replicaset has {now} members in sync, and min_in_sync wants {wanted} to have a write");
    Err(Error::new(Code::TooFewInSync, message).with_hint("writes go on when a replica has caught up"))
}

/// Waits until every member in sync, and as many as `min_in_sync` wants, have all that this instance has written so far.
/// Yields, unless they have it.
///
/// Errors: `Unknown` when they do not in `ack_timeout_ms`.
pub fn await_in_sync() -> Result<()> {
    wait(true)
}

/// `is_write`: the members in sync may have become too few for a write since it began; what is read is as safe as it can be.
fn wait(is_write: bool) -> Result<()> {
    let acks = acks();
    if acks.is_deposed.get() {
        return acks.check_shared(written());
    }
    if acks.required.borrow().is_empty() && acks.are_enough(is_write) {
        return Ok(());
    }
    failpoint::reach("ack.waiting");
    let target = written();
    let is_reached = || acks.acknowledged() >= target && acks.are_enough(is_write);
    if is_reached() {
        return Ok(());
    }
    let (waiter, since_s, is_deposed) = (Waiter::new(), clock::now_s(), Cell::new(false));
    let waiting = Rc::new(Waiting { target, waiter, since_s, is_write, is_deposed });
    acks.waiting.borrow_mut().push_back(Rc::downgrade(&waiting));
    let deadline = Deadline::after_ms(acks.timeout_ms.get());
    if relays::written().is_some() {
        waiting.waiter.park(deadline);
    } else {
        let is_over = || deadline.has_passed() || waiting.is_deposed.get() || fiber::is_cancelled();
        while !is_reached() && !is_over() {
            fiber::sleep(POLL_S);
        }
    }
    if waiting.is_deposed.get() {
        return acks.check_shared(target);
    }
    if is_reached() {
        failpoint::reach("ack.reached");
        return Ok(());
    }
    let missing: Vec<String> = acks.missing(target).iter().map(ToString::to_string).collect();
    let who = if missing.is_empty() { "as many members as min_in_sync wants".into() } else { missing.join(", ") };
    let message = format!(
        "the write is in this master's log, but {who} did not acknowledge it within {} ms: it may be lost if the master is",
        acks.timeout_ms.get()
    );
    Err(Error::new(Code::Unknown, message).with_hint("read before you write it again"))
}

/// Once a turn of the loop: an acknowledgement wakes the loop, so none is missed.
fn wake_acknowledged() {
    ACKS.with(|cell| {
        if let Some(acks) = cell.get()
            && !acks.waiting.borrow().is_empty()
        {
            acks.wake(true);
        }
    });
}

impl Acks {
    fn require(&self, state: &State, members: &BTreeSet<InstanceName>) {
        let numbers = lineage::numbers().unwrap_or_else(|error| {
            log::error!("the members' numbers can not be read: {error}");
            Vec::new()
        });
        let number = |name: &InstanceName| {
            let uuid = state.topology.instances.get(name).map(|instance| instance.uuid.as_str());
            let found = numbers.iter().find(|(_, of)| Some(of.as_str()) == uuid);
            found.map_or(NO_NUMBER, |(number, _)| *number)
        };
        *self.required.borrow_mut() = members.iter().map(|name| (name.clone(), number(name))).collect();
    }

    /// Promises to wait from now on for the followers that keep up.
    fn make_promises(&self, followers: &[&Instance], numbers: &[(u32, String)]) {
        let written = written();
        let as_seen = |follower: &&Instance| {
            let number = numbers.iter().find(|(_, uuid)| *uuid == follower.uuid).map(|(number, _)| *number);
            let position = number.map(|number| positions(std::iter::once(number)).get(&number).copied().unwrap_or(0));
            Follower { name: follower.name.clone(), version: follower.version, position }
        };
        let followers: Vec<Follower<InstanceName>> = followers.iter().map(as_seen).collect();
        let required = self.required.borrow();
        failpoint::reach("ack.promising");
        self.promised.borrow_mut().give(&followers, written, |name| required.contains_key(name));
    }

    /// How many rows of this instance all members have that are waited for.
    fn acknowledged(&self) -> u64 {
        let required = self.required.borrow();
        if relays::written().is_some() {
            return required.values().map(|id| relays::acknowledged(*id)).min().unwrap_or(u64::MAX);
        }
        let positions = positions(required.values().copied());
        required.values().map(|id| positions.get(id).copied().unwrap_or(0)).min().unwrap_or(u64::MAX)
    }

    /// Whether so many rows of this instance, which is the master no more, were in the logs of all members in sync. Errors:
    /// `Unknown`.
    fn check_shared(&self, target: u64) -> Result<()> {
        if target <= self.shared.get() {
            return Ok(());
        }
        let message = "the write is in this instance's log, but another master is taking over: it may be lost";
        Err(Error::new(Code::Unknown, message).with_hint("read before you write it again"))
    }

    fn missing(&self, target: u64) -> Vec<InstanceName> {
        let required = self.required.borrow();
        let positions = positions(required.values().copied());
        let lacks = |id: &u32| positions.get(id).copied().unwrap_or(0) < target;
        required.iter().filter(|(_, id)| lacks(id)).map(|(name, _)| name.clone()).collect()
    }

    /// Lets everybody go who waits: others decide now what is kept.
    fn let_go(&self) {
        for waiting in self.waiting.borrow_mut().drain(..).filter_map(|waiting| waiting.upgrade()) {
            waiting.is_deposed.set(true);
            waiting.waiter.wake();
        }
    }

    /// Whether the members in sync are enough to answer a write, or this is none.
    fn are_enough(&self, is_write: bool) -> bool {
        let (now, wanted) = self.in_sync.get();
        !is_write || now >= wanted
    }

    /// Wakes those whose target is reached. Where clocks can not be read, they look by themselves.
    fn wake(&self, may_poll: bool) {
        if relays::written().is_none() && may_poll {
            return;
        }
        let acknowledged = self.acknowledged();
        let mut waiting = self.waiting.borrow_mut();
        if !self.are_enough(true) {
            let waits = |one: &Rc<Waiting>| one.is_write || one.target > acknowledged;
            waiting.retain(|one| {
                one.upgrade().is_some_and(|one| {
                    waits(&one) || {
                        one.waiter.wake();
                        false
                    }
                })
            });
            return;
        }
        while let Some(first) = waiting.front() {
            match first.upgrade() {
                Some(first) if first.target > acknowledged => break,
                Some(first) => first.waiter.wake(),
                None => {}
            }
            waiting.pop_front();
        }
    }
}

/// How many rows this instance has written of its own.
fn written() -> u64 {
    relays::written().unwrap_or_else(|| told_by_lua().get(&0).copied().unwrap_or(u64::MAX))
}

fn positions(ids: impl Iterator<Item = u32>) -> BTreeMap<u32, u64> {
    if relays::written().is_some() { ids.map(|id| (id, relays::acknowledged(id))).collect() } else { told_by_lua() }
}

fn told_by_lua() -> BTreeMap<u32, u64> {
    let answer = lua::call("acknowledged", &[0x90]);
    let positions = answer.and_then(|bytes| {
        rmp_serde::from_slice(&bytes).map_err(|e| Error::internal(format!("positions of replication: {e}")))
    });
    positions.unwrap_or_else(|error| {
        log::error!("{error}");
        BTreeMap::new()
    })
}
