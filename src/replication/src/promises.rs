//! How a follower comes to be counted in: the master waits for it before anybody else counts on it.
//!
//! A follower that has what was written when it was last looked at is promised that no write is acknowledged without it
//! from now on. What was written before the promise, it must reach: then it has everything that was ever acknowledged. A
//! promise is about a follower as the catalog knew it then and ends when that changes, for it may have been away since.

use std::collections::BTreeMap;

/// What a follower that will be counted in was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promise {
    /// The version of its record then.
    version: u64,
    /// How many rows the master had written before.
    floor: u64,
}

/// A follower as its master sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower<N> {
    pub name: N,
    /// The version of its record.
    pub version: u64,
    /// How many of the master's rows it is known to have; None while it has no number of its own.
    pub position: Option<u64>,
}

/// A master's promises, by the followers' names.
#[derive(Clone, Debug)]
pub struct Promises<N> {
    given: BTreeMap<N, Promise>,
    /// Followers that are not promised anything yet, with what was written when they were last looked at.
    behind: BTreeMap<N, u64>,
}

impl<N> Default for Promises<N> {
    fn default() -> Self {
        Self { given: BTreeMap::new(), behind: BTreeMap::new() }
    }
}

impl<N: Ord + Clone> Promises<N> {
    /// Gives promises to the followers that have what was written when they were last looked at. One that is far behind,
    /// or does not move, would hold up every write. `is_required`: whether writes wait for somebody anyhow.
    pub fn give(&mut self, followers: &[Follower<N>], written: u64, is_required: impl Fn(&N) -> bool) {
        self.behind.retain(|name, _| followers.iter().any(|follower| follower.name == *name));
        for follower in followers.iter().filter(|follower| !is_required(&follower.name)) {
            let Some(position) = follower.position else { continue };
            if position >= self.behind.get(&follower.name).copied().unwrap_or(written) {
                let promise = Promise { version: follower.version, floor: written };
                self.given.insert(follower.name.clone(), promise);
                self.behind.remove(&follower.name);
            } else {
                self.behind.insert(follower.name.clone(), written);
            }
        }
    }

    /// Whether a follower has all that was written before it was promised anything; nothing was promised to those that
    /// are counted in already.
    pub fn is_kept_up(&self, name: &N, position: u64) -> bool {
        position >= self.given.get(name).map_or(0, |promise| promise.floor)
    }

    /// Ends the promises that do not hold any more: `holds` is asked with the version of the record that each is about.
    pub fn retain(&mut self, mut holds: impl FnMut(&N, u64) -> bool) {
        self.given.retain(|name, promise| holds(name, promise.version));
    }

    pub fn clear(&mut self) {
        self.given.clear();
    }

    /// Who was promised something.
    pub fn names(&self) -> impl Iterator<Item = &N> {
        self.given.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(position: u64) -> Follower<&'static str> {
        Follower { name: "i2", version: 7, position: Some(position) }
    }

    #[test]
    fn who_is_far_behind_is_promised_nothing_before_it_moves() {
        let mut promises = Promises::default();
        promises.give(&[follower(10)], 100, |_| false);
        assert_eq!(promises.names().count(), 0);
        promises.give(&[follower(99)], 150, |_| false);
        assert_eq!(promises.names().count(), 0, "it has not reached what was there before");
        promises.give(&[follower(150)], 160, |_| false);
        assert!(promises.names().eq(&["i2"]));
        assert!(!promises.is_kept_up(&"i2", 159) && promises.is_kept_up(&"i2", 160));
    }

    #[test]
    fn a_promise_ends_with_the_record_that_it_is_about() {
        let mut promises = Promises::default();
        promises.give(&[follower(5)], 5, |_| false);
        promises.retain(|_, version| version == 7);
        assert_eq!(promises.names().count(), 1);
        promises.retain(|_, version| version == 8);
        assert_eq!(promises.names().count(), 0);
    }

    #[test]
    fn who_has_no_number_or_is_waited_for_anyhow_needs_none() {
        let mut promises = Promises::default();
        promises.give(&[Follower { position: None, ..follower(0) }], 0, |_| false);
        promises.give(&[follower(5)], 5, |_| true);
        assert_eq!(promises.names().count(), 0);
        assert!(promises.is_kept_up(&"i2", 0));
    }
}
