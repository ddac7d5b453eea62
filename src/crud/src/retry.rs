//! Whether a router tries again, decided without a clock or a network.
//!
//! What was refused changed nothing and is tried again once the catalog or the connections have changed. What was
//! sent and not answered may have happened: a read is asked again, a write never is.

use model::{Code, Error};

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The other instance answered: nothing was done. With the catalog version that it had applied.
    Refused(Error, u64),
    /// It was not sent.
    NotSent(Error),
    /// It was sent, and no answer came.
    NoAnswer(Error),
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again when the catalog here has this version, or when anything changes that the answer may depend on.
    Wait { version: u64 },
    /// Tell the user.
    Fail(Error),
}

/// Decides about a failed attempt of a read or a write.
pub fn next(failure: Failure, is_write: bool) -> Next {
    match failure {
        Failure::Refused(error, version) if is_passing(error.code) => Next::Wait { version },
        Failure::Refused(error, _) => Next::Fail(error),
        Failure::NotSent(error) if is_network(error.code) => Next::Wait { version: 0 },
        Failure::NotSent(error) => Next::Fail(error),
        Failure::NoAnswer(error) if !is_network(error.code) => Next::Fail(error),
        Failure::NoAnswer(_) if !is_write => Next::Wait { version: 0 },
        Failure::NoAnswer(error) => Next::Fail(unknown(&error)),
    }
}

/// The error of a request whose time ran out while it waited to be tried again: nothing was changed.
pub fn out_of_time(last: &Error) -> Error {
    let error = Error::new(Code::Timeout, format!("time ran out: {}", last.message));
    match &last.hint {
        Some(hint) => error.with_hint(hint.clone()),
        None => error,
    }
}

/// What another attempt can find different.
fn is_passing(code: Code) -> bool {
    use Code::{BucketLocked, NoMaster, NotReady, SchemaChanged, TooFewInSync, WrongBucket};
    matches!(code, WrongBucket | BucketLocked | NoMaster | SchemaChanged | NotReady | TooFewInSync)
}

fn is_network(code: Code) -> bool {
    matches!(code, Code::Unreachable | Code::Timeout | Code::Unknown | Code::NotReady)
}

fn unknown(cause: &Error) -> Error {
    Error::new(Code::Unknown, format!("it is not known whether the write happened: {}", cause.message))
        .with_hint("read the row before you write it again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code) -> Error {
        Error::new(code, "why")
    }

    #[test]
    fn a_write_that_may_have_happened_is_never_tried_again() {
        for code in Code::ALL {
            match next(Failure::NoAnswer(error(*code)), true) {
                Next::Wait { .. } => panic!("{code:?}"),
                Next::Fail(told) => {
                    let expected = if is_network(*code) { Code::Unknown } else { *code };
                    assert_eq!(told.code, expected);
                }
            }
        }
    }

    #[test]
    fn what_changed_nothing_is_tried_again_when_that_can_help() {
        assert_eq!(next(Failure::Refused(error(Code::WrongBucket), 9), true), Next::Wait { version: 9 });
        assert_eq!(next(Failure::Refused(error(Code::BucketLocked), 9), true), Next::Wait { version: 9 });
        assert_eq!(next(Failure::Refused(error(Code::DuplicateKey), 9), true), Next::Fail(error(Code::DuplicateKey)));
        assert_eq!(next(Failure::NotSent(error(Code::Unreachable)), true), Next::Wait { version: 0 });
        assert_eq!(next(Failure::NotSent(error(Code::Cancelled)), true), Next::Fail(error(Code::Cancelled)));
        assert_eq!(next(Failure::NoAnswer(error(Code::Unreachable)), false), Next::Wait { version: 0 });
    }
}
