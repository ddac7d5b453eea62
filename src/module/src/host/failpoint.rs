//! Places at which a test can have the process die or stand still: between any two steps of a failover, a schema change, an
//! entry applied, a snapshot, an acknowledgement.
//!
//! They are in every build, so that what is tested is what is shipped, and cost the look at one flag. The environment
//! variable `PICODATA_FAILPOINTS` of a process names a file; without it nothing can set them. Each time a point is reached,
//! the file is read: `NAME exit` ends the process at once, as `kill -9` does, and `NAME stall MS` keeps the thread for so
//! long. Whoever acts on the file takes it away first, so that of several processes that share one only one does.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const VARIABLE: &str = "PICODATA_FAILPOINTS";
/// As a shell reports a process that was killed.
const EXIT_STATUS: i32 = 137;
const STALL_MAX_MS: u64 = 10_000;

static IS_ON: AtomicBool = AtomicBool::new(false);
static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Looks whether the process was started to be tested.
pub fn open() {
    if let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from)
        && FILE.set(path).is_ok()
    {
        IS_ON.store(true, Ordering::Relaxed);
    }
}

/// The process has come to this point.
#[inline]
pub fn reach(name: &str) {
    if IS_ON.load(Ordering::Relaxed) {
        look(name);
    }
}

#[cold]
fn look(name: &str) {
    let Some(path) = FILE.get() else { return };
    let Ok(text) = std::fs::read_to_string(path) else { return };
    let mut words = text.split_whitespace();
    if words.next() != Some(name) {
        return;
    }
    // Who renames it has it alone.
    let taken = path.with_extension(std::process::id().to_string());
    if std::fs::rename(path, &taken).is_err() {
        return;
    }
    log::warn!("picodata: failpoint {text}");
    match (words.next(), words.next().and_then(|word| word.parse::<u64>().ok())) {
        // SAFETY: ends the process without running anything of it.
        (Some("exit"), _) => unsafe { libc::_exit(EXIT_STATUS) },
        // SAFETY: only waits, and keeps the thread from all other work: that is what was asked for.
        (Some("stall"), Some(ms)) => _ = unsafe { libc::usleep(ms.min(STALL_MAX_MS) as u32 * 1_000) },
        _ => log::error!("picodata: a failpoint takes exit or stall MS, not {text}"),
    }
}
