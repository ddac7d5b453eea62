//! The destination's side of a move: deletes what an earlier attempt left, pulls, finishes, serves.

use super::{Copying, MovePhase, MoveView, Pull, Pulled, Tenure};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DestinationState {
    /// Deleting what is here of the buckets, before a copy begins or after the move was aborted.
    Wiping,
    /// Waiting for the slice after `have`.
    Pulling { have: u64 },
    /// Storing a slice, on all members in sync.
    Storing { number: u64, last: bool },
    /// Everything is here; the end of the move is proposed.
    Finishing,
    /// Serves reads. The source may do so too until it has applied the end.
    ReadOnly { finish_index: u64 },
    /// Serves.
    Active,
    /// The move was aborted, and nothing is left of the copy.
    Cleaned,
}

/// What the module has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DestinationCommand {
    /// Delete all rows of the buckets on all members in sync, then call `wiped`.
    Wipe,
    Pull(Pull),
    /// Store the rows of the slice just received on all members in sync, then call `stored`.
    Store {
        number: u64,
    },
    ProposeFinish {
        source: Tenure,
        destination: Tenure,
    },
    /// Ask the source whether it has applied the log up to here; then call `released`.
    AskRelease {
        finish_index: u64,
    },
    ProposeDone,
}

/// The destination of one move, on the master of its replicaset.
///
/// Each method answers what to do next; `again` answers it once more when something may have been lost. The module makes
/// a new one when it becomes master or restarts, after it has applied its new tenure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    state: DestinationState,
    /// This tenure's present copy.
    copy: Copying,
    /// The source's master, as far as the log is applied here. Slices of another are not taken: of an older one because
    /// they are void, of a newer one because its end of the move could come before this side has heard of it.
    master: Option<Tenure>,
    /// Whose slices the copy holds.
    source: Option<Tenure>,
    aborted: bool,
}

impl Destination {
    /// The destination as the catalog has it, and what to do at once.
    pub fn new(me: Tenure, view: &MoveView) -> (Self, Option<DestinationCommand>) {
        let state = match view.phase {
            Some(MovePhase::Copying | MovePhase::Aborted) => DestinationState::Wiping,
            Some(MovePhase::Finished) => DestinationState::ReadOnly { finish_index: view.index },
            None if view.moved => DestinationState::Active,
            None => DestinationState::Cleaned,
        };
        let aborted = view.phase == Some(MovePhase::Aborted);
        let copy = Copying { destination: me, attempt: 1 };
        let destination = Self { state, copy, master: view.source.clone(), source: None, aborted };
        let command = destination.again();
        (destination, command)
    }

    pub fn state(&self) -> &DestinationState {
        &self.state
    }

    pub fn reads(&self) -> bool {
        matches!(self.state, DestinationState::ReadOnly { .. } | DestinationState::Active)
    }

    pub fn writes(&self) -> bool {
        self.state == DestinationState::Active
    }

    /// What is to be done in the present state: a request or proposal may have been lost.
    pub fn again(&self) -> Option<DestinationCommand> {
        Some(match &self.state {
            DestinationState::Wiping => DestinationCommand::Wipe,
            DestinationState::Pulling { have } => {
                DestinationCommand::Pull(Pull { copy: self.copy.clone(), have: *have })
            }
            DestinationState::Finishing => DestinationCommand::ProposeFinish {
                source: self.source.clone()?,
                destination: self.copy.destination.clone(),
            },
            DestinationState::ReadOnly { finish_index } => {
                DestinationCommand::AskRelease { finish_index: *finish_index }
            }
            DestinationState::Cleaned => DestinationCommand::ProposeDone,
            // The module is at it; it does not lose what it does itself.
            DestinationState::Storing { .. } | DestinationState::Active => return None,
        })
    }

    fn start_over(&mut self) -> Option<DestinationCommand> {
        self.state = DestinationState::Wiping;
        self.copy.attempt += 1;
        self.source = None;
        self.again()
    }

    /// The rows of the buckets are deleted.
    pub fn wiped(&mut self) -> Option<DestinationCommand> {
        if self.state != DestinationState::Wiping {
            return None;
        }
        self.state = if self.aborted { DestinationState::Cleaned } else { DestinationState::Pulling { have: 0 } };
        self.again()
    }

    /// The source answered. Late and repeated answers are passed over.
    pub fn answered<K>(&mut self, answer: &Pulled<K>) -> Option<DestinationCommand> {
        let DestinationState::Pulling { have } = self.state else { return None };
        match answer {
            Pulled::Later => None,
            Pulled::StartOver { copy } if *copy == self.copy => self.start_over(),
            Pulled::Slice { copy, source, number, last, .. } if *copy == self.copy && *number > have => {
                if self.master.as_ref() != Some(source) {
                    return None;
                }
                self.source = Some(source.clone());
                self.state = DestinationState::Storing { number: *number, last: *last };
                Some(DestinationCommand::Store { number: *number })
            }
            Pulled::StartOver { .. } | Pulled::Slice { .. } => None,
        }
    }

    /// The slice is stored on all members in sync.
    pub fn stored(&mut self, number: u64) -> Option<DestinationCommand> {
        match self.state {
            DestinationState::Storing { number: storing, last } if storing == number => {
                self.state =
                    if last { DestinationState::Finishing } else { DestinationState::Pulling { have: number } };
                self.again()
            }
            _ => None,
        }
    }

    /// The source has stopped serving: it said so, or its lease is over and it can not serve again before it has applied
    /// the end of the move.
    pub fn released(&mut self) {
        if matches!(self.state, DestinationState::ReadOnly { .. }) {
            self.state = DestinationState::Active;
        }
    }

    /// An entry of the log was applied.
    pub fn applied(&mut self, view: &MoveView) -> Option<DestinationCommand> {
        self.master = view.source.clone();
        match view.phase {
            Some(MovePhase::Finished) if !self.reads() => {
                self.state = DestinationState::ReadOnly { finish_index: view.index };
                self.again()
            }
            // The record goes when the side that had a copy to delete has deleted it.
            None => {
                self.state = if view.moved { DestinationState::Active } else { DestinationState::Cleaned };
                None
            }
            Some(MovePhase::Aborted) if !self.aborted => {
                self.aborted = true;
                self.start_over()
            }
            // A source that was replaced has lost track of what changed.
            Some(MovePhase::Copying)
                if self.source.is_some() && self.master.is_some() && self.master != self.source =>
            {
                self.start_over()
            }
            _ => None,
        }
    }
}
