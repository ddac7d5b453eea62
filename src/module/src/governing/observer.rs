//! One instance under observation: a fiber asks it for its report as long as this leader is in office.

use crate::facts::{self, PING_MS, Report};
use crate::host::fiber::FiberHandle;
use crate::host::{Deadline, Event, clock, fiber};
use crate::net::{CallError, Socket};
use crate::node::Node;
use crate::start::join::{decode, encode};
use boot::Address;
use governor::{Fenced, Observed, SchemaReport};
use model::msgpack::{Reader, write_array_len, write_bin};
use model::{InstanceName, Result};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// An answer may take this much longer than a ping.
const GRACE_MS: u64 = 400;
/// How soon an instance that could not be reached is asked again.
const RETRY_MS: u64 = 50;

/// How long a machine may take to say that nobody listens.
const PROBE_MS: u64 = 200;

pub struct Observer {
    pub address: String,
    report: RefCell<Option<Report>>,
    heard_s: Cell<f64>,
    /// Nobody listens at its address: no need to wait for more silence.
    is_gone: Cell<bool>,
    fiber: RefCell<Option<FiberHandle>>,
}

impl Observer {
    pub fn start(node: &'static Node, name: &InstanceName, address: &str, wakeup: Rc<Event>) -> Result<Rc<Self>> {
        let observer = Rc::new(Self {
            address: address.to_owned(),
            report: RefCell::new(None),
            heard_s: Cell::new(clock::now_s()),
            is_gone: Cell::new(false),
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
                        theirs.is_gone.set(!is_me && Socket::is_refused(&theirs.address, Deadline::after_ms(PROBE_MS)));
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
        if !is_news {
            node.facts.changed.wait(Deadline::after_ms(PING_MS));
        }
        Ok(is_news)
    }

    /// Another instance.
    fn ask(&self, node: &Node, target: &Address) -> Result<bool> {
        let known = self.report.borrow().as_ref().map_or_else(|| Ok(Vec::new()), encode)?;
        let mut args = Vec::with_capacity(known.len() + 8);
        write_array_len(&mut args, 1);
        write_bin(&mut args, &known);
        let deadline = Deadline::after_ms(PING_MS + GRACE_MS);
        let answer = node.call(target, facts::DOOR, &args, deadline).map_err(CallError::for_read)?;
        Ok(self.take(decode(Reader::new(&answer).bin()?)?))
    }

    fn take(&self, report: Report) -> bool {
        self.is_gone.set(false);
        self.heard_s.set(clock::now_s());
        let is_news = self.report.borrow().as_ref() != Some(&report);
        *self.report.borrow_mut() = Some(report);
        is_news
    }

    /// In the governor's words.
    pub fn observed(&self, now_s: f64) -> Observed {
        let silent_ms = match self.is_gone.get() {
            true => u64::MAX,
            false => ((now_s - self.heard_s.get()).max(0.0) * 1e3) as u64,
        };
        let Some(report) = self.report.borrow().clone() else { return Observed { silent_ms, ..Observed::default() } };
        Observed {
            incarnation: report.incarnation,
            silent_ms,
            ready: report.ready,
            peers: report.peers,
            schema: report.schema.map(|(id, error)| SchemaReport { id, error }),
            fenced: report.fenced.map(|(term, position)| Fenced { term, position }),
            in_step: report.in_step,
        }
    }
}
