//! SQL: text -> statement -> plan -> distributed plan -> rows.

pub mod cluster;
pub mod front;
