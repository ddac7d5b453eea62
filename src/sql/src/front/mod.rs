//! The front half of the SQL room: from a text to what it asks for.
//!
//! In: a statement's text, its parameters, a version of the schema. Out: for statements on a key or a few a
//! `PointPlan`, which the router carries out on the tx thread; for schema changes a `SchemaChange`; for everything else
//! a query without placeholders for the engine, and the row changes that come of its answer. Nothing here knows the
//! query engine but `bridge`, which calls it.

pub mod balance;
pub mod bridge;
pub mod cache;
pub mod change;
pub mod ddl;
mod ddl_alter;
mod ddl_column;
mod ddl_sequence;
mod ddl_view;
pub mod dialect;
pub mod execute;
mod explain;
pub mod literal;
pub mod names;
mod nested;
mod numbers;
pub mod params;
pub mod parse;
mod parse_change;
pub mod places;
pub mod point;
pub mod position;
mod program;
pub mod queries;
pub mod scan;
pub mod schema_change;
pub mod statement;
mod transaction;
pub mod types;
mod views;

pub use cache::StatementCache;
pub use execute::{Answer, Executor, Limits, RowSet, Within};
pub use parse::{Parsed, parse, parse_with};
pub use point::PointPlan;
pub use queries::{QueryEngine, QueryRequest, ResultColumn, RowStream};
pub use scan::{TextLimits, is_simple};
pub use statement::Statement;
pub use views::PUBLIC;

#[cfg(test)]
mod execute_tests;
#[cfg(test)]
mod tests;
