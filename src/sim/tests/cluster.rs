//! Whole clusters under many seeds: `SIM_SEEDS` says how many (1000), `SIM_SEED` where to start (1).

mod common;

use common::{Total, run_seeds, setting};
use sim::Options;
use sim::cluster::{Report, run};

impl Total for Report {
    fn add(&mut self, one: &Self) {
        self.virtual_us += one.virtual_us;
        self.recovery_us = self.recovery_us.max(one.recovery_us);
        self.events += one.events;
        self.entries += one.entries;
        self.elections += one.elections;
        self.writes += one.writes;
        self.reads += one.reads;
        self.refused += one.refused;
        self.crashes += one.crashes;
        self.snapshots += one.snapshots;
        self.member_changes += one.member_changes;
        self.masters += one.masters;
        self.wipes += one.wipes;
        self.moves += one.moves;
    }

    fn virtual_us(&self) -> u64 {
        self.virtual_us
    }
}

#[test]
fn all_promises_hold_on_every_seed() {
    let (first, count) = (setting("SIM_SEED", 1), setting("SIM_SEEDS", 1000));
    let total = run_seeds(first, count, |seed, is_traced| run(Options { is_traced, ..Options::new(seed) }));
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
