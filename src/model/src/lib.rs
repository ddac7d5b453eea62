//! The words that every room shares: identifiers, SQL types and values, table definitions, errors.
//!
//! Plain data without I/O. Nothing here knows Tarantool, Raft or the query engine; each of those rooms translates
//! from and to these words at its own edge.

pub mod decimal;
pub mod error;
pub mod ids;
pub mod json;
pub mod msgpack;
pub mod program;
pub mod schema;
pub mod sequence;
pub mod table;
pub mod temporal;
pub mod types;
pub mod value;

pub use decimal::Decimal;
pub use error::{Code, Error, Result};
pub use ids::{BucketId, Epoch, InstanceName, RaftId, ReplicasetName, TableId, TierName};
pub use program::Program;
pub use schema::{Alteration, SchemaChange, View};
pub use sequence::{Sequence, SequenceId};
pub use table::{Check, Column, Distribution, Durability, Engine, Generated, Index, Table, TableState};
pub use types::ColumnType;
pub use value::Value;
