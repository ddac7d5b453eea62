//! One instance under observation: a fiber asks it for its report as long as this leader is in office.

use crate::facts::{self, PING_MS, Report};
use crate::host::fiber::FiberHandle;
use crate::host::{Deadline, Event, clock, fiber};
use crate::lease;
use crate::net::{CallError, Socket};
use crate::node::Node;
use crate::start::join::{decode, encode};
use boot::Address;
use catalog::{Instance, Setting};
use governor::{Fenced, Follows, InStep, Observed, SchemaReport};
use model::msgpack::Reader;
use model::{InstanceName, Result};
use replication::lease::Grants;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// An answer may take this much longer than a ping.
const GRACE_MS: u64 = 400;
/// How soon an instance that could not be reached is asked again.
const RETRY_MS: u64 = 50;

/// How long a machine may take to say that nobody listens.
const PROBE_MS: u64 = 200;

const NS_IN_MS: u64 = 1_000_000;

/// How long leases are, in milliseconds.
pub fn lease_ms(node: &Node) -> u64 {
    node.state().settings.count(Setting::LeaseMs) as u64
}

pub struct Observer {
    name: InstanceName,
    pub address: String,
    /// When the observation began, in nanoseconds. What was granted before counts as granted then.
    since_ns: u64,
    report: RefCell<Option<Report>>,
    heard_s: Cell<f64>,
    /// Nobody listens at its address: no need to wait for more silence.
    is_gone: Cell<bool>,
    /// Its process has ended: it closed its connection, and nobody listens in its place. It has no lease.
    is_dead: Cell<bool>,
    grants: RefCell<Grants>,
    /// When the last round began that confirmed this leader, in nanoseconds.
    round_ns: Rc<Cell<u64>>,
    fiber: RefCell<Option<FiberHandle>>,
}

impl Observer {
    pub fn start(
        node: &'static Node,
        name: &InstanceName,
        address: &str,
        (wakeup, round_ns): (Rc<Event>, Rc<Cell<u64>>),
    ) -> Result<Rc<Self>> {
        let observer = Rc::new(Self {
            name: name.clone(),
            since_ns: clock::precise_ns(),
            address: address.to_owned(),
            report: RefCell::new(None),
            heard_s: Cell::new(clock::now_s()),
            is_gone: Cell::new(false),
            is_dead: Cell::new(false),
            grants: RefCell::default(),
            round_ns,
            fiber: RefCell::new(None),
        });
        let is_me = *name == node.me.name;
        let target: Address = address.parse()?;
        let theirs = Rc::clone(&observer);
        let handle = fiber::spawn("pico_observer", move || {
            while !fiber::is_cancelled() {
                let asked = if is_me { theirs.look(node) } else { theirs.ask(node, &target) };
                match asked {
                    Ok(true) => wakeup.notify_all(),
                    Ok(false) => {}
                    Err(_) => {
                        theirs.probe(node, is_me);
                        if theirs.is_gone.get() {
                            wakeup.notify_all();
                        }
                        fiber::sleep(RETRY_MS as f64 / 1e3);
                    }
                }
            }
        })?;
        *observer.fiber.borrow_mut() = Some(handle);
        Ok(observer)
    }

    pub fn stop(&self) {
        if let Some(fiber) = self.fiber.borrow().as_ref() {
            fiber.cancel();
        }
    }

    pub fn is_running(&self) -> bool {
        self.fiber.borrow().as_ref().is_some_and(FiberHandle::is_running)
    }

    /// This instance itself. Answers whether there is news.
    fn look(&self, node: &Node) -> Result<bool> {
        let is_news = self.take(facts::report(node)?);
        // Nothing travels: the round itself is the stamp.
        lease::renew(self.round_ns.get(), lease_ms(node));
        if !is_news {
            node.facts.changed.wait(Deadline::after_ms(PING_MS));
        }
        Ok(is_news)
    }

    /// Another instance.
    fn ask(&self, node: &Node, target: &Address) -> Result<bool> {
        let known = self.report.borrow().as_ref().map_or_else(|| Ok(Vec::new()), encode)?;
        self.grants.borrow_mut().confirmed(self.round_ns.get());
        let args = facts::args(&known, self.grants.borrow().stamp(), lease_ms(node));
        let deadline = Deadline::after_ms(PING_MS + GRACE_MS);
        let answer = node.call(target, facts::DOOR, &args, deadline).map_err(CallError::for_read)?;
        let mut reader = Reader::new(&answer);
        reader.array_len()?;
        let report: Report = decode(reader.bin()?)?;
        // Who does not know its present part may take itself for the master that it was: it gets no lease.
        let state = node.state();
        let is_current = |instance: &Instance| state.topology.part_version(instance) == report.seen;
        if state.topology.instances.get(&self.name).is_some_and(is_current) {
            self.grants.borrow_mut().heard(reader.uint()?, clock::precise_ns());
        }
        Ok(self.take(report))
    }

    /// After a failure: whether the instance is there at all.
    fn probe(&self, node: &Node, is_me: bool) {
        let was_closed = node.pool.peer(&self.address).is_ok_and(|peer| peer.was_closed());
        let is_gone = !is_me && Socket::is_refused(&self.address, Deadline::after_ms(PROBE_MS));
        self.is_gone.set(is_gone);
        self.is_dead.set(is_gone && was_closed);
    }

    fn take(&self, report: Report) -> bool {
        self.is_gone.set(false);
        self.is_dead.set(false);
        self.heard_s.set(clock::now_s());
        let is_news = self.report.borrow().as_ref() != Some(&report);
        *self.report.borrow_mut() = Some(report);
        is_news
    }

    /// So many seconds until now, if it was silent for so long, are not its own silence.
    pub fn excuse(&self, seconds: f64, now_s: f64) {
        self.heard_s.set(now_s.min(self.heard_s.get() + seconds));
    }

    /// In the governor's words.
    pub fn observed(&self, now_s: f64, lease_ms: u64) -> Observed {
        let over_ns = self.grants.borrow().over_at(self.since_ns, lease_ms.saturating_mul(NS_IN_MS));
        let lease_left_ms = match self.is_dead.get() {
            true => 0,
            false => over_ns.saturating_sub(clock::precise_ns()).div_ceil(NS_IN_MS),
        };
        let silent_ms = match self.is_gone.get() {
            true => u64::MAX,
            false => ((now_s - self.heard_s.get()).max(0.0) * 1e3) as u64,
        };
        let Some(report) = self.report.borrow().clone() else {
            return Observed { silent_ms, lease_left_ms, ..Observed::default() };
        };
        Observed {
            incarnation: Some(report.incarnation),
            silent_ms,
            lease_left_ms,
            seen: report.seen,
            ready: report.ready,
            stray: report.stray,
            follows: report.follows.map(|(term, peers)| Follows { term, peers }),
            schema: report.schema.map(|(id, error)| SchemaReport { id, error }),
            fenced: report.fenced.map(|(term, kept)| Fenced { term, kept }),
            stuck: report.stuck,
            in_step: report.in_step.map(|(term, members)| InStep { term, members }),
        }
    }
}
