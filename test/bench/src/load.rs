//! Keeps a number of requests in flight for a while, and sums up.

use crate::Settings;
use crate::iproto::Connection;
use crate::operation::Operation;
use model::Result;
use std::time::{Duration, Instant};

/// Runs the operation and answers a line of JSON: operations, rows, seconds, percentiles in microseconds.
pub fn run(address: &str, operation: Operation, settings: &Settings) -> Result<String> {
    let in_flight = settings.number("in_flight", 1)?.max(1);
    let duration = Duration::from_millis(settings.number("milliseconds", 5000)?);
    let requests_max = settings.number("requests", u64::MAX)?;
    let mut connection = Connection::open(address)?;
    let mut latencies_ns: Vec<u64> = Vec::new();
    // Where the requests in flight were sent; answers come in any order, syncs stay within a window.
    let mut sent_at: Vec<Instant> = Vec::new();
    let mut slot_of = std::collections::HashMap::with_capacity(in_flight as usize);
    let mut free: Vec<usize> = (0..in_flight as usize).rev().collect();
    let started = Instant::now();
    sent_at.resize(in_flight as usize, started);
    let mut next = 0;
    loop {
        let now = Instant::now();
        let sending = now - started < duration;
        while sending && next < requests_max {
            let Some(slot) = free.pop() else { break };
            sent_at[slot] = now;
            slot_of.insert(next, slot);
            operation.send(&mut connection, next);
            next += 1;
        }
        connection.flush()?;
        if slot_of.is_empty() {
            break;
        }
        connection.fill()?;
        let now = Instant::now();
        while let Some(sync) = connection.answer()? {
            if let Some(slot) = slot_of.remove(&sync) {
                latencies_ns.push((now - sent_at[slot]).as_nanos() as u64);
                free.push(slot);
            }
        }
    }
    Ok(summary(&mut latencies_ns, operation.rows(), started.elapsed()))
}

fn summary(latencies_ns: &mut [u64], rows: u64, elapsed: Duration) -> String {
    latencies_ns.sort_unstable();
    let percentile_us = |percent: usize| {
        let at = (latencies_ns.len() * percent / 100).min(latencies_ns.len().saturating_sub(1));
        latencies_ns.get(at).map_or(0.0, |ns| *ns as f64 / 1000.0)
    };
    let (operations, seconds) = (latencies_ns.len(), elapsed.as_secs_f64());
    format!(
        r#"{{"operations": {operations}, "rows": {}, "seconds": {seconds:.3}, "p50_us": {:.1}, "p99_us": {:.1}}}"#,
        operations as u64 * rows,
        percentile_us(50),
        percentile_us(99),
    )
}
