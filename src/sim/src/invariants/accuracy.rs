//! Nobody is taken for offline who can be heard: a detector that suspects the living has masters change for nothing, and
//! passes over those that should be asked (Chandra and Toueg, "Unreliable failure detectors for reliable distributed
//! systems", 1996: accuracy).

use super::Verdict;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Accuracy {
    /// Since when the links are whole, lose nothing and are quick; None while they are not.
    links_fine_us: Option<u64>,
    /// Until when something was wrong with each machine: it was down, or frozen.
    disturbed_us: BTreeMap<u64, u64>,
}

impl Accuracy {
    pub fn links(&mut self, are_fine: bool, now_us: u64) {
        self.links_fine_us = are_fine.then(|| self.links_fine_us.unwrap_or(now_us));
    }

    pub fn disturbed(&mut self, number: u64, until_us: u64) {
        let known_us = self.disturbed_us.entry(number).or_default();
        *known_us = until_us.max(*known_us);
    }

    /// A leader takes a machine for offline, which has said nothing that speaks against it. Both must have been in trouble
    /// within `patience_us`, or the links.
    pub fn offline(&self, leader: u64, number: u64, now_us: u64, patience_us: u64) -> Verdict {
        let Some(links_us) = self.links_fine_us else { return Ok(()) };
        let disturbed_us = |number: u64| self.disturbed_us.get(&number).copied().unwrap_or(0);
        let fine_us = links_us.max(disturbed_us(leader)).max(disturbed_us(number));
        if now_us <= fine_us + patience_us {
            return Ok(());
        }
        let fine_ms = (now_us - fine_us) / 1000;
        Err(format!("accuracy: i{leader} takes i{number} for offline, and both were well for {fine_ms} ms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_well_for_long_can_not_be_offline() {
        let mut invariant = Accuracy::default();
        invariant.offline(1, 2, 5000, 1000).unwrap();
        invariant.links(true, 5000);
        invariant.links(true, 5500);
        invariant.offline(1, 2, 6000, 1000).unwrap();
        assert!(invariant.offline(1, 2, 6001, 1000).is_err());
        invariant.disturbed(2, 6000);
        invariant.disturbed(2, 5000);
        invariant.offline(1, 2, 7000, 1000).unwrap();
        invariant.offline(2, 1, 7000, 1000).unwrap();
        assert!(invariant.offline(1, 3, 7000, 1000).is_err());
        assert!(invariant.offline(1, 2, 7001, 1000).is_err());
        invariant.links(false, 7000);
        invariant.offline(1, 2, 9000, 1000).unwrap();
    }
}
