//! Runs many seeds. `SIM_SEEDS` says how many (1000), `SIM_SEED` where to start (1).

mod common;

use common::{Total, setting};
use sim::{Catalog, Failure, Machine, Options, Registers, Report, run};

impl Total for Report {
    fn add(&mut self, one: &Self) {
        self.virtual_us += one.virtual_us;
        self.recovery_us = self.recovery_us.max(one.recovery_us);
        self.events += one.events;
        self.entries += one.entries;
        self.elections += one.elections;
        self.writes += one.writes;
        self.reads += one.reads;
        self.crashes += one.crashes;
        self.snapshots += one.snapshots;
        self.truncations += one.truncations;
        self.member_changes += one.member_changes;
    }

    fn virtual_us(&self) -> u64 {
        self.virtual_us
    }
}

fn run_seeds<M: Machine>(first: u64, count: u64) -> Report {
    common::run_seeds(first, count, |seed, is_traced| run::<M>(Options { is_traced, ..Options::new(seed) }))
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
