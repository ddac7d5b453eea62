//! Statements by their text, so that a text is parsed and compiled once.
//!
//! An entry is of one catalog version and is forgotten when it is asked for at another. The cache is bounded by entries
//! and by bytes of text. What goes first is chosen by the clock algorithm: a hand walks over the entries and takes the
//! first that was not used since it last came by, so a hit costs a lookup and a flag.

use std::collections::HashMap;
use std::sync::Arc;

/// Longer texts are not kept: they are rarely sent twice.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub struct StatementCache<T> {
    places: HashMap<Arc<str>, usize>,
    entries: Vec<Entry<T>>,
    hand: usize,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry<T> {
    text: Arc<str>,
    version: u64,
    was_used: bool,
    value: Arc<T>,
}

impl<T> StatementCache<T> {
    /// A cache of at most `entries_max` statements whose texts have at most `bytes_max` bytes together.
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { places: HashMap::new(), entries: Vec::new(), hand: 0, bytes: 0, entries_max, bytes_max }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of the text at this catalog version.
    pub fn get(&mut self, text: &str, version: u64) -> Option<&Arc<T>> {
        let place = *self.places.get(text)?;
        if self.entries[place].version != version {
            self.remove(place);
            return None;
        }
        let entry = &mut self.entries[place];
        entry.was_used = true;
        Some(&entry.value)
    }

    pub fn insert(&mut self, text: &str, version: u64, value: Arc<T>) {
        if text.len() > TEXT_BYTES_MAX.min(self.bytes_max) || self.entries_max == 0 {
            return;
        }
        if let Some(place) = self.places.get(text) {
            self.remove(*place);
        }
        while self.entries.len() >= self.entries_max || self.bytes + text.len() > self.bytes_max {
            self.evict();
        }
        let text: Arc<str> = text.into();
        self.bytes += text.len();
        self.places.insert(text.clone(), self.entries.len());
        self.entries.push(Entry { text, version, was_used: false, value });
    }

    fn evict(&mut self) {
        loop {
            self.hand = if self.hand + 1 < self.entries.len() { self.hand + 1 } else { 0 };
            if !std::mem::take(&mut self.entries[self.hand].was_used) {
                return self.remove(self.hand);
            }
        }
    }

    fn remove(&mut self, place: usize) {
        let entry = self.entries.swap_remove(place);
        self.places.remove(&entry.text);
        self.bytes -= entry.text.len();
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.text.clone(), place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_of_one_version() {
        let mut cache = StatementCache::new(8, 1000);
        cache.insert("a", 1, Arc::new(1));
        assert_eq!(cache.get("a", 1).map(|v| **v), Some(1));
        assert_eq!(cache.get("a", 2), None);
        assert_eq!(cache.get("a", 1), None);
    }

    #[test]
    fn what_is_used_stays() {
        let mut cache = StatementCache::new(3, 1000);
        for text in ["a", "b", "c"] {
            cache.insert(text, 1, Arc::new(text.to_owned()));
        }
        for round in 0..20 {
            assert!(cache.get("b", 1).is_some(), "round {round}");
            cache.insert(&format!("new {round}"), 1, Arc::new(String::new()));
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_and_answers_are_right(texts in proptest::collection::vec((0u32..40, 0u64..3, any::<bool>()), 0..400)) {
            let mut cache = StatementCache::new(10, 60);
            for (n, version, insert) in texts {
                let text = format!("{n:0width$}", width = 1 + n as usize % 12);
                if insert {
                    cache.insert(&text, version, Arc::new((text.clone(), version)));
                } else if let Some(found) = cache.get(&text, version) {
                    prop_assert_eq!(&**found, &(text, version));
                }
                prop_assert!(cache.len() <= 10 && cache.bytes <= 60);
                prop_assert_eq!(cache.places.len(), cache.entries.len());
                prop_assert_eq!(cache.bytes, cache.entries.iter().map(|e| e.text.len()).sum::<usize>());
            }
        }
    }
}
