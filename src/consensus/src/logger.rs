//! raft-rs speaks `slog`; everything else here speaks `log`. What it says in passing is debugging to us.

use crate::config::Config;
use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

struct ToLog;

impl Drain for ToLog {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        let level = match record.level() {
            Level::Critical | Level::Error => log::Level::Error,
            Level::Warning => log::Level::Warn,
            Level::Info => log::Level::Debug,
            Level::Debug | Level::Trace => return Ok(()),
        };
        log::log!(target: "raft", level, "{}", record.msg());
        Ok(())
    }
}

pub(crate) fn logger(config: &Config) -> Logger {
    Logger::root(ToLog, o!("id" => config.raft_id))
}
