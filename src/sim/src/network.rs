//! A pretended network: what happens to a message between two instances.

use consensus::Rng;
use model::RaftId;
use std::collections::BTreeSet;

/// How bad the links are, in per mille and microseconds.
#[derive(Clone, Debug)]
pub struct Quality {
    pub loss_permille: u64,
    pub duplicate_permille: u64,
    pub delay_min_us: u64,
    pub delay_max_us: u64,
    /// How many messages take ten times as long.
    pub straggler_permille: u64,
}

impl Quality {
    pub const GOOD: Quality = Quality {
        loss_permille: 0,
        duplicate_permille: 0,
        delay_min_us: 100,
        delay_max_us: 2_000,
        straggler_permille: 0,
    };
}

#[derive(Clone, Debug)]
pub struct Network {
    pub quality: Quality,
    /// Directions that let nothing through.
    cuts: BTreeSet<(RaftId, RaftId)>,
}

impl Network {
    pub fn new(quality: Quality) -> Self {
        Self { quality, cuts: BTreeSet::new() }
    }

    /// When a message that leaves now arrives: never, once or twice. Each copy takes its own time, so they overtake.
    pub fn arrivals(&self, rng: &mut Rng, from: RaftId, to: RaftId, now_us: u64) -> Vec<u64> {
        let quality = &self.quality;
        if self.is_cut(from, to) || rng.chance(quality.loss_permille, 1000) {
            return Vec::new();
        }
        let copies = if rng.chance(quality.duplicate_permille, 1000) { 2 } else { 1 };
        let arrive = |_| {
            let delay_us = rng.range(quality.delay_min_us, quality.delay_max_us + 1);
            let factor = if rng.chance(quality.straggler_permille, 1000) { 10 } else { 1 };
            now_us + delay_us * factor
        };
        (0..copies).map(arrive).collect()
    }

    pub fn is_cut(&self, from: RaftId, to: RaftId) -> bool {
        self.cuts.contains(&(from, to))
    }

    pub fn cut(&mut self, from: RaftId, to: RaftId) {
        self.cuts.insert((from, to));
    }

    /// Parts the instances in two that hear nothing of each other.
    pub fn partition(&mut self, side: &[RaftId], other: &[RaftId]) {
        for (a, b) in side.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    /// Whatever is sent arrives, and soon.
    pub fn is_fine(&self) -> bool {
        self.cuts.is_empty() && self.quality.loss_permille == 0 && self.quality.straggler_permille == 0
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_have_a_direction_and_partitions_two() {
        let mut network = Network::new(Quality::GOOD);
        network.cut(1, 2);
        assert!(network.is_cut(1, 2) && !network.is_cut(2, 1));
        network.partition(&[1, 2], &[3]);
        assert!(network.is_cut(3, 1) && network.is_cut(2, 3) && !network.is_cut(2, 1));
        assert_eq!(network.arrivals(&mut Rng::new(1), 1, 2, 0), []);
        network.heal();
        assert_eq!(network.arrivals(&mut Rng::new(1), 1, 2, 0).len(), 1);
    }

    #[test]
    fn bad_links_lose_double_and_reorder() {
        let quality = Quality { loss_permille: 300, duplicate_permille: 300, straggler_permille: 100, ..Quality::GOOD };
        let (network, mut rng) = (Network::new(quality), Rng::new(1));
        let copies: Vec<Vec<u64>> = (0..1000).map(|_| network.arrivals(&mut rng, 1, 2, 0)).collect();
        for count in 0..=2 {
            assert!(copies.iter().any(|copies| copies.len() == count));
        }
        assert!(copies.concat().windows(2).any(|pair| pair[0] > pair[1]));
        assert!(copies.concat().iter().any(|at_us| *at_us > quality_max(&network)));
    }

    fn quality_max(network: &Network) -> u64 {
        network.quality.delay_max_us
    }
}
