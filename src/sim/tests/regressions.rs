//! Seeds that once failed, under the name of what they found.

use sim::{Options, Registers, cluster, run};

fn holds(seeds: &[u64]) {
    for seed in seeds {
        if let Err(failure) = run::<Registers>(Options { is_traced: true, ..Options::new(*seed) }) {
            panic!("{failure}");
        }
    }
}

/// A node that is the only voter elects itself and leads in one step, so its first appends left for the learners before its
/// disk had the term. A crash made it begin the same term again, with other entries at the same places.
#[test]
fn the_only_voter_is_not_heard_before_its_term_is_on_disk() {
    holds(&[214, 1408, 1502, 1792, 2072, 2495, 2664, 2818]);
}

/// Two of three voters threw their data away at once: both were learners by what they had heard, and voters by what was on its
/// way to them. A majority was gone for ever.
#[test]
fn a_stray_instance_that_was_ready_does_not_trust_what_it_knows_of_its_vote() {
    for seed in [500, 4038] {
        if let Err(failure) = cluster::run(Options { is_traced: true, ..Options::new(seed) }) {
            panic!("{failure}");
        }
    }
}
