//! How seeds are run: on all processors, each so that a failure says its seed.

use sim::Failure;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Failing seeds that one thread finds before it stops.
const FAILURES_MAX: usize = 3;

/// What a run leaves, to be added up.
pub trait Total: Default + Send + std::fmt::Debug {
    fn add(&mut self, one: &Self);
    fn virtual_us(&self) -> u64;
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number")),
        Err(_) => default,
    }
}

/// Runs the seeds; what they were like in all. `run` takes a seed and whether to keep a trace. Panics when a seed fails.
pub fn run_seeds<T: Total>(
    first: u64,
    count: u64,
    run: impl Fn(u64, bool) -> Result<T, Box<Failure>> + Sync + RefUnwindSafe,
) -> T {
    let (began, next) = (Instant::now(), AtomicU64::new(first));
    let worker = || {
        let (mut total, mut failures) = (T::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count || failures.len() >= FAILURES_MAX {
                return (total, failures);
            }
            match run_seed(seed, &run) {
                Ok(one) => total.add(&one),
                Err(failure) => failures.push(failure),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let (mut total, mut failures) = (T::default(), Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let (part, failed) = worker.join().expect("workers catch panics");
            total.add(&part);
            failures.extend(failed);
        }
    });
    let (virtual_s, real_s) = (total.virtual_us() as f64 / 1e6, began.elapsed().as_secs_f64());
    let ratio = virtual_s / real_s;
    println!("{count} seeds from {first}: {virtual_s:.0} s in {real_s:.1} s, {ratio:.0} times real time");
    println!("{total:?}");
    assert!(failures.is_empty(), "{} seeds fail:\n{}", failures.len(), failures.join("\n\n"));
    total
}

/// A run that says its seed however it fails; a failing one is run again with its trace.
fn run_seed<T>(seed: u64, run: &(impl Fn(u64, bool) -> Result<T, Box<Failure>> + RefUnwindSafe)) -> Result<T, String> {
    let attempt = |is_traced| catch_unwind(|| run(seed, is_traced));
    match attempt(false) {
        Ok(Ok(one)) => Ok(one),
        Ok(Err(_)) => match attempt(true) {
            Ok(Err(failure)) => Err(failure.to_string()),
            _ => Err(format!("seed {seed} fails, but not when traced")),
        },
        Err(_) => Err(format!("seed {seed} panics")),
    }
}
