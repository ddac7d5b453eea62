//! What a process decides before it has any storage: its configuration, who it is, and which cluster it belongs to.
//!
//! In come the table given to `picodata.start` and the answers of peers; out go a checked `Config` and a `Decision`.
//! Files, sockets and the clock are the module's affair.

pub mod address;
pub mod config;
pub mod discovery;
pub mod followed;
pub mod identity;
pub mod log_file;

pub use address::Address;
pub use config::Config;
pub use discovery::{Answer, Decision, Discovery, Hello};
pub use followed::Followed;
pub use identity::Identity;
