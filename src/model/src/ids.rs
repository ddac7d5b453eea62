//! Identifiers. Names, not addresses, identify instances, replicasets and tiers.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Raft's number of an instance. Never reused: an instance that rejoins under its old name gets a new one.
pub type RaftId = u64;
/// The id of a table, which is also the id of its box space on every instance.
pub type TableId = u32;
/// A bucket, from 1 to the tier's bucket count.
pub type BucketId = u32;
/// Counts the owners of a bucket range: one more each time the range changes hands.
pub type Epoch = u64;

/// Defines a name: a string with a type of its own, so that one kind can not be passed for another.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name)
            }
        }
    };
}

name!(
    /// The name of an instance, unique in its cluster.
    InstanceName
);
name!(
    /// The name of a replicaset, unique in its cluster.
    ReplicasetName
);
name!(
    /// The name of a tier: a group of replicasets that share a replication factor and a set of buckets.
    TierName
);
