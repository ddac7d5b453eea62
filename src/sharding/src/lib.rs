//! The sharding room: which bucket a row belongs to, which replicaset owns the bucket, how buckets change hands and
//! which of them should.
//!
//! Keys and maps come in; buckets, owners and planned moves go out. Nothing here does I/O or reads a clock, so that the
//! simulator and the exhaustive tests drive the same code as the module.

pub mod balance;
pub mod hash;
pub mod map;
pub mod moves;

pub use hash::{KeyHasher, bucket_of, hash_row, hash_values};
pub use map::{BucketMap, BucketRange, OwnedRange};
pub use moves::{Destination, MovePhase, MoveView, Source, Tenure};
