//! The room from outside, over a store in memory that stands in for box.

mod answers;
mod batch;
mod chunks;
mod memory;
mod moments;
mod rows;
mod select;
mod slices;
mod strict;
mod updates;
