//! What any client was shown is never lost, and nobody is shown less later: reads and acknowledged writes of a key are
//! linearizable (Herlihy and Wing, 1990).
//!
//! A key is a list of its writes (Kingsbury and Alvaro, "Elle", 2020: an answer shows all that came before it). So all that
//! was shown of a key is a prefix of the longest, and an operation shows at least what was shown before it began.

use super::Verdict;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Acknowledged {
    /// By key, the longest list that anybody was shown.
    shown: BTreeMap<u64, Vec<u64>>,
}

impl Acknowledged {
    /// An operation begins: it must show no less than so many writes.
    pub fn floor(&self, key: u64) -> usize {
        self.shown.get(&key).map_or(0, Vec::len)
    }

    /// An operation that began at `floor` is answered with this list; a write's own is the last in it.
    pub fn shows(&mut self, key: u64, floor: usize, list: &[u64]) -> Verdict {
        if list.len() < floor {
            return Err(format!(
                "acknowledged: key {key} shows {} writes, {floor} were shown before it was asked",
                list.len()
            ));
        }
        let shown = self.shown.entry(key).or_default();
        if let Some(at) = shown.iter().zip(list).position(|(a, b)| a != b) {
            return Err(format!(
                "acknowledged: key {key} has write {} at {at}, where {} was shown",
                list[at], shown[at]
            ));
        }
        if list.len() > shown.len() {
            shown.extend_from_slice(&list[shown.len()..]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_stale_and_swapped_writes_are_noticed() {
        let mut invariant = Acknowledged::default();
        let early = invariant.floor(7);
        invariant.shows(7, 0, &[1, 2, 3]).unwrap();
        invariant.shows(7, early, &[1, 2]).unwrap();
        assert!(invariant.shows(7, invariant.floor(7), &[1, 2]).is_err(), "stale");
        assert!(invariant.shows(7, 0, &[1, 4]).is_err(), "another history");
        invariant.shows(7, 3, &[1, 2, 3, 9]).unwrap();
        assert_eq!(invariant.floor(7), 4);
    }
}
