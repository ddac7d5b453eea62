//! Whole clusters under many seeds: `SIM_SEEDS` says how many (1000), `SIM_SEED` where to start (1).

use sim::Options;
use sim::cluster::{Report, run};
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
fn run_seed(seed: u64) -> Result<Report, String> {
    let attempt = |is_traced| catch_unwind(|| run(Options { is_traced, ..Options::new(seed) }));
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
    total.refused += one.refused;
    total.crashes += one.crashes;
    total.snapshots += one.snapshots;
    total.member_changes += one.member_changes;
    total.masters += one.masters;
    total.wipes += one.wipes;
    total.moves += one.moves;
}

#[test]
fn all_promises_hold_on_every_seed() {
    let (first, count) = (setting("SIM_SEED", 1), setting("SIM_SEEDS", 1000));
    let (began, next) = (Instant::now(), AtomicU64::new(first));
    let worker = || {
        let (mut total, mut failures) = (Report::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count || failures.len() > 3 {
                return (total, failures);
            }
            match run_seed(seed) {
                Ok(report) => add(&mut total, &report),
                Err(failure) => failures.push(failure),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let (mut total, mut failures) = (Report::default(), Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let (part, failed) = worker.join().expect("workers catch panics");
            add(&mut total, &part);
            failures.extend(failed);
        }
    });
    let (virtual_s, real_s) = (total.virtual_us as f64 / 1e6, began.elapsed().as_secs_f64());
    let ratio = virtual_s / real_s;
    println!("{count} seeds from {first}: {virtual_s:.0} s in {real_s:.1} s, {ratio:.0} times real time");
    println!("{total:?}");
    for failure in &failures {
        eprintln!("{failure}\n");
    }
    assert!(failures.is_empty(), "{} seeds fail", failures.len());
    if count >= 100 {
        assert_the_runs_were_eventful(&total, count);
    }
}

/// A simulator in which nothing happens proves nothing.
fn assert_the_runs_were_eventful(total: &Report, count: u64) {
    assert!(total.elections > count, "{total:?}");
    assert!(total.crashes > 3 * count, "{total:?}");
    assert!(total.writes > 100 * count, "{total:?}");
    assert!(total.reads > 50 * count, "{total:?}");
    assert!(total.masters > 4 * count, "{total:?}");
    assert!(total.wipes > count / 20, "{total:?}");
    assert!(total.snapshots > count, "{total:?}");
    assert!(total.moves > count / 2, "{total:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=10 {
        let report = |is_traced| run(Options { is_traced, ..Options::new(seed) }).map_err(|f| f.to_string()).unwrap();
        assert_eq!(report(false), report(true), "seed {seed}");
    }
}
