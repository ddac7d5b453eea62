//! Pings an instance each millisecond: the tx thread answers, so the longest wait is how long it did nothing else.

use crate::iproto::{self, Connection};
use model::Result;
use model::msgpack::write_map_len;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(1);

/// Goes on until standard input ends; answers a line of JSON.
pub fn run(address: &str) -> Result<String> {
    let mut connection = Connection::open(address)?;
    let finished = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&finished);
    std::thread::spawn(move || {
        // Whatever ends the reading, the run is over.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::Relaxed);
    });
    let mut waits_us = Vec::new();
    while !finished.load(Ordering::Relaxed) {
        let sent = Instant::now();
        connection.request(iproto::PING, waits_us.len() as u64, |out| write_map_len(out, 0));
        connection.flush()?;
        while connection.answer()?.is_none() {
            connection.fill()?;
        }
        let wait = sent.elapsed();
        waits_us.push(wait.as_micros() as u64);
        std::thread::sleep(INTERVAL.saturating_sub(wait));
    }
    waits_us.sort_unstable();
    let at = |percent: usize| waits_us.get(waits_us.len() * percent / 100).or(waits_us.last()).copied().unwrap_or(0);
    Ok(format!(r#"{{"pings": {}, "p50_us": {}, "p99_us": {}, "max_us": {}}}"#, waits_us.len(), at(50), at(99), at(100)))
}
