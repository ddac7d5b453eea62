//! The simulator: a cluster in one thread, on a pretended clock, network and disks, from one seed.
//!
//! In goes a seed; out comes a report, or the first promise that was broken. A run has two phases. In the first everything
//! goes wrong that can: messages are lost, late, doubled and out of order, links are cut one way or both, processes crash,
//! lose what their disk had not finished, freeze and come back, members come and go. The invariants are checked at every
//! step. In the second the faults stop, and the cluster must recover within a bounded time. The same seed is the same run,
//! to the byte, so a failure is replayed with its trace.

mod catalog_machine;
pub mod cluster;
mod disk;
mod drive;
mod faults;
mod instance;
pub mod invariants;
mod machine;
mod network;
mod queue;
mod scenario;
mod trace;
mod workload;
mod world;

pub use catalog_machine::Catalog;
pub use machine::{Machine, Registers};
pub use scenario::{Defect, Options};
pub use world::{Failure, Report, run};
