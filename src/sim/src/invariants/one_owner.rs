//! No bucket is active twice: at any moment one instance at most would take a write for it (the invariant of vshard's
//! model of a bucket's transfer).

use super::Verdict;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct OneOwner;

impl OneOwner {
    /// All that would take writes now: the bucket, and the machine.
    pub fn take(&self, writers: &[(u32, u64)]) -> Verdict {
        let mut owners = BTreeMap::new();
        for (bucket, number) in writers {
            if let Some(other) = owners.insert(*bucket, *number).filter(|other| other != number) {
                return Err(format!("one_owner: i{other} and i{number} both take writes for bucket {bucket}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_noticed() {
        let invariant = OneOwner;
        invariant.take(&[(1, 1), (1, 1), (2, 2)]).unwrap();
        assert!(invariant.take(&[(1, 1), (2, 2), (1, 2)]).is_err());
    }
}
