//! Errors of calls: what went wrong, and whether the other side can have done what was asked.

use model::{Code, Error};

/// What is known about the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It did not leave this instance: nothing was done.
    NotSent,
    /// It was handed to the network and no answer came: it may have been carried out, or still be.
    Sent,
    /// The other side answered with this error.
    Answered,
}

#[derive(Clone, Debug)]
pub struct CallError {
    pub error: Error,
    pub fate: Fate,
}

impl CallError {
    pub fn not_sent(error: Error) -> CallError {
        CallError { error, fate: Fate::NotSent }
    }

    pub fn sent(error: Error) -> CallError {
        CallError { error, fate: Fate::Sent }
    }

    pub fn answered(error: Error) -> CallError {
        CallError { error, fate: Fate::Answered }
    }

    /// The error for a request that changes nothing, or that can be repeated.
    pub fn for_read(self) -> Error {
        self.error
    }

    /// The error for a write: without an answer its outcome is `Unknown`.
    pub fn for_write(self) -> Error {
        match self.fate {
            Fate::NotSent | Fate::Answered => self.error,
            Fate::Sent => {
                Error::new(Code::Unknown, format!("the write may have happened or not: {}", self.error.message))
                    .with_hint("read before trying again")
            }
        }
    }
}
