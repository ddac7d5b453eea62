//! The side that gives buckets away: answers pulls, closes, deletes its copy.

use super::{my_tenure, rows, view};
use crate::host::{Call, Deadline, failpoint, fiber};
use crate::node::Node;
use crate::start::join::{decode, encode};
use crate::storage::{self, Storage};
use catalog::{Move, MoveId, Op, State};
use model::msgpack::{Reader, write_array_len, write_bin, write_bool, write_uint};
use model::{BucketId, Code, Error, ReplicasetName, Result};
use sharding::BucketRange;
use sharding::moves::{Answer, MoveView, Pull, Pulled, Rounds, Source, SourceCommand, SourceState, Tenure};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// Buckets that were written to and go with one slice: at first, and where they are small.
const TOUCHED_FIRST: usize = 4;
const TOUCHED_MAX: usize = 256;
/// A slice below this size makes the next one take more of them, one above `SLICE_BYTES` fewer.
const SMALL_BYTES: usize = rows::SLICE_BYTES / 4;
const PROPOSE_TIMEOUT_MS: u64 = 5_000;

/// A move out of here.
struct Leaving {
    record: Move,
    /// A slice is being read: for vinyl that yields, with the copy borrowed.
    is_busy: Cell<bool>,
    /// The catalog changed meanwhile, and the machine has not been told.
    is_behind: Cell<bool>,
    copy: RefCell<Copy>,
}

/// What the destination is being given.
struct Copy {
    machine: Source<BucketId, BucketId>,
    /// Written to since they were last sent, as the machine has them.
    pending: BTreeSet<BucketId>,
    /// The scan has seen every bucket.
    is_scanned: bool,
    rounds: Rounds,
    /// How many of the buckets written to go with the next slice.
    touched_max: usize,
    /// Until when the buckets are closed for the rest of the copy; None while they take writes, or are closed for good.
    closed_until: Option<Deadline>,
    /// The latest slice, in case its answer was lost.
    latest: Vec<u8>,
}

impl Leaving {
    fn new(record: Move, machine: Source<BucketId, BucketId>) -> Rc<Self> {
        let copy = RefCell::new(Copy {
            machine,
            pending: BTreeSet::new(),
            is_scanned: false,
            rounds: Rounds::default(),
            touched_max: TOUCHED_FIRST,
            closed_until: None,
            latest: Vec::new(),
        });
        Rc::new(Self { record, is_busy: Cell::new(false), is_behind: Cell::new(false), copy })
    }

    /// Closes the buckets for the rest of the copy, for so long at most, and waits for the writes under way.
    ///
    /// Errors: `Timeout` when they do not end in time; the buckets are open again then.
    fn close(self: &Rc<Self>, storage: &Storage, closed_ms: u64) -> Result<()> {
        let (id, buckets, until) = (self.record.id, self.record.buckets, Deadline::after_ms(closed_ms));
        self.copy.borrow_mut().closed_until = Some(until);
        let closed = storage.close(id, buckets, until).and_then(|()| {
            // The destination may never ask for more.
            let leaving = Rc::clone(self);
            fiber::spawn("pico_move_close", move || {
                fiber::sleep(until.left_s());
                leaving.open_when_late();
            })
        });
        closed.map(|_| ()).inspect_err(|_| self.copy.borrow_mut().open_again(storage, &self.record))
    }

    /// Takes writes again when the rest of the copy takes too long. What is being read at this moment looks itself, later.
    fn open_when_late(&self) {
        let (Ok(mut copy), Ok(storage)) = (self.copy.try_borrow_mut(), storage::get()) else { return };
        if copy.is_late() {
            log::info!("move {}: writes go on, the rest of the copy takes too long", self.record.id);
            copy.open_again(storage, &self.record);
        }
    }

    /// Tells the machine what the catalog says.
    fn applied(&self, state: &State) -> Vec<SourceCommand> {
        let Ok(mut copy) = self.copy.try_borrow_mut() else {
            self.is_behind.set(true);
            return Vec::new();
        };
        let before = copy.machine.state();
        let commands = copy.machine.applied(&view(state, &self.record));
        if before != copy.machine.state() && copy.machine.state() == SourceState::Active {
            copy.closed_until = None;
            self.reopen();
        }
        commands
    }

    /// Serves as if nothing were being copied.
    fn reopen(&self) {
        if let Ok(storage) = storage::get() {
            storage.guard.borrow_mut().end_copy(self.record.buckets);
            storage.reopen(self.record.id, self.record.buckets);
        }
    }

    fn is_gone(&self) -> bool {
        self.copy.try_borrow().is_ok_and(|copy| copy.machine.state() == SourceState::Gone)
    }
}

/// The moves out of here, each with the tenure that its machine was made in.
type Machines = HashMap<MoveId, (Tenure, Rc<Leaving>)>;

thread_local! {
    static LEAVING: RefCell<Machines> = RefCell::default();
}

/// This instance is no master any more: what it promised is void.
pub fn forget_all() {
    LEAVING.with_borrow_mut(HashMap::clear);
}

/// The catalog changed: every move out of here has a machine, which is told.
pub fn on_change(node: &'static Node, state: &State, me: &Tenure, replicaset: &ReplicasetName) {
    let mut work = Vec::new();
    LEAVING.with_borrow_mut(|leaving| {
        leaving.retain(|_, (tenure, _)| tenure == me);
        for m in state.placement.moves.values().filter(|m| m.from == *replicaset) {
            leaving.entry(m.id).or_insert_with(|| {
                let (machine, commands) = Source::new(me.clone(), &view(state, m));
                let leaving = Leaving::new(m.clone(), machine);
                work.push((Rc::clone(&leaving), commands));
                (me.clone(), leaving)
            });
        }
        work.extend(leaving.values().map(|(_, one)| (Rc::clone(one), one.applied(state))));
        leaving.retain(|id, (_, one)| state.placement.moves.contains_key(id) || !one.is_gone());
    });
    for (one, commands) in work {
        if commands.contains(&SourceCommand::DeleteCopy) {
            let spawned = fiber::spawn("pico_move_drop", move || delete_copy(node, &one));
            if let Err(error) = spawned {
                log::warn!("moves: no fiber: {error}");
            }
        }
    }
}

/// Deletes the rows when no scan needs them, and tells the catalog.
fn delete_copy(node: &'static Node, leaving: &Leaving) {
    let record = &leaving.record;
    let work = || -> Result<()> {
        let storage = storage::get()?;
        storage.guard.borrow_mut().end_copy(record.buckets);
        storage.wait_unread(record.buckets, Deadline::NEVER)?;
        failpoint::reach("move.dropping");
        rows::delete(record.buckets)?;
        failpoint::reach("move.dropped");
        // Nothing is borrowed while the proposal waits.
        let commands = leaving.copy.borrow().machine.deleted();
        if commands.contains(&SourceCommand::ProposeDone) {
            node.propose(Op::MoveDone { id: record.id }, Deadline::after_ms(PROPOSE_TIMEOUT_MS))?;
        }
        Ok(())
    };
    // Another master, or this one after a restart, does it again when it fails.
    while let Err(error) = work() {
        log::warn!("move {}: the copy that is left is not deleted yet: {error}", record.id);
        if my_tenure(node, &node.state()).is_none() || !node.state().placement.moves.contains_key(&record.id) {
            return;
        }
        fiber::sleep(0.5);
    }
}

fn find(id: MoveId) -> Result<Rc<Leaving>> {
    let found = LEAVING.with_borrow(|leaving| leaving.get(&id).map(|(_, one)| Rc::clone(one)));
    found.ok_or_else(|| Error::new(Code::NotReady, format!("move {id} is not known on this instance yet")))
}

/// Takes `[id, pull]`, answers `[pulled, catalog version, payload]`: the version that the rows were read at.
pub fn serve_pull(node: &'static Node, call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let id = reader.uint()?;
    let pull: Pull = decode(reader.bin()?)?;
    let leaving = find(id)?;
    if leaving.is_busy.replace(true) {
        return Err(Error::new(Code::NotReady, "another slice of this move is being read"));
    }
    let answer = answer_pull(node, &leaving, &pull);
    leaving.is_busy.set(false);
    if leaving.is_behind.take() {
        super::on_change(node, &node.state());
    }
    call.reply(&answer?)
}

fn answer_pull(node: &'static Node, leaving: &Rc<Leaving>, pull: &Pull) -> Result<Vec<u8>> {
    let storage = storage::get()?;
    let record = &leaving.record;
    leaving.open_when_late();
    let close_for_ms = leaving.copy.borrow_mut().close_for_ms(storage, record.buckets);
    if let Some(closed_ms) = close_for_ms {
        failpoint::reach("move.closing");
        leaving.close(storage, closed_ms)?;
    }
    let state = node.state();
    let mut copy = leaving.copy.borrow_mut();
    let reply = copy.slice(storage, record, &view(&state, record), pull);
    match copy.machine.state() {
        // The destination may own the buckets any moment: they open when the catalog says so.
        SourceState::Closed => copy.closed_until = None,
        SourceState::Sending if copy.is_scanned && !copy.is_late() => {}
        // The copy was given up, another began, or it takes too long.
        _ if copy.closed_until.is_some() => copy.open_again(storage, record),
        _ => {}
    }
    reply
}

impl Copy {
    /// Takes over which buckets were written to.
    fn note_touched(&mut self, storage: &Storage, buckets: BucketRange) {
        let touched = storage.guard.borrow_mut().take_touched(buckets);
        if self.machine.writes() {
            touched.iter().for_each(|bucket| self.machine.wrote(*bucket));
            self.pending.extend(touched);
        }
    }

    /// Whether the buckets are to be closed now, and for how long.
    fn close_for_ms(&mut self, storage: &Storage, buckets: BucketRange) -> Option<u64> {
        self.note_touched(storage, buckets);
        let may_close = self.is_scanned && self.closed_until.is_none() && self.machine.state() == SourceState::Sending;
        if may_close { self.rounds.close_for_ms(self.pending.len()) } else { None }
    }

    /// Whether writes have waited for the rest of the copy for as long as they may.
    fn is_late(&self) -> bool {
        self.closed_until.is_some_and(|until| until.has_passed())
    }

    /// Takes writes again before all was sent.
    fn open_again(&mut self, storage: &Storage, record: &Move) {
        self.closed_until = None;
        self.rounds.opened_again();
        storage.reopen(record.id, record.buckets);
    }

    /// Reads the next slice and encodes the answer. A bucket that is written to while it is read, which happens to vinyl
    /// only, is noted before it is read and goes with a later slice.
    fn slice(&mut self, storage: &Storage, record: &Move, seen: &MoveView, pull: &Pull) -> Result<Vec<u8>> {
        let buckets = record.buckets;
        self.note_touched(storage, buckets);
        // The scan is over with the slice that holds all the rest of buckets that are closed, so that only it can be the last.
        let is_last = self.closed_until.is_some() && self.pending.len() <= self.touched_max;
        let beyond = buckets.last + 1;
        let (mut payload, mut count, mut read) = (Vec::new(), 0, Ok(false));
        let mut begins = false;
        let answer = self.machine.pull(seen, pull, self.touched_max, |from| {
            if from.is_none() {
                // A new copy, and not the first pull of one once more: that must not forget what was written since.
                begins = true;
                storage.guard.borrow_mut().begin_copy(buckets);
            }
            match from.copied().unwrap_or(buckets.first) {
                from if from == beyond => (!is_last).then_some(beyond),
                from => match rows::read_slice(buckets, from, &mut payload) {
                    Ok((buckets, next)) => {
                        count += buckets;
                        read = Ok(next.is_none());
                        Some(next.unwrap_or(beyond))
                    }
                    Err(error) => {
                        read = Err(error);
                        Some(from)
                    }
                },
            }
        });
        if begins {
            (self.is_scanned, self.rounds) = (false, Rounds::default());
            self.pending.clear();
        }
        match read {
            Ok(is_over) => self.is_scanned |= is_over,
            Err(error) => {
                self.machine.give_up_copy();
                return Err(error);
            }
        }
        let pulled = match answer {
            Answer::SendAgain => {
                log::info!("move {}: the latest slice is sent again", record.id);
                return Ok(self.latest.clone());
            }
            Answer::Nothing => return Err(Error::new(Code::Conflict, "the pull is one from long ago")),
            Answer::Send(pulled) => pulled,
        };
        if let Pulled::Slice { changed, .. } = &pulled {
            let (changed, scanned_bytes) = (changed.iter().copied().collect(), payload.len());
            rows::read_buckets(&changed, &mut payload).inspect_err(|_| self.machine.give_up_copy())?;
            count += changed.len();
            self.pending.retain(|bucket| !changed.contains(bucket));
            self.rounds.sent(changed.len());
            self.touched_max = match payload.len() - scanned_bytes {
                0..SMALL_BYTES => (self.touched_max * 2).min(TOUCHED_MAX),
                SMALL_BYTES..=rows::SLICE_BYTES => self.touched_max,
                _ => (self.touched_max / 2).max(1),
            };
        }
        let version = storage.guard.borrow().version();
        let reply = encode_answer(&pulled, version, count, &payload)?;
        if matches!(pulled, Pulled::Slice { .. }) {
            self.latest.clone_from(&reply);
        }
        Ok(reply)
    }
}

fn encode_answer(pulled: &Pulled<BucketId>, version: u64, count: usize, payload: &[u8]) -> Result<Vec<u8>> {
    let mut reply = Vec::with_capacity(payload.len() + 256);
    write_array_len(&mut reply, 3);
    write_bin(&mut reply, &encode(pulled)?);
    write_uint(&mut reply, version);
    write_array_len(&mut reply, count);
    reply.extend_from_slice(payload);
    Ok(reply)
}

/// Takes `[id, index]`: answers whether this instance has applied the log so far and serves the buckets no more.
pub fn serve_release(node: &'static Node, call: &mut Call<'_>) -> Result<()> {
    let mut reader = Reader::new(call.args());
    reader.array_len()?;
    let id = reader.uint()?;
    let finish_index = reader.uint()?;
    node.raft.wait_applied(finish_index, Deadline::after_ms(PROPOSE_TIMEOUT_MS));
    let state = node.state();
    let is_released = match find(id) {
        Ok(leaving) => {
            let seen = view(&state, &leaving.record);
            leaving.copy.try_borrow().is_ok_and(|copy| copy.machine.may_release(&seen, finish_index))
        }
        // The record is gone, or this master never served the buckets.
        Err(_) => state.index >= finish_index,
    };
    let mut reply = Vec::new();
    write_bool(&mut reply, is_released);
    call.reply(&reply)
}
