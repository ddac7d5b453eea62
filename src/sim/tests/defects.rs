//! The simulator notices what is built wrongly: each defect breaks the promise that it breaks, on some seed.

use sim::{Defect, Options, Registers, run};

/// Runs seeds until each of the promises was seen to break.
fn assert_noticed(defect: Defect, seeds_max: u64, promises: &[&str]) {
    let mut missing = promises.to_vec();
    let mut others = Vec::new();
    for seed in 1..=seeds_max {
        let Err(failure) = run::<Registers>(Options { defect: Some(defect), ..Options::new(seed) }) else { continue };
        match missing.iter().position(|promise| failure.what.starts_with(promise)) {
            Some(at) => drop(missing.remove(at)),
            None => others.push(failure.what),
        }
        if missing.is_empty() {
            println!("{defect:?} is noticed within {seed} seeds");
            return;
        }
    }
    panic!("{defect:?} does not break {missing:?} on {seeds_max} seeds, but {others:?}");
}

#[test]
fn a_forgotten_vote_elects_two_leaders() {
    assert_noticed(Defect::ForgetsVote, 2000, &["one_leader"]);
}

#[test]
fn messages_before_durability_lose_what_was_acknowledged() {
    assert_noticed(Defect::SendsBeforeDurable, 2000, &["commit", "durability"]);
}

#[test]
fn a_disk_that_lies_is_noticed() {
    assert_noticed(Defect::LosesSyncedWrites, 100, &["durability"]);
}

#[test]
fn an_instance_that_comes_back_empty_is_noticed() {
    assert_noticed(Defect::ComesBackEmpty, 100, &["durability"]);
}

#[test]
fn reads_without_asking_the_leader_are_stale() {
    assert_noticed(Defect::ReadsAtOnce, 100, &["linearizable"]);
}

#[test]
fn states_that_drift_apart_are_noticed() {
    assert_noticed(Defect::AppliesDifferently, 100, &["agreement"]);
}

#[test]
fn a_state_that_is_replayed_twice_is_noticed() {
    assert_noticed(Defect::AppliesTwice, 100, &["agreement"]);
}

#[test]
fn a_cluster_that_does_not_recover_is_noticed() {
    assert_noticed(Defect::ClockStops, 20, &["liveness"]);
}
