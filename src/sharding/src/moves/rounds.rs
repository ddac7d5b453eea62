//! When the source of a move closes the buckets for writes, and for how long at most.
//!
//! Writers go on while a bucket is copied, and what they touched goes again, a few buckets a slice. A round is all that
//! was touched when it began. While writers touch less than a round sends, rounds shrink, and in the end so little is left
//! that nobody notices when writes wait for it. Where rounds do not shrink, copying on would never end: then writes wait
//! for one more round.
//!
//! How long they wait is bounded too: a source that is not done in time opens again, copies another round, and may
//! take twice as long for the next attempt.

/// So few touched buckets that writes can wait for them.
const TOUCHED_FEW: usize = 4;
/// A round that is not smaller than this share of the one before does not count as shrinking: 3 of 4.
const SHRINKS_TO: (usize, usize) = (3, 4);
/// Rounds behind the scan at most, however they shrink.
const ROUNDS_MAX: u32 = 16;
/// How long writes wait at most, in the first attempt and in any.
const CLOSED_FIRST_MS: u64 = 500;
const CLOSED_MAX_MS: u64 = 8_000;

/// The rounds of one copy behind its scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rounds {
    /// With how many touched buckets the present round began; None before the first.
    began_with: Option<usize>,
    /// How many of them are still to be sent.
    left: usize,
    count: u32,
    /// How often the buckets were closed in vain.
    attempts: u32,
}

impl Rounds {
    /// Asked before each slice behind the scan, with the number of buckets that were touched since they were last sent.
    /// Answers for how many milliseconds at most to close them all now; None to go on with writers.
    pub fn close_for_ms(&mut self, touched: usize) -> Option<u64> {
        let closed_ms = (CLOSED_FIRST_MS << self.attempts.min(16)).min(CLOSED_MAX_MS);
        if touched <= TOUCHED_FEW {
            return Some(closed_ms);
        }
        if self.left > 0 {
            return None;
        }
        let (part, whole) = SHRINKS_TO;
        let shrinks = self.began_with.is_none_or(|before| touched * whole < before * part);
        if !shrinks || self.count >= ROUNDS_MAX {
            return Some(closed_ms);
        }
        (self.began_with, self.left) = (Some(touched), touched);
        self.count += 1;
        None
    }

    /// A slice with so many touched buckets goes out.
    pub fn sent(&mut self, touched: usize) {
        self.left = self.left.saturating_sub(touched);
    }

    /// The buckets were closed and opened again before all was sent.
    pub fn opened_again(&mut self) {
        *self = Self { attempts: self.attempts.saturating_add(1), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A_SLICE: usize = 4;

    /// Copies while writers touch `touch(round)` buckets as soon as a round begins; answers how many slices went before the
    /// buckets were closed, and how many were touched then.
    fn copy(rounds: &mut Rounds, mut touched: usize, touch: impl Fn(u32) -> usize) -> (usize, usize) {
        for slices in 0.. {
            if rounds.close_for_ms(touched).is_some() {
                return (slices, touched);
            }
            rounds.sent(A_SLICE);
            touched = rounds.left + touch(rounds.count);
        }
        unreachable!()
    }

    #[test]
    fn few_touched_buckets_close_at_once() {
        assert_eq!(copy(&mut Rounds::default(), 0, |_| 0), (0, 0));
        assert_eq!(copy(&mut Rounds::default(), TOUCHED_FEW, |_| 100), (0, TOUCHED_FEW));
    }

    #[test]
    fn rounds_that_shrink_go_on_until_little_is_left() {
        let (slices, touched) = copy(&mut Rounds::default(), 64, |round| 64 >> round);
        assert_eq!((slices, touched), (16 + 8 + 4 + 2, TOUCHED_FEW));
    }

    #[test]
    fn writers_that_touch_everything_again_and_again_wait_after_one_round() {
        assert_eq!(copy(&mut Rounds::default(), 100, |_| 100), (25, 100));
    }

    #[test]
    fn each_attempt_may_take_twice_as_long_up_to_a_bound() {
        let mut rounds = Rounds::default();
        let mut bounds = vec![];
        for _ in 0..40 {
            bounds.push(rounds.close_for_ms(1).unwrap());
            rounds.opened_again();
        }
        assert_eq!(bounds[..6], [500, 1_000, 2_000, 4_000, 8_000, 8_000]);
        assert_eq!(bounds[39], CLOSED_MAX_MS);
        assert_eq!(rounds.close_for_ms(100), None, "writers get a round between two attempts");
    }

    proptest! {
        /// Whatever writers do, the buckets are closed after a bounded number of slices.
        #[test]
        fn the_buckets_are_closed_in_the_end(touches in proptest::collection::vec(0usize..1000, 64)) {
            let mut rounds = Rounds::default();
            let (slices, _) = copy(&mut rounds, touches[0], |round| touches[round as usize]);
            prop_assert!(rounds.count <= ROUNDS_MAX);
            prop_assert!(slices <= ROUNDS_MAX as usize * 1000 / A_SLICE);
        }
    }
}
