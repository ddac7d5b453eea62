//! Runs many seeds. `SIM_SEEDS` says how many (1000), `SIM_SEED` where to start (1).

use sim::{Catalog, Failure, Machine, Options, Registers, Report, run};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number")),
        Err(_) => default,
    }
}

/// A run that says its seed however it fails; a failing one is run again with its trace.
fn run_seed<M: Machine>(seed: u64) -> Result<Report, String> {
    let attempt = |is_traced| catch_unwind(|| run::<M>(Options { is_traced, ..Options::new(seed) }));
    match attempt(false) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(_)) => match attempt(true) {
            Ok(Err(failure)) => Err(failure.to_string()),
            _ => Err(format!("seed {seed} fails, but not when traced")),
        },
        Err(_) => Err(format!("seed {seed} panics")),
    }
}

fn add(total: &mut Report, one: &Report) {
    total.virtual_us += one.virtual_us;
    total.recovery_us = total.recovery_us.max(one.recovery_us);
    total.events += one.events;
    total.entries += one.entries;
    total.elections += one.elections;
    total.writes += one.writes;
    total.reads += one.reads;
    total.crashes += one.crashes;
    total.snapshots += one.snapshots;
    total.truncations += one.truncations;
    total.member_changes += one.member_changes;
}

/// Runs the seeds on all processors; what they were like in all.
fn run_seeds<M: Machine>(first: u64, count: u64) -> Report {
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let worker = || {
        let mut total = Report::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return Ok(total);
            }
            add(&mut total, &run_seed::<M>(seed)?);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let mut total = Report::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let result: Result<Report, String> = worker.join().expect("workers catch panics");
            add(&mut total, &result.unwrap_or_else(|failure| panic!("{failure}")));
        }
    });
    let (virtual_s, real_s) = (total.virtual_us as f64 / 1e6, began.elapsed().as_secs_f64());
    println!(
        "{count} seeds from {first}: {virtual_s:.0} s in {real_s:.1} s, {:.0} times real time",
        virtual_s / real_s
    );
    println!("{total:?}");
    total
}

#[test]
fn all_promises_hold_on_every_seed() {
    let (first, count) = (setting("SIM_SEED", 1), setting("SIM_SEEDS", 1000));
    let total = run_seeds::<Registers>(first, count);
    if count >= 100 {
        assert_the_runs_were_eventful(&total, count);
    }
}

/// The catalog under the same faults: equal logs make equal states, through every restart and snapshot.
#[test]
fn the_catalog_is_the_same_everywhere() {
    run_seeds::<Catalog>(setting("SIM_SEED", 1), setting("SIM_SEEDS", 1000).div_ceil(10));
}

/// A simulator in which nothing happens proves nothing.
fn assert_the_runs_were_eventful(total: &Report, count: u64) {
    assert!(total.elections > 3 * count, "{total:?}");
    assert!(total.entries > 100 * count, "{total:?}");
    assert!(total.writes > 50 * count, "{total:?}");
    assert!(total.reads > 20 * count, "{total:?}");
    assert!(total.crashes > 3 * count, "{total:?}");
    assert!(total.snapshots > count, "{total:?}");
    assert!(total.truncations > count / 10, "{total:?}");
    assert!(total.member_changes > 5 * count, "{total:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=10 {
        let report = |is_traced| run::<Registers>(Options { is_traced, ..Options::new(seed) }).map_err(text).unwrap();
        assert_eq!(report(false), report(true), "seed {seed}");
    }
    let digest = |seed| run::<Registers>(Options::new(seed)).map_err(text).unwrap().digest;
    assert_ne!(digest(1), digest(2));
}

fn text(failure: Box<Failure>) -> String {
    failure.to_string()
}
