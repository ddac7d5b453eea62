//! Writes are answered when every member in sync has them in its log.
//!
//! The master commits first and then waits; the host's appliers acknowledge each write after their own log has it. Who
//! is in sync stands in the catalog, so the set shrinks and grows by Raft only. A follower that the governor is told of
//! as keeping up is waited for from that moment on, before it is counted in.
//!
//! A write that is not acknowledged in time is in this master's log all the same, so its outcome is unknown.

use crate::host::{Deadline, Space, Waiter, fiber, relays, turn};
use crate::node::Node;
use crate::start::lua;
use catalog::{Setting, State};
use model::msgpack::Reader;
use model::{Code, Error, InstanceName, Result};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::{Rc, Weak};

/// The space in which the host numbers the members of a replicaset.
const SPACE_OF_MEMBERS: Space = Space(320);
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
}

struct Acks {
    /// The members to wait for, by name, with their numbers: in sync, or promised to the governor.
    required: RefCell<BTreeMap<InstanceName, u32>>,
    /// Followers that will be counted in, with the position that they must have reached for it.
    promised: RefCell<BTreeMap<InstanceName, u64>>,
    /// In the order of their targets, because commits end in the order of the log.
    waiting: RefCell<VecDeque<Weak<Waiting>>>,
    timeout_ms: Cell<u64>,
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
    if replicaset.master.as_ref() != Some(&me.name) {
        acks.promised.borrow_mut().clear();
    }
    // An instance that is offline is not counted in: the catalog refuses it.
    acks.promised.borrow_mut().retain(|name, _| {
        !replicaset.in_sync.contains(name) && state.topology.instances.get(name).is_some_and(|i| i.is_online())
    });
    let mut members: BTreeSet<InstanceName> = replicaset.in_sync.clone();
    members.extend(acks.promised.borrow().keys().cloned());
    members.remove(&me.name);
    acks.require(state, &members);
    acks.wake(false);
}

/// Which of these followers can be counted in: from now on no write is acknowledged without them, and they have all that
/// was written before.
pub fn promise(state: &State, followers: BTreeSet<InstanceName>) -> BTreeSet<InstanceName> {
    let acks = acks();
    let written = written();
    {
        let (mut promised, required) = (acks.promised.borrow_mut(), acks.required.borrow());
        for name in followers.iter().filter(|name| !required.contains_key(*name)) {
            promised.insert(name.clone(), written);
        }
    }
    let mut members: BTreeSet<InstanceName> = acks.required.borrow().keys().cloned().collect();
    members.extend(acks.promised.borrow().keys().cloned());
    acks.require(state, &members);
    let (promised, required) = (acks.promised.borrow(), acks.required.borrow());
    let positions = positions(required.values().copied());
    let has_reached = |name: &InstanceName| {
        let floor = promised.get(name).copied().unwrap_or(0);
        required.get(name).and_then(|id| positions.get(id)).is_some_and(|position| *position >= floor)
    };
    followers.into_iter().filter(has_reached).collect()
}

/// Waits until every member in sync has all that this instance has written so far. Yields, unless they have it.
///
/// Errors: `Unknown` when they do not in `ack_timeout_ms`.
pub fn await_in_sync() -> Result<()> {
    let acks = acks();
    if acks.required.borrow().is_empty() {
        return Ok(());
    }
    let target = written();
    if acks.acknowledged() >= target {
        return Ok(());
    }
    let waiting = Rc::new(Waiting { target, waiter: Waiter::new() });
    acks.waiting.borrow_mut().push_back(Rc::downgrade(&waiting));
    let deadline = Deadline::after_ms(acks.timeout_ms.get());
    if relays::written().is_some() {
        waiting.waiter.park(deadline);
    } else {
        while acks.acknowledged() < target && !deadline.has_passed() && !fiber::is_cancelled() {
            fiber::sleep(POLL_S);
        }
    }
    if acks.acknowledged() >= target {
        return Ok(());
    }
    let missing: Vec<String> = acks.missing(target).iter().map(ToString::to_string).collect();
    let message = format!(
        "the write is in this master's log, but {} did not acknowledge it within {} ms: it may be lost if the master is",
        missing.join(", "),
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
        let numbers = numbers().unwrap_or_else(|error| {
            log::error!("the members' numbers can not be read: {error}");
            BTreeMap::new()
        });
        let number = |name: &InstanceName| {
            let uuid = state.topology.instances.get(name).map(|instance| instance.uuid.as_str());
            uuid.and_then(|uuid| numbers.get(uuid)).copied().unwrap_or(NO_NUMBER)
        };
        *self.required.borrow_mut() = members.iter().map(|name| (name.clone(), number(name))).collect();
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

    fn missing(&self, target: u64) -> Vec<InstanceName> {
        let required = self.required.borrow();
        let positions = positions(required.values().copied());
        let lacks = |id: &u32| positions.get(id).copied().unwrap_or(0) < target;
        required.iter().filter(|(_, id)| lacks(id)).map(|(name, _)| name.clone()).collect()
    }

    /// Wakes those whose target is reached. Where clocks can not be read, they look by themselves.
    fn wake(&self, may_poll: bool) {
        if relays::written().is_none() && may_poll {
            return;
        }
        let acknowledged = self.acknowledged();
        let mut waiting = self.waiting.borrow_mut();
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

/// The host's numbers of the members, by UUID.
fn numbers() -> Result<BTreeMap<String, u32>> {
    let mut walk = SPACE_OF_MEMBERS.iterate(0, crate::host::IteratorKind::All, &[0x90])?;
    let (mut numbers, mut tuple) = (BTreeMap::new(), Vec::new());
    while walk.copy_next(&mut tuple)? {
        let mut reader = Reader::new(&tuple);
        reader.array_len()?;
        let id = u32::try_from(reader.uint()?).unwrap_or(NO_NUMBER);
        numbers.insert(reader.str()?.to_owned(), id);
        tuple.clear();
    }
    Ok(numbers)
}
