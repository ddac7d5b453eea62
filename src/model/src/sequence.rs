//! Sequences: numbers that are given out once each in the whole cluster, in ranges that instances lease.

use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// The catalog's number of a sequence; never reused.
pub type SequenceId = u64;

/// Numbers that an instance leases at once, where nothing else is said.
pub const CACHE_DEFAULT: u32 = 100;
pub const CACHE_MAX: u32 = 1_000_000;

/// What a sequence counts: `start`, `start + increment`, ... between `min` and `max`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// 0 before the catalog has given one.
    pub id: SequenceId,
    pub start: i64,
    pub increment: i64,
    pub min: i64,
    pub max: i64,
    /// How many numbers an instance leases at once.
    pub cache: u32,
}

impl Default for Sequence {
    fn default() -> Self {
        Self { id: 0, start: 1, increment: 1, min: 1, max: i64::MAX, cache: CACHE_DEFAULT }
    }
}

impl Sequence {
    /// Errors: `InvalidStatement` with the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(Code::InvalidStatement, message));
        if self.increment == 0 {
            return invalid("the increment of a sequence is not 0".into());
        }
        if self.min >= self.max {
            return invalid(format!("MINVALUE ({}) has to be less than MAXVALUE ({})", self.min, self.max));
        }
        if !(self.min..=self.max).contains(&self.start) {
            return invalid(format!("START ({}) is not between {} and {}", self.start, self.min, self.max));
        }
        if !(1..=CACHE_MAX).contains(&self.cache) {
            return invalid(format!("CACHE ({}) goes from 1 to {CACHE_MAX}", self.cache));
        }
        Ok(())
    }

    /// Of `count` numbers from `from` on: how many there are before the end, and what comes after them; None at the end.
    pub fn range(&self, from: i64, count: u32) -> (u32, Option<i64>) {
        let end = if self.increment > 0 { self.max } else { self.min };
        let room = (i128::from(end) - i128::from(from)) / i128::from(self.increment) + 1;
        let taken = u32::try_from(room.clamp(0, i128::from(count))).unwrap_or(count);
        let next = i128::from(from) + i128::from(taken) * i128::from(self.increment);
        let next = i64::try_from(next).ok().filter(|next| (self.min..=self.max).contains(next));
        (taken, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_follow_one_another_to_the_end(
            start in -50i64..50, increment in prop_oneof![-7i64..=-1, 1i64..=7], counts in proptest::collection::vec(1u32..9, 1..60),
        ) {
            let sequence = Sequence { start, increment, min: -60, max: 60, ..Sequence::default() };
            let (mut numbers, mut next) = (Vec::new(), Some(start));
            for count in counts {
                let Some(from) = next else { break };
                let (taken, after) = sequence.range(from, count);
                prop_assert!(taken >= 1 && taken <= count);
                numbers.extend((0..i64::from(taken)).map(|n| from + n * increment));
                next = after;
                prop_assert!(after.is_some() || taken <= count);
            }
            for (at, number) in numbers.iter().enumerate() {
                prop_assert_eq!(*number, start + at as i64 * increment);
                prop_assert!((-60..=60).contains(number));
            }
            if next.is_none() {
                let beyond = start + numbers.len() as i64 * increment;
                prop_assert!(!(-60..=60).contains(&beyond));
            }
        }
    }

    #[test]
    fn the_largest_number_is_given_out() {
        let sequence = Sequence { start: i64::MAX - 1, ..Sequence::default() };
        assert_eq!(sequence.range(i64::MAX - 1, 10), (2, None));
        assert_eq!(sequence.range(5, 10), (10, Some(15)));
        assert!(Sequence { min: 5, max: 1, ..Sequence::default() }.validate().is_err());
        assert!(Sequence { increment: 0, ..Sequence::default() }.validate().is_err());
        assert!(Sequence { start: 0, ..Sequence::default() }.validate().is_err());
    }
}
