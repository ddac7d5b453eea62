//! The source's side of a move: serves, answers pulls, closes, lets go.

use super::{Copying, MovePhase, MoveView, Pull, Pulled, Tenure};
use std::collections::BTreeSet;

/// Changed keys that wait to be sent at most; beyond it the copy begins anew.
pub const CHANGES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceState {
    /// Serves, and nothing is being copied.
    Active,
    /// Serves, and keeps the keys that change.
    Sending,
    /// Serves reads. The destination may own the buckets any moment.
    Closed,
    /// Serves nothing; the copy is to be deleted.
    Moved,
    /// There is no copy any more.
    Gone,
}

/// What the module has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceCommand {
    /// Tell the destination that it may take writes.
    Release,
    /// Delete the rows as soon as no scan needs them, then call `deleted`.
    DeleteCopy,
    ProposeDone,
}

/// How to answer a pull.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer<K> {
    /// With the rows scanned and the changed keys' rows. A slice is kept until the next.
    Send(Pulled<K>),
    /// The last slice once more, as it was: what changed since follows in the next.
    SendAgain,
    /// The pull is one from long ago.
    Nothing,
}

/// How far the scan of the rows is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Cursor<C> {
    Start,
    At(C),
    End,
}

/// The source of one move, on the master of its replicaset. `K` is a row's key, `C` the storage's cursor.
///
/// The module asks `reads` and `writes` before it serves, calls `wrote` for every row it changes, and `applied` after
/// every log entry. It makes a new one when it becomes master or restarts, after it has applied its new tenure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source<K, C> {
    me: Tenure,
    state: SourceState,
    /// The copy that is under way, or was: then the state is Active.
    copy: Option<Copying>,
    /// The number of its latest slice.
    latest: u64,
    cursor: Cursor<C>,
    /// Rows that came, changed or went since they were last sent. All keys are kept, also those that the scan has yet to
    /// reach: the order of keys is the storage's affair. A row that is sent twice does no harm.
    changed: BTreeSet<K>,
}

impl<K: Ord + Clone, C> Source<K, C> {
    /// The source as the catalog has it, and what to do at once.
    pub fn new(me: Tenure, view: &MoveView) -> (Self, Vec<SourceCommand>) {
        let state = SourceState::Active;
        let mut source = Self { me, state, copy: None, latest: 0, cursor: Cursor::Start, changed: BTreeSet::new() };
        let commands = source.applied(view);
        (source, commands)
    }

    pub fn state(&self) -> SourceState {
        self.state
    }

    pub fn reads(&self) -> bool {
        matches!(self.state, SourceState::Active | SourceState::Sending | SourceState::Closed)
    }

    pub fn writes(&self) -> bool {
        matches!(self.state, SourceState::Active | SourceState::Sending)
    }

    /// A row of the buckets was changed here, in the transaction that is being committed.
    pub fn wrote(&mut self, key: K) {
        assert!(self.writes(), "a write was let through in state {:?}", self.state);
        if self.state == SourceState::Sending {
            self.changed.insert(key);
            if self.changed.len() > CHANGES_MAX {
                self.give_up_copy();
            }
        }
    }

    /// An entry of the log, or a snapshot, was applied.
    pub fn applied(&mut self, view: &MoveView) -> Vec<SourceCommand> {
        let copying = view.phase == Some(MovePhase::Copying);
        let copier = self.copy.as_ref().map(|copy| &copy.destination);
        match self.state {
            SourceState::Active | SourceState::Sending | SourceState::Closed if view.moved => {
                self.changed = BTreeSet::new();
                if view.phase.is_some() {
                    self.state = SourceState::Moved;
                    return vec![SourceCommand::Release, SourceCommand::DeleteCopy];
                }
                self.state = SourceState::Gone;
            }
            SourceState::Moved if view.phase.is_none() => self.state = SourceState::Gone,
            // A destination that was replaced can not finish any more, so it is safe to open again.
            SourceState::Sending | SourceState::Closed if !copying || view.destination.as_ref() != copier => {
                self.open()
            }
            _ => {}
        }
        vec![]
    }

    /// Keeps no more changes, because there are too many or the memory is needed: the destination begins anew.
    pub fn give_up_copy(&mut self) {
        if self.state == SourceState::Sending {
            self.open();
        }
    }

    /// Serves again as if nothing were being copied. The copy is remembered, so that it can not go on.
    fn open(&mut self) {
        self.state = SourceState::Active;
        self.changed = BTreeSet::new();
    }

    /// The destination pulls. `scan` reads rows behind a cursor (None: from the first) and answers the cursor to go on
    /// from, or None at the end; it and the reading of the changed keys' rows happen in one go with this call, so that no
    /// write comes between. The buckets are closed as soon as a slice with `keys_max` changed keys completes the copy.
    pub fn pull(
        &mut self,
        view: &MoveView,
        pull: &Pull,
        keys_max: usize,
        scan: impl FnOnce(Option<&C>) -> Option<C>,
    ) -> Answer<K> {
        let current = view.phase == Some(MovePhase::Copying)
            && view.source.as_ref() == Some(&self.me)
            && view.destination.as_ref() == Some(&pull.copy.destination);
        if !current || !self.reads() {
            return Answer::Send(Pulled::Later);
        }
        let known = self.copy.as_ref().filter(|known| known.destination == pull.copy.destination);
        match known.map(|known| known.attempt) {
            Some(known) if known > pull.copy.attempt => return Answer::Nothing,
            Some(known) if known == pull.copy.attempt => {
                // Given up: its changes were forgotten.
                if self.state == SourceState::Active {
                    return Answer::Send(Pulled::StartOver { copy: pull.copy.clone() });
                }
                if pull.have != self.latest {
                    let once_more = pull.have.checked_add(1) == Some(self.latest);
                    return if once_more { Answer::SendAgain } else { Answer::Nothing };
                }
            }
            _ if pull.have > 0 => return Answer::Send(Pulled::StartOver { copy: pull.copy.clone() }),
            _ => self.begin(&pull.copy),
        }
        Answer::Send(self.slice(pull, keys_max, scan))
    }

    fn begin(&mut self, copy: &Copying) {
        self.copy = Some(copy.clone());
        self.latest = 0;
        self.cursor = Cursor::Start;
        self.changed = BTreeSet::new();
        // Closed stays closed: an earlier copy of this tenure may be finishing.
        if self.state == SourceState::Active {
            self.state = SourceState::Sending;
        }
    }

    fn slice(&mut self, pull: &Pull, keys_max: usize, scan: impl FnOnce(Option<&C>) -> Option<C>) -> Pulled<K> {
        let reached = match &self.cursor {
            Cursor::Start => scan(None),
            Cursor::At(cursor) => scan(Some(cursor)),
            Cursor::End => None,
        };
        self.cursor = reached.map_or(Cursor::End, Cursor::At);
        let mut changed = vec![];
        while changed.len() < keys_max
            && let Some(key) = self.changed.pop_first()
        {
            changed.push(key);
        }
        let last = matches!(self.cursor, Cursor::End) && self.changed.is_empty();
        if last {
            self.state = SourceState::Closed;
        }
        self.latest += 1;
        Pulled::Slice { copy: pull.copy.clone(), source: self.me.clone(), number: self.latest, changed, last }
    }

    /// The destination asks whether it may take writes, having applied the end of the move at `finish_index`.
    pub fn may_release(&self, view: &MoveView, finish_index: u64) -> bool {
        view.index >= finish_index && !self.reads()
    }

    /// The copy is deleted.
    pub fn deleted(&self) -> Vec<SourceCommand> {
        if self.state == SourceState::Moved { vec![SourceCommand::ProposeDone] } else { vec![] }
    }
}
