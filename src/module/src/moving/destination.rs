//! The side that receives buckets: one fiber a move, which wipes, pulls, stores, has the move finished, and opens.

use super::{PULL_DOOR, RELEASE_DOOR, my_tenure, rows, view};
use crate::host::{Deadline, failpoint, fiber};
use crate::net::CallError;
use crate::node::Node;
use crate::start::join::{decode, encode};
use crate::storage;
use boot::Address;
use catalog::{Entry, Move, Op};
use model::msgpack::{Reader, write_array_len, write_bin, write_uint};
use model::{BucketId, Code, Error, Result};
use sharding::moves::{Destination, DestinationCommand, MovePhase, Pull, Pulled, Tenure};

const CALL_TIMEOUT_MS: u64 = 10_000;
/// How soon something is tried again that could not be done.
const PAUSE_MS: u64 = 20;
/// The same for a slice that could not be stored: the disk may be full.
const STORE_PAUSE_MS: u64 = 100;

pub struct Worker {
    node: &'static Node,
    record: Move,
    me: Tenure,
}

impl Worker {
    pub fn new(node: &'static Node, record: Move, me: Tenure) -> Self {
        Self { node, record, me }
    }

    /// Works until the move is over, or this instance is not the one to do it any more.
    pub fn run(&self) -> Result<()> {
        let mut seen = self.node.state();
        let (mut machine, mut command) = Destination::new(self.me.clone(), &view(&seen, &self.record));
        loop {
            if my_tenure(self.node, &seen).as_ref() != Some(&self.me) || fiber::is_cancelled() {
                return Ok(());
            }
            if !seen.placement.moves.contains_key(&self.record.id) {
                return Ok(());
            }
            let done = match command.take() {
                Some(command) => self.carry_out(&mut machine, command),
                None => Ok(None),
            };
            command = match done {
                Ok(next) => next,
                Err(error) => {
                    log::debug!("move {}: {error}", self.record.id);
                    None
                }
            };
            let state = self.node.state();
            if state.index != seen.index {
                seen = state;
                command = machine.applied(&view(&seen, &self.record)).or(command);
            }
            if command.is_none() {
                // Nothing came of it, or the catalog has to go on: whichever is first.
                let _ = self.node.catalog.changed.wait(Deadline::after_ms(PAUSE_MS));
                command = machine.again();
            }
        }
    }

    fn carry_out(&self, machine: &mut Destination, command: DestinationCommand) -> Result<Option<DestinationCommand>> {
        match command {
            DestinationCommand::Wipe => {
                rows::delete(self.record.buckets)?;
                failpoint::reach("move.wiped");
                Ok(machine.wiped())
            }
            DestinationCommand::Pull(pull) => self.pull(machine, &pull),
            // `pull` stores what it brings; the machine says so once.
            DestinationCommand::Store { number } => Ok(machine.stored(number)),
            DestinationCommand::ProposeFinish { source, destination } => {
                failpoint::reach("move.finishing");
                self.propose(Op::MoveFinish { id: self.record.id, source, destination })
            }
            DestinationCommand::AskRelease { finish_index } => {
                if self.ask_release(finish_index)? {
                    failpoint::reach("move.released");
                    machine.released();
                    storage::get()?.release(self.record.id, self.record.buckets);
                }
                Ok(None)
            }
            DestinationCommand::ProposeDone => self.propose(Op::MoveDone { id: self.record.id }),
        }
    }

    fn propose(&self, op: Op) -> Result<Option<DestinationCommand>> {
        let deadline = Deadline::after_ms(CALL_TIMEOUT_MS);
        crate::propose::propose(self.node, &Entry::new(op), deadline, deadline).map(|_| None)
    }

    /// Asks for the next slice and stores its rows before the machine hears of the next step.
    fn pull(&self, machine: &mut Destination, pull: &Pull) -> Result<Option<DestinationCommand>> {
        let mut args = Vec::new();
        write_array_len(&mut args, 2);
        write_uint(&mut args, self.record.id);
        write_bin(&mut args, &encode(pull)?);
        let answer = self.call(PULL_DOOR, &args)?;
        let mut reader = Reader::new(&answer);
        reader.array_len()?;
        let pulled: Pulled<BucketId> = decode(reader.bin()?)?;
        // A table that this instance has not heard of yet would be taken for one that was dropped.
        let version = reader.uint()?;
        let deadline = Deadline::after_ms(CALL_TIMEOUT_MS);
        self.node.wait_for(deadline, "the catalog of the other side", |s| (s.version >= version).then_some(()))?;
        let next = machine.answered(&pulled);
        if let Some(DestinationCommand::Store { .. }) = &next {
            self.store(reader.rest())?;
            failpoint::reach("move.stored");
        }
        Ok(next)
    }

    /// Stores a slice, in as many attempts as it takes: the machine counts on it.
    ///
    /// Errors: the last attempt's, when this instance is not the one to do it any more or the move is over.
    fn store(&self, payload: &[u8]) -> Result<()> {
        loop {
            let Err(error) = rows::store(payload) else { return Ok(()) };
            let state = self.node.state();
            let goes_on = my_tenure(self.node, &state).as_ref() == Some(&self.me)
                && state.placement.moves.get(&self.record.id).is_some_and(|m| m.phase == MovePhase::Copying);
            if !goes_on || fiber::is_cancelled() {
                return Err(error);
            }
            log::debug!("move {}: a slice is not stored yet: {error}", self.record.id);
            let _ = self.node.catalog.changed.wait(Deadline::after_ms(STORE_PAUSE_MS));
        }
    }

    fn ask_release(&self, finish_index: u64) -> Result<bool> {
        let mut args = Vec::new();
        write_array_len(&mut args, 2);
        write_uint(&mut args, self.record.id);
        write_uint(&mut args, finish_index);
        Reader::new(&self.call(RELEASE_DOOR, &args)?).bool()
    }

    /// Calls a door of the source's master.
    fn call(&self, door: &str, args: &[u8]) -> Result<Vec<u8>> {
        let state = self.node.state();
        let source = state.topology.replicaset(&self.record.from)?.master.clone();
        let source = source.ok_or_else(|| {
            Error::new(Code::NoMaster, format!("replicaset \"{}\" has no master just now", self.record.from))
        })?;
        let address: Address = state.topology.instance(&source)?.address.parse()?;
        self.node.call(&address, door, args, Deadline::after_ms(CALL_TIMEOUT_MS)).map_err(CallError::for_read)
    }
}
