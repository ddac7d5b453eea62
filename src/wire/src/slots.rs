//! What is under way, by a number that travels with it and comes back with the answer.
//!
//! A key names a place and the generation of its tenant, so that an answer that comes after its tenant left finds
//! nothing. Deadlines are looked up by a scan that happens only when the earliest known one has passed: a call that is
//! answered in time costs no timer and no heap.

/// Never 0, so that 0 can mean 'nobody waits'.
pub type Key = u64;

struct Slot<T> {
    generation: u32,
    tenant: Option<T>,
}

/// A bounded set of tenants.
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    capacity: usize,
}

fn key(generation: u32, place: u32) -> Key {
    u64::from(generation) << 32 | u64::from(place)
}

impl<T> Slots<T> {
    pub fn new(capacity: usize) -> Self {
        assert!(capacity < u32::MAX as usize, "places are numbered by 32 bits");
        Self { slots: Vec::new(), free: Vec::new(), capacity }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn is_full(&self) -> bool {
        self.len() == self.capacity
    }

    /// Gives `tenant` a place; gives it back when all are taken.
    pub fn insert(&mut self, tenant: T) -> Result<Key, T> {
        if let Some(place) = self.free.pop() {
            let slot = &mut self.slots[place as usize];
            slot.tenant = Some(tenant);
            return Ok(key(slot.generation, place));
        }
        if self.slots.len() == self.capacity {
            return Err(tenant);
        }
        self.slots.push(Slot { generation: 1, tenant: Some(tenant) });
        Ok(key(1, self.slots.len() as u32 - 1))
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key as u32 as usize)?;
        if slot.generation != (key >> 32) as u32 { None } else { slot.tenant.as_mut() }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let place = key as u32;
        let slot = self.slots.get_mut(place as usize)?;
        if slot.generation != (key >> 32) as u32 {
            return None;
        }
        let tenant = slot.tenant.take()?;
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        self.free.push(place);
        Some(tenant)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.tenant.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_late_answer_finds_nobody() {
        let mut slots = Slots::new(1);
        let first = slots.insert("first").unwrap();
        assert!(slots.is_full());
        assert_eq!(slots.insert("no room"), Err("no room"));
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second").unwrap();
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.remove(second), Some("second"));
        assert_eq!(slots.remove(0), None);
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in proptest::collection::vec((any::<bool>(), any::<u16>()), 0..200)) {
            let mut slots = Slots::new(16);
            let mut map = BTreeMap::new();
            let mut keys = Vec::new();
            for (is_insert, number) in steps {
                if is_insert {
                    match slots.insert(number) {
                        Ok(key) => {
                            prop_assert!(key != 0 && map.insert(key, number).is_none());
                            keys.push(key);
                        }
                        Err(_) => prop_assert_eq!(map.len(), 16),
                    }
                } else if !keys.is_empty() {
                    let key = keys[usize::from(number) % keys.len()];
                    prop_assert_eq!(slots.remove(key), map.remove(&key));
                }
                prop_assert_eq!(slots.len(), map.len());
                prop_assert_eq!(slots.iter_mut().count(), map.len());
            }
        }
    }
}
