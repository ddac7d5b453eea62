//! One established connection: its two buffers, what is under way on it, and the two fibers that write and read it.
//!
//! A request that was appended may have been carried out as soon as a byte of its chunk was given to the kernel; before
//! that, a broken connection proves that it was not. After a link is broken it stays so; the peer makes a new one.

use super::error::CallError;
use super::expiry::{Expire, Expiry};
use super::socket::Socket;
use super::{BATCH_PROCEDURE, Priority};
use crate::host::clock::Deadline;
use crate::host::error::from_wire;
use crate::host::fiber::{self, Event, FiberHandle, Waiter};
use model::{Code, Durability, Error, Result};
use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::rc::Rc;
use wire::batch::{self, BatchArgs};
use wire::frame::{self, Answer};
use wire::inbound::Inbound;
use wire::outbound::{ChunkId, Outbound, SLICES_MAX};
use wire::slots::{Key, Slots};

/// Fibers that wait for an answer on one link; more wait for room.
const WAITING_MAX: usize = 16 << 10;
/// Frames without an answer, also of calls whose callers gave up.
const FRAMES_MAX: usize = 16 << 10;
/// Bytes that wait to be written; more calls wait for room, and one-way messages are refused.
const OUTBOUND_BYTES_MAX: usize = 64 << 20;
/// Reads that fill the whole buffer, one after the other, before other fibers get their turn.
const FULL_READS_MAX: usize = 8;
/// One-way messages carry it: their answers find nobody.
const NO_SYNC: Key = 0;

type Outcome = Result<Vec<u8>, CallError>;

/// A fiber that waits for an answer.
struct Wait {
    waiter: Waiter,
    deadline: Deadline,
    outcome: Option<Outcome>,
}

/// A request that has not been answered.
struct Frame {
    chunk: ChunkId,
    content: Content,
}

enum Content {
    Call(Key),
    /// The waits of a batch's operations, in their order.
    Batch(Vec<Key>),
}

/// Operations of this loop turn that leave together.
#[derive(Default)]
struct Batch {
    args: BatchArgs,
    waits: Vec<Key>,
}

pub struct Link {
    address: String,
    socket: Socket,
    outbound: RefCell<Outbound>,
    /// By durability: what needs only the master's log does not wait for what needs more.
    batches: [RefCell<Batch>; Durability::ALL.len()],
    waits: RefCell<Slots<Wait>>,
    frames: RefCell<Slots<Frame>>,
    /// There is something to write, and the writer was told.
    write_requested: Cell<bool>,
    writer: RefCell<Option<FiberHandle>>,
    room: Event,
    waiting_for_room: Cell<usize>,
    broken: RefCell<Option<Error>>,
    was_closed: Cell<bool>,
    expiry: Rc<Expiry>,
}

/// Takes the wait away when its fiber stops waiting, for whatever reason.
struct Registered<'a> {
    link: &'a Link,
    key: Key,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.link.waits.borrow_mut().remove(self.key);
        self.link.tell_room();
    }
}

impl Link {
    /// Starts the fibers of a connection whose handshake is done. `on_break` is called once, by the reading fiber.
    pub fn start(
        address: &str,
        socket: Socket,
        inbound: Inbound,
        expiry: &Rc<Expiry>,
        on_break: impl FnOnce(&Error) + 'static,
    ) -> Result<Rc<Link>> {
        let link = Rc::new(Link {
            address: address.to_owned(),
            socket,
            outbound: RefCell::default(),
            batches: Default::default(),
            waits: RefCell::new(Slots::new(WAITING_MAX)),
            frames: RefCell::new(Slots::new(FRAMES_MAX)),
            write_requested: Cell::new(false),
            writer: RefCell::new(None),
            room: Event::new()?,
            waiting_for_room: Cell::new(0),
            broken: RefCell::new(None),
            was_closed: Cell::new(false),
            expiry: Rc::clone(expiry),
        });
        let writing = Rc::clone(&link);
        let writer = fiber::spawn("pico_write", move || writing.write_all())?;
        *link.writer.borrow_mut() = Some(writer);
        let reading = Rc::clone(&link);
        let reader = fiber::spawn("pico_read", move || {
            let cause = reading.read_all(inbound);
            reading.break_off(cause.clone());
            on_break(&cause);
        });
        if let Err(error) = reader {
            link.break_off(error.clone());
            return Err(error);
        }
        let as_expire: Rc<dyn Expire> = link.clone();
        expiry.watch(Rc::downgrade(&as_expire));
        Ok(link)
    }

    pub fn is_broken(&self) -> bool {
        self.broken.borrow().is_some()
    }

    /// Calls `procedure` and waits for what it returns.
    pub fn call(&self, procedure: &str, args: &[u8], priority: Priority, deadline: Deadline) -> Outcome {
        self.wait_for_room(deadline)?;
        let wait = self.register(deadline)?;
        self.push_frame(priority, procedure, args, Content::Call(wait.key))?;
        self.await_outcome(&wait)
    }

    /// Adds `operation` to the batch of its durability that leaves at the end of this loop turn, and waits for its answer.
    pub fn operate(&self, operation: &[u8], durability: Durability, deadline: Deadline) -> Outcome {
        self.wait_for_room(deadline)?;
        let wait = self.register(deadline)?;
        let batch = &self.batches[durability as usize];
        let is_full = {
            let mut batch = batch.borrow_mut();
            batch.args.push(operation);
            batch.waits.push(wait.key);
            batch.args.is_full()
        };
        if is_full {
            self.close_batch(batch);
        }
        self.request_write();
        self.await_outcome(&wait)
    }

    /// Appends a call whose answer nobody waits for, before all others. Never yields.
    pub fn send(&self, procedure: &str, args: &[u8]) -> Result<(), CallError> {
        self.check_up()?;
        if self.outbound.borrow().len_bytes() + args.len() > OUTBOUND_BYTES_MAX {
            return Err(CallError::not_sent(self.congested()));
        }
        self.outbound.borrow_mut().push(Priority::Urgent, |out| frame::write_call(out, NO_SYNC, procedure, args));
        self.request_write();
        Ok(())
    }

    /// Ends the connection; who waits gets `cause`.
    pub fn break_off(&self, cause: Error) {
        if self.is_broken() {
            return;
        }
        *self.broken.borrow_mut() = Some(cause.clone());
        self.socket.shut_down();
        self.fail_frames(&cause);
        // What is left has not even become a frame.
        for wait in self.waits.borrow_mut().iter_mut() {
            settle(wait, Err(CallError::not_sent(cause.clone())));
        }
        self.room.notify_all();
        if let Some(writer) = &*self.writer.borrow() {
            writer.wake();
        }
    }

    /// Tells the waits of all frames, apart by whether a byte of them can have left.
    fn fail_frames(&self, cause: &Error) {
        let outbound = self.outbound.borrow();
        let mut waits = self.waits.borrow_mut();
        for frame in self.frames.borrow_mut().iter_mut() {
            let error = match outbound.is_unwritten(frame.chunk) {
                true => CallError::not_sent(cause.clone()),
                false => CallError::sent(cause.clone()),
            };
            for key in frame.content.keys() {
                if let Some(wait) = waits.get_mut(*key) {
                    settle(wait, Err(error.clone()));
                }
            }
        }
    }

    fn check_up(&self) -> Result<(), CallError> {
        match &*self.broken.borrow() {
            None => Ok(()),
            Some(cause) => Err(CallError::not_sent(cause.clone())),
        }
    }

    fn has_room(&self) -> bool {
        !self.waits.borrow().is_full()
            && self.frames.borrow().len() < FRAMES_MAX - 1
            && self.outbound.borrow().len_bytes() < OUTBOUND_BYTES_MAX
    }

    fn congested(&self) -> Error {
        Error::new(Code::LimitExceeded, format!("too many requests wait for {} already", self.address))
    }

    fn wait_for_room(&self, deadline: Deadline) -> Result<(), CallError> {
        self.check_up()?;
        while !self.has_room() {
            self.waiting_for_room.set(self.waiting_for_room.get() + 1);
            let parked = self.room.wait(deadline);
            self.waiting_for_room.set(self.waiting_for_room.get() - 1);
            self.check_up()?;
            if parked == fiber::Parked::Late && !self.has_room() {
                return Err(CallError::not_sent(self.congested()));
            }
            if parked == fiber::Parked::Cancelled {
                return Err(CallError::not_sent(cancelled()));
            }
        }
        Ok(())
    }

    #[inline]
    fn tell_room(&self) {
        if self.waiting_for_room.get() > 0 && self.has_room() {
            self.room.notify_one();
        }
    }

    fn register(&self, deadline: Deadline) -> Result<Registered<'_>, CallError> {
        let wait = Wait { waiter: Waiter::new(), deadline, outcome: None };
        let key = self.waits.borrow_mut().insert(wait).map_err(|_| CallError::not_sent(self.congested()))?;
        self.expiry.note(deadline);
        Ok(Registered { link: self, key })
    }

    /// Parks the fiber until its wait has an outcome: an answer, a break or its deadline.
    fn await_outcome(&self, wait: &Registered<'_>) -> Outcome {
        loop {
            match self.waits.borrow_mut().get_mut(wait.key) {
                Some(tenant) => {
                    if let Some(outcome) = tenant.outcome.take() {
                        return outcome;
                    }
                }
                None => return Err(CallError::sent(Error::internal("a call lost its place"))),
            }
            if fiber::is_cancelled() {
                return Err(CallError::sent(cancelled()));
            }
            fiber::suspend();
        }
    }

    fn push_frame(&self, priority: Priority, procedure: &str, args: &[u8], content: Content) -> Result<(), CallError> {
        if args.len() > wire::FRAME_BYTES_MAX / 2 {
            let message = format!("a request of {} bytes is too large to be sent", args.len());
            return Err(CallError::not_sent(Error::new(Code::LimitExceeded, message)));
        }
        let mut frames = self.frames.borrow_mut();
        let key =
            frames.insert(Frame { chunk: ChunkId::MAX, content }).map_err(|_| CallError::not_sent(self.congested()))?;
        let chunk = self.outbound.borrow_mut().push(priority, |out| frame::write_call(out, key, procedure, args));
        if let Some(frame) = frames.get_mut(key) {
            frame.chunk = chunk;
        }
        drop(frames);
        self.request_write();
        Ok(())
    }

    /// Turns the operations gathered so far into one frame.
    fn close_batch(&self, batch: &RefCell<Batch>) {
        let mut batch = batch.borrow_mut();
        if batch.args.is_empty() {
            return;
        }
        let waits = std::mem::take(&mut batch.waits);
        let refused =
            self.push_frame(Priority::Normal, BATCH_PROCEDURE, batch.args.finish(), Content::Batch(waits.clone()));
        if let Err(error) = refused {
            self.settle_all(&waits, &error);
        }
    }

    fn settle_all(&self, keys: &[Key], error: &CallError) {
        let mut waits = self.waits.borrow_mut();
        for key in keys {
            if let Some(wait) = waits.get_mut(*key) {
                settle(wait, Err(error.clone()));
            }
        }
    }

    #[inline]
    fn request_write(&self) {
        if !self.write_requested.replace(true)
            && let Some(writer) = &*self.writer.borrow()
        {
            writer.wake();
        }
    }

    /// The writing fiber: once a loop turn, after the fibers that had something to say.
    fn write_all(&self) {
        while !self.is_broken() {
            if !self.write_requested.replace(false) {
                fiber::suspend();
                continue;
            }
            self.batches.iter().for_each(|batch| self.close_batch(batch));
            if let Err(error) = self.write_pending() {
                self.break_off(self.lost(&error));
            }
        }
    }

    fn write_pending(&self) -> std::io::Result<()> {
        while !self.is_broken() && !self.outbound.borrow().is_empty() {
            let written = {
                let outbound = self.outbound.borrow();
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = outbound.slices(&mut slices);
                self.socket.write(&slices[..count])?
            };
            match written {
                Some(count) => {
                    self.outbound.borrow_mut().written(count);
                    self.tell_room();
                }
                None => {
                    self.socket.wait_writable(Deadline::NEVER);
                }
            }
        }
        Ok(())
    }

    /// The reading fiber: until the connection breaks; answers why.
    fn read_all(&self, mut inbound: Inbound) -> Error {
        let mut full_reads = 0usize;
        loop {
            if let Some(cause) = &*self.broken.borrow() {
                return cause.clone();
            }
            let room = inbound.room();
            let room_bytes = room.len();
            let is_drained = match self.socket.read(room) {
                Ok(Some(0)) => {
                    self.was_closed.set(true);
                    return self.lost(&"the other side closed the connection");
                }
                Ok(Some(count)) => {
                    inbound.filled(count);
                    if let Err(error) = self.take_frames(&mut inbound) {
                        return self.lost(&error);
                    }
                    count < room_bytes
                }
                Ok(None) => true,
                Err(error) => {
                    self.was_closed.set(error.kind() == std::io::ErrorKind::ConnectionReset);
                    return self.lost(&error);
                }
            };
            full_reads = if is_drained { 0 } else { full_reads + 1 };
            if is_drained {
                self.socket.wait_readable(Deadline::NEVER);
            } else if full_reads.is_multiple_of(FULL_READS_MAX) {
                fiber::sleep_zero();
            }
        }
    }

    /// Whether the other side ended the connection.
    pub fn was_closed(&self) -> bool {
        self.was_closed.get()
    }

    fn lost(&self, cause: &dyn std::fmt::Display) -> Error {
        Error::new(Code::Unreachable, format!("the connection to {} broke: {cause}", self.address))
    }

    fn take_frames(&self, inbound: &mut Inbound) -> Result<()> {
        while let Some(frame) = inbound.frame()? {
            // Read before the request is taken away: if it has no meaning, the request counts as sent.
            let answer = frame.answer()?;
            let Some(request) = self.frames.borrow_mut().remove(frame.sync) else { continue };
            self.deliver(request.content, answer);
            self.tell_room();
        }
        Ok(())
    }

    /// Hands an answer to who waits for it.
    fn deliver(&self, content: Content, answer: Answer<'_>) {
        match (content, answer) {
            (Content::Call(key), answer) => {
                if let Some(wait) = self.waits.borrow_mut().get_mut(key) {
                    settle(wait, outcome_of(answer));
                }
            }
            (Content::Batch(keys), Answer::Values(value)) => match batch::answers(value) {
                Ok(answers) if answers.len() == keys.len() => {
                    let mut waits = self.waits.borrow_mut();
                    for (key, answer) in keys.iter().zip(answers) {
                        if let Some(wait) = waits.get_mut(*key) {
                            settle(wait, Ok(answer.to_vec()));
                        }
                    }
                }
                _ => {
                    let message = format!("{} answered a batch in a way that has no meaning", self.address);
                    self.settle_all(&keys, &CallError::sent(Error::internal(message)));
                }
            },
            (Content::Batch(keys), Answer::Error(number, text)) => {
                self.settle_all(&keys, &CallError::answered(from_wire(number, text)));
            }
        }
    }
}

impl Content {
    fn keys(&self) -> &[Key] {
        match self {
            Content::Call(key) => std::slice::from_ref(key),
            Content::Batch(keys) => keys,
        }
    }
}

fn outcome_of(answer: Answer<'_>) -> Outcome {
    match answer {
        Answer::Values(values) => Ok(values.to_vec()),
        Answer::Error(number, text) => Err(CallError::answered(from_wire(number, text))),
    }
}

fn cancelled() -> Error {
    Error::new(Code::Cancelled, "the fiber was cancelled while it waited for another instance")
}

/// Gives a wait its outcome, unless it has one, and wakes its fiber.
fn settle(wait: &mut Wait, outcome: Outcome) {
    if wait.outcome.is_none() {
        wait.outcome = Some(outcome);
        wait.waiter.wake();
    }
}

impl Expire for Link {
    fn expire(&self) -> Deadline {
        let mut next = Deadline::NEVER;
        for wait in self.waits.borrow_mut().iter_mut().filter(|wait| wait.outcome.is_none()) {
            if wait.deadline.has_passed() {
                let error = Error::new(Code::Timeout, format!("{} did not answer in time", self.address));
                settle(wait, Err(CallError::sent(error)));
            } else {
                next = next.min(wait.deadline);
            }
        }
        next
    }
}
