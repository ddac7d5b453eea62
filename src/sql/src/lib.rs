//! SQL: text -> statement -> plan -> distributed plan -> rows.

pub mod cluster;
pub mod columns;
pub mod engine;
pub mod front;
pub mod stop;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod walk;
