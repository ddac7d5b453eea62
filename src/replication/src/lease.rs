//! Leases of masters: how long one may serve without hearing from the leader, and how the leader knows when that is over.
//!
//! An instance stamps each answer to the leader with its own clock. When a majority has confirmed, in a round begun after
//! the leader heard the answer, that it still leads, the leader sends the stamp back: that grants a lease which ends a
//! fixed time after the stamp. So no clock is compared with another one, only lengths of time are:
//!
//! - A lease of this leader ends, on its own clock, at the latest that time after it *heard* the answer.
//! - A lease of an earlier leader ends at the latest that time after this one was elected: some voter confirmed the round
//!   before it voted for this leader, and the stamp is older than the round.
//!
//! Clocks that run at different speeds are allowed for by a twentieth.

/// The part of a lease by which the leader waits longer, for clocks of different speed.
const DRIFT: u64 = 20;

/// What the leader keeps about one instance. All times are nanoseconds of the leader's clock, stamps are the instance's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// A stamp that waits for a round, and when it was heard.
    pending: Option<(u64, u64)>,
    /// The last stamp that may be sent back.
    stamp: u64,
    /// When the answer with that stamp was heard.
    heard: u64,
}

impl Grants {
    /// An answer with this stamp arrived. The one that waits longest goes on waiting, so that a round comes to it.
    pub fn heard(&mut self, stamp: u64, now: u64) {
        self.pending.get_or_insert((stamp, now));
    }

    /// A round that began at this time has confirmed that the leader leads.
    pub fn confirmed(&mut self, round_began: u64) {
        if let Some((stamp, heard)) = self.pending.filter(|(_, heard)| *heard <= round_began) {
            (self.stamp, self.heard) = (stamp, heard);
            self.pending = None;
        }
    }

    /// The stamp to send back; 0 when there is none.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// When no lease can hold any more that this leader, in office since then, or an earlier one has granted.
    pub fn over_at(&self, in_office_since: u64, lease: u64) -> u64 {
        // Also one that is granted a moment from now, on the answer that still waits.
        let heard = self.pending.map_or(self.heard, |(_, heard)| heard);
        heard.max(in_office_since).saturating_add(lease).saturating_add(lease / DRIFT)
    }
}

/// When a lease ends that was granted by the return of this stamp, on the clock that the stamp is of.
pub fn end(stamp: u64, lease: u64) -> u64 {
    if stamp == 0 { 0 } else { stamp.saturating_add(lease) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stamp_is_sent_back_after_a_round_that_began_later() {
        let mut grants = Grants::default();
        grants.heard(1_000, 50);
        grants.confirmed(49);
        assert_eq!(grants.stamp(), 0, "the leader may have been deposed before it heard the answer");
        grants.heard(1_010, 60);
        grants.confirmed(55);
        assert_eq!(grants.stamp(), 1_000);
        grants.confirmed(70);
        assert_eq!(grants.stamp(), 1_000, "the second answer was not waited for: the first one was");
        grants.heard(1_020, 80);
        grants.confirmed(80);
        assert_eq!((grants.stamp(), grants.over_at(0, 100)), (1_020, 185));
        assert_eq!(grants.over_at(200, 100), 305);
    }

    proptest! {
        /// Messages take any time and come in order or not at all, the clocks differ by any amount: when the leader says
        /// that leases are over, the instance has none.
        #[test]
        fn no_lease_outlives_what_the_leader_waits_for(
            ahead in 1u64..1_000_000,
            lease in 1u64..5_000,
            steps in proptest::collection::vec((0u8..4, 0u64..400), 1..200),
        ) {
            let (mut now, mut grants, mut lease_end) = (0u64, Grants::default(), 0u64);
            // On the way: stamps to the leader, stamps back, and when the round under way began.
            let (mut answers, mut returns, mut round) = (vec![], vec![], None);
            for (kind, ms) in steps {
                now += ms;
                match kind {
                    0 => answers.push(now + ahead),
                    1 if !answers.is_empty() => grants.heard(answers.remove(0), now),
                    2 => if let Some(began) = round.replace(now) {
                        grants.confirmed(began);
                        returns.push(grants.stamp());
                    },
                    _ if !returns.is_empty() => lease_end = lease_end.max(end(returns.remove(0), lease)),
                    _ => {}
                }
                let over_at = grants.over_at(0, lease);
                prop_assert!(lease_end == 0 || lease_end - ahead <= over_at, "{lease_end} {ahead} {over_at}");
            }
        }
    }
}
