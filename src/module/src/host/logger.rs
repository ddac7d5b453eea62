//! The crate `log`'s records go to the host's log. Records of other threads wait in a queue that the tx thread empties,
//! because the host's logger belongs to it.

use super::inbox;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::ffi::{CString, c_int};
use tarantool::ffi::tarantool as ffi;

/// The host's numbers of the levels.
const SAY_ERROR: c_int = 2;
const SAY_WARN: c_int = 4;
const SAY_INFO: c_int = 5;
const SAY_VERBOSE: c_int = 6;
const SAY_DEBUG: c_int = 7;

struct HostLog;

/// Makes the host's log the target of `log::info!` and its siblings. Other rooms' and crates' debug chatter is left out
/// unless the host's own level asks for it.
pub fn install() {
    if log::set_logger(&HostLog).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}

fn host_level(level: Level) -> c_int {
    match level {
        Level::Error => SAY_ERROR,
        Level::Warn => SAY_WARN,
        Level::Info => SAY_INFO,
        Level::Debug => SAY_VERBOSE,
        Level::Trace => SAY_DEBUG,
    }
}

impl Log for HostLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // SAFETY: an aligned integer that the host only writes when its level is configured.
        host_level(metadata.level()) <= unsafe { ffi::LOG_LEVEL }
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = host_level(record.level());
        let text = format!("picodata: {}", record.args());
        let place = (record.file_static().unwrap_or_default(), record.line().unwrap_or_default());
        if super::is_tx_thread() {
            say(level, place, text);
        } else {
            inbox::post_minor(move || say(level, place, text));
        }
    }

    fn flush(&self) {}
}

/// `place` is the file and line of the record, which the host shows with warnings and errors.
fn say(level: c_int, place: (&str, u32), mut text: String) {
    text.retain(|c| c != '\0');
    let (file, line) = place;
    let file = file.rsplit('/').next().unwrap_or_default();
    let (Ok(text), Ok(file)) = (CString::new(text), CString::new(file)) else { return };
    // SAFETY: runs on the tx thread; the format consumes exactly the one text given.
    unsafe {
        if let Some(say) = ffi::SAY_FN {
            say(level, file.as_ptr(), line as c_int, std::ptr::null(), c"%s".as_ptr(), text.as_ptr());
        }
    }
}
