//! Another instance by its address: connected when it is needed, and again after a break, with growing pauses.

use super::error::CallError;
use super::link::Link;
use super::pool::{LinkEvent, Shared};
use super::{Priority, handshake};
use crate::host::clock::Deadline;
use crate::host::fiber::{self, Event};
use model::{Code, Durability, Error, Result};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How long one attempt to connect and authenticate may take.
const CONNECT_TIMEOUT_MS: u64 = 2_000;
/// The pause after a failed attempt, doubled with each further one.
const PAUSE_MIN_MS: u64 = 20;
const PAUSE_MAX_MS: u64 = 1_000;

enum State {
    /// Not connected. Requests before `retry_after` fail at once with the cause of the last failure.
    Down {
        retry_after: Deadline,
        cause: Option<Error>,
    },
    Connecting,
    Up(Rc<Link>),
    /// Taken out of the pool; never connects again.
    Closed,
}

pub struct Peer {
    address: String,
    shared: Rc<Shared>,
    state: RefCell<State>,
    /// The state has left `Connecting`.
    settled: Event,
    pause_ms: Cell<u64>,
    was_closed: Cell<bool>,
}

impl Peer {
    pub(super) fn new(address: &str, shared: &Rc<Shared>) -> Result<Rc<Peer>> {
        Ok(Rc::new(Peer {
            address: address.to_owned(),
            shared: Rc::clone(shared),
            state: RefCell::new(State::Down { retry_after: Deadline::after_ms(0), cause: None }),
            settled: Event::new()?,
            pause_ms: Cell::new(PAUSE_MIN_MS),
            was_closed: Cell::new(false),
        }))
    }

    /// Whether the last connection that stood was closed by the other side, and there was none since. A network that fails
    /// does not do that; a process that ends does.
    pub fn was_closed(&self) -> bool {
        self.was_closed.get()
    }

    /// Calls a C procedure with `args`, one MessagePack array. Answers what it returned: one MessagePack object.
    /// Connects first when needed, within the same deadline.
    pub fn call(
        self: &Rc<Self>,
        procedure: &str,
        args: &[u8],
        priority: Priority,
        deadline: Deadline,
    ) -> Result<Vec<u8>, CallError> {
        self.link(deadline)?.call(procedure, args, priority, deadline)
    }

    /// Sends one operation in the batch that its durability has in this loop turn; answers the object that
    /// `picodata.peer.batch` answered for it.
    pub fn operate(
        self: &Rc<Self>,
        operation: &[u8],
        durability: Durability,
        deadline: Deadline,
    ) -> Result<Vec<u8>, CallError> {
        self.link(deadline)?.operate(operation, durability, deadline)
    }

    /// Sends a call whose answer is ignored, before all others. Never waits: without a connection the message is lost,
    /// and an attempt to connect begins.
    pub fn send(self: &Rc<Self>, procedure: &str, args: &[u8]) -> Result<(), CallError> {
        self.link_now()?.send(procedure, args)
    }

    /// Begins to connect, if that has not happened and is not too early. Never waits.
    pub fn connect(self: &Rc<Self>) {
        if let State::Down { retry_after, .. } = &*self.state.borrow()
            && !retry_after.has_passed()
        {
            return;
        }
        let is_down = matches!(&*self.state.borrow(), State::Down { .. });
        if is_down {
            self.state.replace(State::Connecting);
            let peer = Rc::clone(self);
            if let Err(error) = fiber::spawn("pico_connect", move || peer.run_attempt()) {
                self.went_down(&error);
            }
        }
    }

    /// The peer is known to be there: connects at once, however often that has failed.
    pub fn retry_now(self: &Rc<Self>) {
        if let State::Down { retry_after, .. } = &mut *self.state.borrow_mut() {
            *retry_after = Deadline::after_ms(0);
            self.pause_ms.set(PAUSE_MIN_MS);
        }
        self.connect();
    }

    /// The link as it is, or why there is none.
    fn link_now(self: &Rc<Self>) -> Result<Rc<Link>, CallError> {
        if let State::Up(link) = &*self.state.borrow() {
            return Ok(Rc::clone(link));
        }
        self.connect();
        Err(CallError::not_sent(self.why_down()))
    }

    /// The link, after connecting if need be.
    fn link(self: &Rc<Self>, deadline: Deadline) -> Result<Rc<Link>, CallError> {
        if let Ok(link) = self.link_now() {
            return Ok(link);
        }
        while matches!(&*self.state.borrow(), State::Connecting) {
            let parked = self.settled.wait(deadline);
            parked.or_error(&format!("a connection to {}", self.address)).map_err(CallError::not_sent)?;
        }
        if let State::Up(link) = &*self.state.borrow() {
            return Ok(Rc::clone(link));
        }
        // A caller that tries again at once must not keep the loop from the event that it waits for.
        fiber::sleep_zero();
        Err(CallError::not_sent(self.why_down()))
    }

    fn why_down(&self) -> Error {
        match &*self.state.borrow() {
            State::Down { cause: Some(cause), .. } => cause.clone(),
            State::Closed => Error::new(Code::Unreachable, format!("{} is no longer a peer", self.address)),
            _ => Error::new(Code::Unreachable, format!("{} is not connected yet", self.address)),
        }
    }

    /// The body of the connecting fiber.
    fn run_attempt(self: &Rc<Self>) {
        let result = self.attempt();
        if matches!(&*self.state.borrow(), State::Closed) {
            if let Ok(link) = result {
                link.break_off(self.why_down());
            }
            return;
        }
        match result {
            Ok(link) => {
                self.pause_ms.set(PAUSE_MIN_MS);
                self.was_closed.set(false);
                self.state.replace(State::Up(link));
                self.settled.notify_all();
                self.shared.tell(&self.address, LinkEvent::Up);
            }
            Err(error) => self.went_down(&error),
        }
    }

    fn attempt(self: &Rc<Self>) -> Result<Rc<Link>> {
        let deadline = Deadline::after_ms(CONNECT_TIMEOUT_MS);
        let (user, password) = (&self.shared.user, &self.shared.password);
        let (socket, inbound) = handshake::connect(&self.address, user, password, deadline)?;
        let peer = Rc::downgrade(self);
        Link::start(&self.address, socket, inbound, &self.shared.expiry, move |cause| {
            if let Some(peer) = peer.upgrade() {
                peer.went_down(cause);
            }
        })
    }

    fn went_down(&self, cause: &Error) {
        if matches!(&*self.state.borrow(), State::Closed) {
            return;
        }
        let was_up = match &*self.state.borrow() {
            State::Up(link) => {
                self.was_closed.set(link.was_closed());
                true
            }
            _ => false,
        };
        let pause_ms = self.pause_ms.get();
        // A connection that stood and broke is tried again at once.
        let retry_after = Deadline::after_ms(if was_up { 0 } else { pause_ms });
        self.pause_ms.set((pause_ms * 2).min(PAUSE_MAX_MS));
        self.state.replace(State::Down { retry_after, cause: Some(cause.clone()) });
        self.settled.notify_all();
        self.shared.tell(&self.address, if was_up { LinkEvent::Down } else { LinkEvent::Failed });
    }

    /// Breaks the connection and never makes another.
    pub(super) fn close(&self) {
        if let State::Up(link) = self.state.replace(State::Closed) {
            link.break_off(self.why_down());
        }
        self.settled.notify_all();
    }
}
