//! Settings of the cluster: known names with types, defaults and bounds.
//!
//! Only what differs from the default is stored, so that a new default reaches old clusters.

use model::error::nearest;
use model::{Code, Error, Result, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer { default: i64, min: i64, max: i64 },
    Boolean { default: bool },
}

/// Defines the settings: identifier, name, kind, meaning.
macro_rules! settings {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $kind:expr;)*) => {
        /// A setting that the cluster knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Setting { $($(#[doc = $doc])* $name,)* }

        impl Setting {
            /// Every setting, in the order of the documentation.
            pub const ALL: &'static [Setting] = &[$(Setting::$name,)*];

            pub fn name(self) -> &'static str {
                match self { $(Setting::$name => $text,)* }
            }

            pub fn kind(self) -> Kind {
                use Kind::{Boolean, Integer};
                match self { $(Setting::$name => $kind,)* }
            }

            /// What it means, for `SHOW` and the documentation.
            pub fn meaning(self) -> &'static str {
                match self { $(Setting::$name => concat!($($doc,)*),)* }
            }
        }
    };
}

settings! {
    /// Memory that one query may take on one instance, in MiB.
    SqlMemoryMaxMb = "sql_memory_max_mb", Integer { default: 512, min: 8, max: 1 << 20 };
    /// Memory of one instance for columns of tables that are read again and again, in MiB; 0 keeps none.
    SqlColumnarMaxMb = "sql_columnar_max_mb", Integer { default: 512, min: 0, max: 1 << 20 };
    /// Queries that run at the same time on one instance; more wait.
    SqlConcurrentMax = "sql_concurrent_max", Integer { default: 64, min: 1, max: 4_096 };
    /// Rows that one query may answer.
    SqlRowsMax = "sql_rows_max", Integer { default: 1_000_000, min: 1, max: 1_000_000_000 };
    /// Seconds that one statement may take.
    SqlTimeoutS = "sql_timeout_s", Integer { default: 60, min: 1, max: 86_400 };
    /// Seconds after which a schema change that did not reach every replicaset is undone, unless it says otherwise.
    SchemaTimeoutS = "schema_timeout_s", Integer { default: 10, min: 1, max: 3_600 };
    /// Members of a replicaset, the master among them, that have to be in sync for it to take writes.
    MinInSync = "min_in_sync", Integer { default: 1, min: 1, max: 31 };
    /// Milliseconds that a write waits for the members in sync before its outcome is unknown.
    AckTimeoutMs = "ack_timeout_ms", Integer { default: 10_000, min: 10, max: 600_000 };
    /// Milliseconds without an answer after which an instance counts as offline.
    OfflineAfterMs = "offline_after_ms", Integer { default: 800, min: 100, max: 600_000 };
    /// Milliseconds that a master goes on serving without hearing from the Raft leader.
    LeaseMs = "lease_ms", Integer { default: 700, min: 100, max: 10_000 };
    /// Raft voters at most: 1, 3 or 5 (an even number counts as the odd one below).
    VotersMax = "voters_max", Integer { default: 5, min: 1, max: 5 };
    /// Whether buckets are moved to where the weights want them.
    Balance = "balance", Boolean { default: true };
    /// Buckets in one move.
    MoveBucketsMax = "move_buckets_max", Integer { default: 100, min: 1, max: 100_000 };
    /// Moves out of one replicaset at a time.
    MovesOutMax = "moves_out_max", Integer { default: 1, min: 1, max: 16 };
    /// Moves into one replicaset at a time.
    MovesInMax = "moves_in_max", Integer { default: 2, min: 1, max: 16 };
    /// Seconds after which a move that did not finish is given up.
    MoveTimeoutS = "move_timeout_s", Integer { default: 600, min: 1, max: 86_400 };
}

impl Setting {
    /// The setting of this name.
    ///
    /// Errors: `Config`, with the nearest name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|setting| setting.name() == name).ok_or_else(|| {
            let error = Error::new(Code::Config, format!("there is no setting \"{name}\""));
            match nearest(name, Self::ALL.iter().map(|setting| setting.name())) {
                Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                None => error,
            }
        })
    }

    pub fn default(self) -> Value {
        match self.kind() {
            Kind::Integer { default, .. } => Value::Integer(default),
            Kind::Boolean { default } => Value::Boolean(default),
        }
    }

    /// Checks a value for this setting.
    ///
    /// Errors: `Config` with what would be right.
    pub fn check(self, value: &Value) -> Result<()> {
        let name = self.name();
        let wrong = |wanted: String| Err(Error::new(Code::Config, format!("setting \"{name}\" takes {wanted}")));
        match (self.kind(), value) {
            (Kind::Boolean { .. }, Value::Boolean(_)) => Ok(()),
            (Kind::Boolean { .. }, _) => wrong("true or false".into()),
            (Kind::Integer { min, max, .. }, Value::Integer(i)) if (min..=max).contains(i) => Ok(()),
            (Kind::Integer { min, max, .. }, _) => wrong(format!("a whole number from {min} to {max}")),
        }
    }
}

/// A value and the catalog version that set it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub value: Value,
    pub version: u64,
}

/// The settings of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings {
    pub(crate) stored: BTreeMap<String, Stored>,
}

impl Settings {
    /// The value in force.
    pub fn get(&self, setting: Setting) -> Value {
        self.stored.get(setting.name()).map_or_else(|| setting.default(), |stored| stored.value.clone())
    }

    /// The value in force of a setting that is a number; 0 for others.
    pub fn integer(&self, setting: Setting) -> i64 {
        match self.get(setting) {
            Value::Integer(i) => i,
            _ => 0,
        }
    }

    /// The value in force of a setting that is a number, as a count.
    pub fn count(&self, setting: Setting) -> usize {
        usize::try_from(self.integer(setting)).unwrap_or(0)
    }

    /// The value in force of a setting that is true or false; false for others.
    pub fn boolean(&self, setting: Setting) -> bool {
        self.get(setting) == Value::Boolean(true)
    }

    /// Sets or, with null, resets one; answers whether anything changed.
    pub(crate) fn put(&mut self, setting: Setting, value: &Value, version: u64) -> bool {
        let name = setting.name();
        if value.is_null() {
            return self.stored.remove(name).is_some();
        }
        if self.stored.get(name).is_some_and(|stored| stored.value == *value) {
            return false;
        }
        self.stored.insert(name.to_owned(), Stored { value: value.clone(), version });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_their_own_checks_and_names_are_unique() {
        let mut names = std::collections::BTreeSet::new();
        for setting in Setting::ALL {
            assert!(names.insert(setting.name()));
            setting.check(&setting.default()).unwrap();
            assert!(!setting.meaning().is_empty());
            assert_eq!(Setting::from_name(setting.name()), Ok(*setting));
        }
    }

    #[test]
    fn wrong_names_and_values_are_refused_with_what_would_be_right() {
        let error = Setting::from_name("sql_row_max").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean \"sql_rows_max\"?"));
        let error = Setting::MinInSync.check(&Value::Integer(0)).unwrap_err();
        assert_eq!(error.message, "setting \"min_in_sync\" takes a whole number from 1 to 31");
        assert!(Setting::Balance.check(&Value::Integer(1)).is_err());
        assert!(Setting::Balance.check(&Value::Boolean(false)).is_ok());
    }
}
