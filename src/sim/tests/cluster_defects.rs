//! The simulator of whole clusters notices what is built wrongly: each defect breaks the promise that it breaks, on some
//! seed.

use sim::cluster::run;
use sim::{Defect, Options};
use std::ops::RangeInclusive;

/// Runs seeds until the promise was seen to break.
fn assert_noticed(defect: Defect, seeds: RangeInclusive<u64>, promise: &str) {
    let mut others = Vec::new();
    for seed in seeds.clone() {
        let Err(failure) = run(Options { defect: Some(defect), ..Options::new(seed) }) else { continue };
        if failure.what.starts_with(promise) {
            println!("{defect:?} is noticed by seed {seed}");
            return;
        }
        others.push(format!("seed {seed}: {}", failure.what));
    }
    panic!("{defect:?} does not break {promise} on the seeds {seeds:?}, but {others:?}");
}

#[test]
fn a_master_that_answers_alone_loses_writes() {
    assert_noticed(Defect::AcknowledgesAlone, 1..=100, "acknowledged");
}

#[test]
fn tails_that_nobody_looks_for_come_back() {
    assert_noticed(Defect::ForgetsCuts, 1..=300, "acknowledged");
}

/// Found by seed 46: a term begins before it has a master, and what it keeps is only known with that.
#[test]
fn members_that_follow_before_they_know_what_was_kept_bring_tails_back() {
    assert_noticed(Defect::FollowsEarly, 201..=400, "acknowledged");
}

#[test]
fn clocks_that_leap_make_two_masters() {
    assert_noticed(Defect::ClockLeaps, 1..=300, "one_master");
}

#[test]
fn an_incarnation_that_is_not_looked_at_again_keeps_an_instance_out() {
    assert_noticed(Defect::KeepsIncarnation, 1..=1000, "liveness");
}

#[test]
fn a_source_that_writes_when_it_is_closed_loses_what_it_wrote() {
    assert_noticed(Defect::WritesWhileClosed, 1..=300, "acknowledged");
}

/// A member in sync with more rows than the others was passed over when a master was chosen.
#[test]
fn a_new_leader_that_judges_whom_it_has_not_heard_takes_the_living_for_offline() {
    assert_noticed(Defect::JudgesUnheard, 1..=100, "accuracy");
}

/// A replica that had been counted out for acknowledging nothing was counted in again on a report of the time before; the
/// master had answered writes without it meanwhile.
#[test]
fn promises_of_before_count_members_in_that_lack_writes() {
    assert_noticed(Defect::TrustsOldPromises, 1801..=2000, "acknowledged");
}

/// Takes two of three voters that are stray at once: few seeds have that.
#[test]
fn voters_that_trust_what_they_know_of_their_votes_leave_no_majority() {
    assert_noticed(Defect::WipesAtOnce, 401..=600, "liveness");
}

/// Two of three voters threw their data away in later lives that knew of themselves as joining only.
#[test]
fn later_lives_that_take_themselves_for_the_first_leave_no_majority() {
    assert_noticed(Defect::ForgetsEarlierLives, 9201..=9300, "liveness");
}
