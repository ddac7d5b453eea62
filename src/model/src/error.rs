//! Errors as users meet them: a stable code, a sentence, and a hint where one helps.
//!
//! The numbers are part of the public face and never change their meaning. They start at 20000, above the codes of
//! the host, and fit the 15 bits that IPROTO leaves them.

use serde::{Deserialize, Serialize};
use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Defines the codes together with what is known about each: number, name, and whether trying again can help.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $retry:expr;)*) => {
        /// What kind of error it is. `number` and `name` are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The stable name, as documented.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// Whether the same request may succeed when it is sent again, with nothing done by this attempt.
            pub fn is_retryable(self) -> bool {
                match self { $(Code::$name => $retry,)* }
            }

            /// The code with this number, if it is one of ours.
            pub fn from_number(number: u32) -> Option<Code> {
                match number { $($number => Some(Code::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// A defect of ours: an assertion failed or a panic was contained.
    Internal = 20000, "INTERNAL", false;
    /// A setting of `picodata.start` or of the cluster is missing, unknown or has a value that cannot be.
    Config = 20001, "CONFIG", false;
    /// An argument of a function has the wrong type, count or value.
    Argument = 20002, "ARGUMENT", false;
    /// The user may not do this.
    AccessDenied = 20003, "ACCESS_DENIED", false;
    /// What was asked for is known but not built, or cannot be done on this host.
    Unsupported = 20004, "UNSUPPORTED", false;
    /// The function was called before `picodata.start` had finished, or during shutdown.
    NotReady = 20005, "NOT_READY", true;

    /// The text is not SQL; the message says where.
    Syntax = 20100, "SYNTAX", false;
    NoSuchTable = 20101, "NO_SUCH_TABLE", false;
    NoSuchColumn = 20102, "NO_SUCH_COLUMN", false;
    NoSuchIndex = 20103, "NO_SUCH_INDEX", false;
    NoSuchFunction = 20104, "NO_SUCH_FUNCTION", false;
    AlreadyExists = 20105, "ALREADY_EXISTS", false;
    /// The statement names, types or nests things in a way that has no meaning.
    InvalidStatement = 20106, "INVALID_STATEMENT", false;
    /// A value does not fit the type it is meant for.
    WrongType = 20107, "WRONG_TYPE", false;
    NullViolation = 20108, "NULL_VIOLATION", false;
    DuplicateKey = 20109, "DUPLICATE_KEY", false;
    /// A string is longer, or a number larger, than its type allows.
    ValueOutOfRange = 20110, "VALUE_OUT_OF_RANGE", false;
    DivisionByZero = 20111, "DIVISION_BY_ZERO", false;
    CheckViolation = 20112, "CHECK_VIOLATION", false;
    /// Something else depends on what is to be dropped or changed.
    InUse = 20113, "IN_USE", false;

    /// A setting's limit on rows, memory, time or depth was passed.
    LimitExceeded = 20200, "LIMIT_EXCEEDED", false;
    /// Time ran out. Nothing was changed by the request.
    Timeout = 20201, "TIMEOUT", true;
    /// It is not known whether the write happened: read before trying again.
    Unknown = 20202, "UNKNOWN", false;
    Cancelled = 20203, "CANCELLED", false;

    /// The compare-and-swap of a change lost against another change.
    Conflict = 20300, "CONFLICT", true;
    /// Raft has no leader or no majority just now.
    NoLeader = 20301, "NO_LEADER", true;
    /// The replicaset has no master just now.
    NoMaster = 20302, "NO_MASTER", true;
    /// The instance asked does not own the bucket; the map has a newer epoch.
    WrongBucket = 20303, "WRONG_BUCKET", true;
    /// The bucket is changing hands; it takes writes again in a moment.
    BucketLocked = 20304, "BUCKET_LOCKED", true;
    /// An instance that is needed cannot be reached.
    Unreachable = 20305, "UNREACHABLE", true;
    /// The schema changed under the statement.
    SchemaChanged = 20306, "SCHEMA_CHANGED", true;
    /// The process belongs to another cluster.
    ForeignCluster = 20307, "FOREIGN_CLUSTER", false;
    /// Another instance of the cluster has this name.
    NameTaken = 20308, "NAME_TAKEN", false;
    NoSuchInstance = 20309, "NO_SUCH_INSTANCE", false;
    NoSuchReplicaset = 20310, "NO_SUCH_REPLICASET", false;
    /// A schema change could not be finished in its time and was undone everywhere.
    SchemaAborted = 20311, "SCHEMA_ABORTED", true;
    /// Fewer members of the replicaset are in sync than `min_in_sync` wants.
    TooFewInSync = 20312, "TOO_FEW_IN_SYNC", true;

    /// The host's storage refused: memory, disk or WAL. The message carries the host's words.
    Storage = 20400, "STORAGE", true;
    /// Data on disk is not what it should be.
    Corrupted = 20401, "CORRUPTED", false;
    /// A procedure that the user wrote raised an error.
    Procedure = 20402, "PROCEDURE", false;
}

/// An error on its way to a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    pub code: Code,
    pub message: String,
    pub hint: Option<String>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    pub fn number(&self) -> u32 {
        self.code as u32
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The candidate closest to `name`, if one is close enough to be meant: for hints like `did you mean "price"?`.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance_max = ((name.chars().count() + 1) / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance over characters, ignoring case; names longer than 128 characters count as far away.
fn edit_distance(a: &str, b: &str) -> usize {
    const CHARS_MAX: usize = 128;
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    if a.len() > CHARS_MAX || b.len() > CHARS_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_wire_and_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(*code as u32), "{code:?} twice");
            assert!((20000..0x8000).contains(&(*code as u32)));
            assert_eq!(Code::from_number(*code as u32), Some(*code));
        }
        assert_eq!(Code::from_number(1), None);
    }

    #[test]
    fn nearest_finds_a_slip_and_nothing_else() {
        let columns = ["price", "quantity", "name"];
        assert_eq!(nearest("pirce", columns), Some("price"));
        assert_eq!(nearest("prise", columns), Some("price"));
        assert_eq!(nearest("NAME", columns), Some("name"));
        assert_eq!(nearest("quantty", columns), Some("quantity"));
        assert_eq!(nearest("zzz", columns), None);
        assert_eq!(nearest("", columns), None);
    }
}
