//! The governor at work: on the Raft leader, one fiber looks at the cluster, asks the governor room for the next step,
//! and has it carried out.
//!
//! It keeps nothing that matters: the next leader begins by asking everybody again.

mod observer;
mod steps;

use crate::host::{Deadline, Event, clock, failpoint, fiber};
use crate::node::{self, Node};
use catalog::{MoveId, SchemaId};
use governor::{Raft, View};
use model::{Code, InstanceName, Result};
use observer::Observer;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub use steps::{ask, serve_apply_schema};

/// The name of the door that other leaders knock on.
pub const SCHEMA_DOOR: &str = "picodata.peer.apply_schema";

/// Silence grows without an event, so the governor looks again after this; sooner while a lease is waited for.
const LOOK_MS: u64 = 50;
const LOOK_SOON_MS: u64 = 5;
/// Who has not looked for so long stood still.
const STOOD_STILL_MS: u64 = 2 * LOOK_MS;
/// How often a majority is asked to confirm that this leader still leads, on which leases depend.
const ROUND_MS: u64 = 50;
/// How long it may take to do so.
const ROUND_TIMEOUT_MS: u64 = 500;
/// A step that failed rests for this long.
const REST_S: f64 = 0.25;

thread_local! {
    static WAKEUP: RefCell<Option<Rc<Event>>> = const { RefCell::new(None) };
}

/// Starts the fiber.
pub fn start(node: &'static Node) -> Result<()> {
    let wakeup = Rc::new(Event::new()?);
    WAKEUP.with_borrow_mut(|slot| *slot = Some(Rc::clone(&wakeup)));
    fiber::spawn("pico_governor", move || {
        while !fiber::is_cancelled() {
            if node.raft.is_leader() {
                Term::new(node, Rc::clone(&wakeup)).govern();
            } else {
                node.raft.changed.wait(Deadline::NEVER);
            }
        }
    })
    .map(drop)
}

/// The catalog changed.
pub fn on_change() {
    WAKEUP.with_borrow(|slot| {
        if let Some(wakeup) = slot {
            wakeup.notify_all();
        }
    });
}

/// One term in office.
struct Term {
    node: &'static Node,
    wakeup: Rc<Event>,
    number: u64,
    /// When the last round began that confirmed this leader, in nanoseconds.
    round_ns: Rc<Cell<u64>>,
    observers: BTreeMap<InstanceName, Rc<Observer>>,
    /// Steps under way, and those that rest until the time given.
    busy: Rc<RefCell<BTreeMap<String, f64>>>,
    pending_since: Option<(SchemaId, f64)>,
    moves_since: BTreeMap<MoveId, f64>,
    /// When this leader last looked at the cluster.
    looked_s: f64,
}

impl Term {
    fn new(node: &'static Node, wakeup: Rc<Event>) -> Self {
        Self {
            node,
            wakeup,
            number: node.raft.status().term,
            round_ns: Rc::default(),
            observers: BTreeMap::new(),
            busy: Rc::default(),
            pending_since: None,
            moves_since: BTreeMap::new(),
            looked_s: clock::now_s(),
        }
    }

    fn is_over(&self) -> bool {
        is_over(self.node, self.number)
    }

    /// Starts the fiber that has this leader confirmed again and again.
    fn start_rounds(&self) -> Result<()> {
        let (node, number, round_ns) = (self.node, self.number, Rc::clone(&self.round_ns));
        let rounds = move || {
            while !is_over(node, number) && !fiber::is_cancelled() {
                let began_ns = clock::precise_ns();
                let is_confirmed = node.raft.catch_up(Deadline::after_ms(ROUND_TIMEOUT_MS)).is_ok();
                // A leader of this very term at both ends led it all the while: nobody else was asked.
                if is_confirmed && !is_over(node, number) {
                    round_ns.set(began_ns);
                }
                fiber::sleep(ROUND_MS as f64 / 1e3);
            }
        };
        fiber::spawn("pico_rounds", rounds).map(drop)
    }

    fn govern(mut self) {
        log::info!("governor: in office for term {}", self.number);
        failpoint::reach("governor.in_office");
        // What was committed before this term must be known before anything is planned.
        if self.node.raft.catch_up(Deadline::after_ms(10_000)).is_err() {
            return;
        }
        if let Err(error) = self.start_rounds() {
            log::error!("governor: no leases can be granted: {error}");
        }
        while !self.is_over() && !fiber::is_cancelled() {
            self.watch_instances();
            if let Some(action) = self.plan() {
                let key = action.step.key();
                let changes_catalog = matches!(action.step, governor::Step::Propose(_));
                let level = if changes_catalog { log::Level::Info } else { log::Level::Debug };
                log::log!(level, "governor: {}: {key}", action.rule);
                self.busy.borrow_mut().insert(key, f64::INFINITY);
                self.carry_out(action);
                continue;
            }
            let state = self.node.state();
            let is_waiting = state.topology.replicasets.values().any(|replicaset| replicaset.deposed.is_some());
            self.wakeup.wait(Deadline::after_ms(if is_waiting { LOOK_SOON_MS } else { LOOK_MS }));
        }
        self.observers.values().for_each(|observer| observer.stop());
        log::info!("governor: out of office");
    }

    /// Everybody who is in the catalog is observed, everybody else is not.
    fn watch_instances(&mut self) {
        let state = self.node.state();
        let wanted: BTreeMap<&InstanceName, &str> = state
            .topology
            .instances
            .values()
            .filter(|instance| instance.state != catalog::InstanceState::Expelled)
            .map(|instance| (&instance.name, instance.address.as_str()))
            .collect();
        self.observers.retain(|name, observer| {
            let stays = wanted.get(name) == Some(&observer.address.as_str()) && observer.is_running();
            if !stays {
                observer.stop();
            }
            stays
        });
        for (name, address) in wanted {
            if self.observers.contains_key(name) {
                continue;
            }
            match Observer::start(self.node, name, address, (Rc::clone(&self.wakeup), Rc::clone(&self.round_ns))) {
                Ok(observer) => {
                    self.observers.insert(name.clone(), observer);
                }
                Err(error) => log::warn!("governor: {name} can not be observed: {error}"),
            }
        }
    }

    fn plan(&mut self) -> Option<governor::Action> {
        let state = self.node.state();
        let status = self.node.raft.status();
        let now_s = clock::now_s();
        // While this process stood still it heard nobody: that is not the others' silence.
        let stood_still_s = now_s - std::mem::replace(&mut self.looked_s, now_s);
        if stood_still_s > STOOD_STILL_MS as f64 / 1e3 {
            self.observers.values().for_each(|observer| observer.excuse(stood_still_s, now_s));
        }
        let since_ms = |since_s: f64| ((now_s - since_s).max(0.0) * 1e3) as u64;
        let pending = state.schema.pending.as_ref().map(|pending| pending.id);
        if self.pending_since.map(|(id, _)| id) != pending {
            self.pending_since = pending.map(|id| (id, now_s));
        }
        self.moves_since.retain(|id, _| state.placement.moves.contains_key(id));
        for id in state.placement.moves.keys() {
            self.moves_since.entry(*id).or_insert(now_s);
        }
        self.busy.borrow_mut().retain(|_, until_s| *until_s > now_s);
        let busy: BTreeSet<String> = self.busy.borrow().keys().cloned().collect();
        let lease_ms = observer::lease_ms(self.node);
        let observed = |observer: &Observer| observer.observed(now_s, lease_ms);
        let view = View {
            state: &state,
            raft: Raft {
                leader: self.node.me.raft_id,
                voters: status.membership.voters.iter().copied().collect(),
                learners: status.membership.learners.iter().copied().collect(),
                is_joint: status.membership.is_joint(),
            },
            instances: self.observers.iter().map(|(name, observer)| (name.clone(), observed(observer))).collect(),
            pending_ms: self.pending_since.map_or(0, |(_, since_s)| since_ms(since_s)),
            moves_ms: self.moves_since.iter().map(|(id, since_s)| (*id, since_ms(*since_s))).collect(),
            busy,
        };
        governor::plan(&view)
    }

    /// Carries a step out on a fiber of its own, so that a slow one does not hold up others.
    fn carry_out(&self, action: governor::Action) {
        let key = action.step.key();
        let (node, busy, wakeup) = (self.node, Rc::clone(&self.busy), Rc::clone(&self.wakeup));
        let (rested_key, rested) = (key.clone(), Rc::clone(&self.busy));
        let spawned = fiber::spawn("pico_step", move || {
            failpoint::reach("governor.step_begins");
            let result = steps::carry_out(node, &action.step);
            failpoint::reach("governor.step_done");
            let until_s = match &result {
                Ok(()) => clock::now_s(),
                Err(error) => {
                    // What was planned on is past: the next plan looks again.
                    let level = if error.code == Code::Conflict { log::Level::Info } else { log::Level::Warn };
                    log::log!(level, "governor: {}: {key}: {error}", action.rule);
                    clock::now_s() + REST_S
                }
            };
            busy.borrow_mut().insert(key, until_s);
            wakeup.notify_all();
        });
        if let Err(error) = spawned {
            log::warn!("governor: no fiber for a step: {error}");
            rested.borrow_mut().insert(rested_key, clock::now_s() + REST_S);
        }
    }
}

/// Whether this instance does not lead Raft in this term any more.
fn is_over(node: &Node, term: u64) -> bool {
    let status = node.raft.status();
    !node.raft.is_leader() || status.term != term
}

/// The node, for doors of this room.
fn node() -> Result<&'static Node> {
    node::get()
}
