//! Reads and writes look as if each happened at one moment between its call and its answer (Herlihy and Wing, 1990).
//!
//! All states are prefixes of one list of commands (`agreement`), so a moment is a length of that list. An operation that is
//! called after another was answered must come at a later length; checking that against the greatest length answered so
//! far is checking the whole history.

use super::Verdict;

#[derive(Debug, Default)]
pub struct Linearizable {
    /// How many commands any answer so far has shown.
    shown: u64,
}

impl Linearizable {
    /// An operation is called: it must not come before this length.
    pub fn calls(&self) -> u64 {
        self.shown
    }

    /// A read that was called at `floor` answers from the first `version` commands.
    pub fn reads(&mut self, floor: u64, version: u64) -> Verdict {
        if version < floor {
            return Err(format!(
                "linearizable: a read shows {version} commands, {floor} were answered before it began"
            ));
        }
        self.shown = self.shown.max(version);
        Ok(())
    }

    /// A write that was called at `floor` is acknowledged as number `place` of the commands, from 0.
    pub fn writes(&mut self, floor: u64, place: u64) -> Verdict {
        if place < floor {
            return Err(format!("linearizable: a write comes as number {place}, after {floor} were answered"));
        }
        self.shown = self.shown.max(place + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_back_in_time_is_noticed() {
        let mut invariant = Linearizable::default();
        let (early, floor) = (invariant.calls(), invariant.calls());
        invariant.writes(floor, 3).unwrap();
        invariant.reads(early, 0).unwrap();
        let late = invariant.calls();
        assert!(invariant.reads(late, 3).is_err(), "misses the acknowledged write");
        assert!(invariant.writes(late, 3).is_err());
        invariant.reads(late, 4).unwrap();
    }
}
