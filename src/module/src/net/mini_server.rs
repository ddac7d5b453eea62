//! A small IPROTO server for the time before `box.cfg`, when an instance must already answer others who look for their
//! cluster.
//!
//! It serves one user, who must prove to know the cluster's secret before anything else, answers calls by one callback,
//! and keeps few connections, small requests and short silences. `stop` ends all of it, so that `box.cfg` can listen on
//! the same address.

use super::SERVICE_USER;
use super::socket::{Listener, Socket};
use crate::host::clock::Deadline;
use crate::host::fiber::{self, Event, FiberHandle};
use crate::host::guard;
use model::{Code, Error, Result};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use wire::frame::{self, Frame, request};
use wire::greeting;
use wire::inbound::Inbound;
use wire::scramble::{self, Scramble};

const CONNECTIONS_MAX: usize = 128;
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Before authentication and between two requests.
const HANDSHAKE_TIMEOUT_MS: u64 = 3_000;
const IDLE_TIMEOUT_MS: u64 = 30_000;
const WRITE_TIMEOUT_MS: u64 = 5_000;
const BIND_TIMEOUT_MS: u64 = 5_000;
/// The pause after `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE_S: f64 = 0.05;

/// Answers a call: `(function, args) -> one MessagePack object`. May yield.
pub type Answerer = dyn Fn(&str, &[u8]) -> Result<Vec<u8>>;

/// A running server. Dropping it stops it without waiting.
pub struct MiniServer {
    state: Rc<State>,
    accepting: FiberHandle,
}

struct State {
    password: String,
    answer: Box<Answerer>,
    stopping: Cell<bool>,
    listener: RefCell<Option<Rc<Listener>>>,
    sockets: RefCell<Vec<Weak<Socket>>>,
    /// Fibers that have not ended, the accepting one included.
    fibers: Cell<usize>,
    ended: Event,
}

/// Counts a fiber while it runs.
struct Running(Rc<State>);

impl Running {
    fn new(state: &Rc<State>) -> Running {
        state.fibers.set(state.fibers.get() + 1);
        Running(Rc::clone(state))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fibers.set(self.0.fibers.get() - 1);
        self.0.ended.notify_all();
    }
}

impl MiniServer {
    /// Listens on `host:port`.
    ///
    /// Errors: `Config` when the address can not be bound.
    pub fn start(
        listen: &str,
        password: &str,
        answer: impl Fn(&str, &[u8]) -> Result<Vec<u8>> + 'static,
    ) -> Result<MiniServer> {
        let listener = Rc::new(Listener::bind(listen, Deadline::after_ms(BIND_TIMEOUT_MS))?);
        let state = Rc::new(State {
            password: password.to_owned(),
            answer: Box::new(answer),
            stopping: Cell::new(false),
            listener: RefCell::new(Some(Rc::clone(&listener))),
            sockets: RefCell::default(),
            fibers: Cell::new(0),
            ended: Event::new()?,
        });
        let running = Running::new(&state);
        let accepting = fiber::spawn("pico_discovery", move || accept_all(running, listener))?;
        Ok(MiniServer { state, accepting })
    }

    /// Stops listening, closes all connections and waits until the last fiber has ended: then the address is free.
    ///
    /// Errors: `Timeout` when a callback does not return in time.
    pub fn stop(self, deadline: Deadline) -> Result<()> {
        self.begin_stop();
        let is_idle = || (self.state.fibers.get() == 0).then_some(());
        self.state.ended.wait_until(deadline, "the discovery server to stop", is_idle)
    }

    fn begin_stop(&self) {
        if self.state.stopping.replace(true) {
            return;
        }
        self.state.listener.borrow_mut().take();
        self.accepting.wake();
        for socket in self.state.sockets.borrow().iter().filter_map(Weak::upgrade) {
            socket.shut_down();
        }
    }
}

impl Drop for MiniServer {
    fn drop(&mut self) {
        self.begin_stop();
    }
}

fn accept_all(running: Running, listener: Rc<Listener>) {
    let state = &running.0;
    while !state.stopping.get() {
        match listener.accept() {
            Ok(Some(socket)) => welcome(state, socket),
            Ok(None) => {
                listener.wait();
            }
            Err(error) => {
                log::warn!("the discovery server can not accept a connection: {error}");
                fiber::sleep(ACCEPT_PAUSE_S);
            }
        }
    }
}

/// Starts a fiber for a connection, unless there are too many.
fn welcome(state: &Rc<State>, socket: Socket) {
    let mut sockets = state.sockets.borrow_mut();
    sockets.retain(|socket| socket.strong_count() > 0);
    if sockets.len() >= CONNECTIONS_MAX {
        return;
    }
    let socket = Rc::new(socket);
    sockets.push(Rc::downgrade(&socket));
    let running = Running::new(state);
    // Without memory for a fiber the connection is closed by dropping it.
    let _ = fiber::spawn("pico_discovery", move || {
        if let Err(error) = serve(&running.0, &socket) {
            log::debug!("a connection of the discovery server ended: {error}");
        }
    });
}

fn serve(state: &State, socket: &Socket) -> Result<()> {
    let mut random = [0u8; 32];
    fill_random(&mut random)?;
    let salt = greeting::effective_salt(&random);
    socket.write_all(&greeting::write(&random), Deadline::after_ms(HANDSHAKE_TIMEOUT_MS))?;
    let mut inbound = Inbound::new(REQUEST_BYTES_MAX);
    let mut is_known = false;
    let mut out = Vec::new();
    while !state.stopping.get() {
        let timeout_ms = if is_known { IDLE_TIMEOUT_MS } else { HANDSHAKE_TIMEOUT_MS };
        out.clear();
        socket.read_until(&mut inbound, Deadline::after_ms(timeout_ms), |inbound| {
            let Some(frame) = inbound.frame()? else { return Ok(None) };
            let answer = respond(state, &frame, &salt, &mut is_known);
            match &answer {
                Ok(object) => frame::write_answer(&mut out, frame.sync, object.as_deref()),
                Err(error) => frame::write_error(&mut out, frame.sync, error),
            }
            Ok(Some(()))
        })?;
        socket.write_all(&out, Deadline::after_ms(WRITE_TIMEOUT_MS))?;
        if !is_known {
            return Err(Error::new(Code::AccessDenied, "the other side does not know the cluster's secret"));
        }
    }
    Ok(())
}

/// The answer to one request: an object for a call, none for the others.
fn respond(state: &State, frame: &Frame<'_>, salt: &Scramble, is_known: &mut bool) -> Result<Option<Vec<u8>>> {
    match frame.code {
        request::AUTH => {
            let (user, proof) = frame.auth()?;
            *is_known = user == SERVICE_USER && scramble::verify(&state.password, salt, proof);
            if *is_known { Ok(None) } else { Err(Error::new(Code::AccessDenied, "wrong user or cluster secret")) }
        }
        _ if !*is_known => Err(Error::new(Code::AccessDenied, "authenticate first")),
        request::CALL | request::CALL_16 => {
            let (function, args) = frame.call()?;
            guard::contain(|| (state.answer)(function, args)).map(Some)
        }
        request::PING => Ok(None),
        other => Err(Error::new(
            Code::NotReady,
            format!("request type {other} is not served before the instance has started"),
        )),
    }
}

fn fill_random(bytes: &mut [u8]) -> Result<()> {
    // SAFETY: the pointer and length describe `bytes`; for so few the call neither blocks nor stops short.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if count == bytes.len() as isize { Ok(()) } else { Err(Error::internal("the kernel gave no random bytes")) }
}
