//! Rows and keys between users and box, without either: arguments in, host tuples, operations and answers out.
//!
//! This room knows how a row of MessagePack is checked against a table and laid out as a tuple, how update operations
//! and conditions translate, how operations travel from a router to the master that owns a bucket, which buckets an
//! instance serves at a moment, and how a batch of operations runs as one transaction. The room `module` lends it box,
//! fibers and connections; the tests here lend it memory.

pub mod answer;
pub mod batch;
pub mod cell;
pub mod chunks;
pub mod compare;
pub mod guard;
pub mod layout;
pub mod moment;
pub mod report;
pub mod request;
pub mod retry;
pub mod row;
pub mod scan;
pub mod selection;
pub mod slice;
pub mod update;
pub mod wire;

#[cfg(test)]
mod value_tests;

pub use guard::{BucketGuard, BucketState};
pub use layout::Layout;
pub use row::RowWriter;
pub use selection::Selection;
