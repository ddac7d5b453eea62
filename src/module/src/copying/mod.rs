//! The first rows of a member that has none: a snapshot of its master's storage, as the file that the host makes of it.
//!
//! The host's own way sends row by row, one system call each, and inserts row by row. A file travels in large parts and is
//! read as at any start. `source` serves it, `newcomer` fetches it before storage is open.

mod newcomer;
mod source;

use model::{Code, Error, Result};
pub use newcomer::copy;
pub use source::{Copies, serve_begin, serve_read};

/// `picodata.peer.copy_begin(uuid)`: makes a snapshot that knows the member `uuid`, or finds the last; answers its name and size in bytes.
pub const BEGIN_DOOR: &str = "picodata.peer.copy_begin";
/// `picodata.peer.copy_read(name, offset)`: answers a part of a snapshot, `PART_BYTES` but for the last.
pub const READ_DOOR: &str = "picodata.peer.copy_read";

const PART_BYTES: usize = 1 << 20;
/// Digits in the name of a snapshot.
const DIGITS: usize = 20;
const EXTENSION: &str = ".snap";

/// Errors: `Argument` for what is not the name of a snapshot: it would lead to other files.
fn check_name(name: &str) -> Result<()> {
    match name.strip_suffix(EXTENSION) {
        Some(digits) if digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err(Error::new(Code::Argument, format!("\"{name}\" is not the name of a snapshot"))),
    }
}
