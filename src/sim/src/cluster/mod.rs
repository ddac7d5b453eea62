//! A whole database from one seed: Raft with the catalog on every instance, the governor on its leader, replicasets that
//! copy rows, and clients that read and write them.
//!
//! The rooms are the real ones: `consensus`, `catalog`, `governor`, `sharding`, and of `replication` the histories, the leases and
//! the promises. What lies between them and the host is told again here, as the module does it: a process is its memory,
//! its disk is one log for everything, clocks differ in time and speed, and everybody knows only what letters say.
//!
//! | file | plays |
//! |---|---|
//! | `world` | the queue of events, and the letters' ways |
//! | `raft` | the fiber that drives Raft |
//! | `office` | the governor on the leader |
//! | `member` | facts, lineage, mastership and lease |
//! | `rows`, `acks` | the host's replication, and the waiting for it |
//! | `moves` | both sides of a move of buckets |
//! | `joining` | the start of a process |
//! | `store`, `journal`, `node` | the host's data, its disk, the machine |
//! | `clients`, `faults`, `recovery` | users, misfortune, and what is expected when it ends |

mod acks;
mod clients;
mod faults;
mod joining;
mod journal;
mod letter;
mod member;
mod moves;
mod node;
mod office;
mod raft;
mod recovery;
mod rows;
mod store;
mod terms;
mod world;

pub use world::{Report, run};
