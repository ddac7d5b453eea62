//! When the faults have stopped, the cluster recovers by itself within a bounded time: it has a leader, takes and commits a
//! write, answers reads, ends a change of members, and all members have the same state.

use super::Verdict;

/// How long recovery may take. What may come together: an election timeout (1.25 s on the slowest clock), a few more when
/// votes are split, and a snapshot that got lost, which is missed after 40 ticks (2.5 s).
pub const RECOVERY_MAX_US: u64 = 10_000_000;

#[derive(Debug)]
pub struct Liveness {
    healed_us: u64,
    max_us: u64,
}

impl Liveness {
    pub fn new(healed_us: u64) -> Self {
        Self::within(healed_us, RECOVERY_MAX_US)
    }

    /// With a limit of its own.
    pub fn within(healed_us: u64, max_us: u64) -> Self {
        Self { healed_us, max_us }
    }

    /// Nothing is missing any more, or this still is.
    pub fn recovers(&self, now_us: u64, missing: Option<&str>) -> Verdict {
        match missing {
            Some(missing) if now_us > self.healed_us + self.max_us => {
                let late_ms = (now_us - self.healed_us) / 1000;
                Err(format!("liveness: {late_ms} ms after the last fault {missing}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_has_a_limit() {
        let invariant = Liveness::new(1000);
        invariant.recovers(1000 + RECOVERY_MAX_US, Some("there is no leader")).unwrap();
        invariant.recovers(1001 + RECOVERY_MAX_US, None).unwrap();
        assert!(invariant.recovers(1001 + RECOVERY_MAX_US, Some("there is no leader")).is_err());
    }
}
