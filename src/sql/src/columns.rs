//! Columns of stored rows in the engine's form, kept by the storage beside the rows so that the next query need not decode
//! them again.
//!
//! The storage decides for which rows they are and how long they are good; a scan fills in those that it decoded. All
//! columns that are kept in a process share one budget: what does not fit is not kept, which costs time and nothing else.

use datafusion::arrow::array::{Array, ArrayRef};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The bytes that kept columns may take.
#[derive(Debug, Default)]
pub struct Budget {
    used: AtomicUsize,
    max: AtomicUsize,
}

impl Budget {
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Less than what is used already takes nothing back: that is the storage's to do.
    pub fn set_max(&self, bytes: usize) {
        self.max.store(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.max());
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Columns of some rows, by their position in the table. Those that are there stay as long as this does.
pub struct Columns {
    pub rows: usize,
    arrays: Mutex<BTreeMap<usize, ArrayRef>>,
    budget: Arc<Budget>,
}

impl Columns {
    pub fn new(rows: usize, budget: Arc<Budget>) -> Self {
        Self { rows, arrays: Mutex::default(), budget }
    }

    pub fn has(&self, columns: &[usize]) -> bool {
        let arrays = self.arrays.lock().unwrap_or_else(PoisonError::into_inner);
        columns.iter().all(|column| arrays.contains_key(column))
    }

    /// These columns, in this order; None when one is not there.
    pub fn get(&self, columns: &[usize]) -> Option<Vec<ArrayRef>> {
        let arrays = self.arrays.lock().unwrap_or_else(PoisonError::into_inner);
        columns.iter().map(|column| arrays.get(column).cloned()).collect()
    }

    /// Keeps a column, if it is not there yet and the budget allows it.
    pub fn put(&self, column: usize, array: &ArrayRef) {
        let mut arrays = self.arrays.lock().unwrap_or_else(PoisonError::into_inner);
        if array.len() == self.rows && !arrays.contains_key(&column) && self.budget.take(array.get_array_memory_size())
        {
            arrays.insert(column, array.clone());
        }
    }
}

impl Drop for Columns {
    fn drop(&mut self) {
        let arrays = self.arrays.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.budget.give_back(arrays.values().map(|array| array.get_array_memory_size()).sum());
    }
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Columns of {} rows", self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Int64Array;

    #[test]
    fn what_fits_the_budget_is_kept_and_given_back() {
        let budget = Arc::new(Budget::default());
        let array: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        let bytes = array.get_array_memory_size();
        budget.set_max(bytes * 2);
        let columns = Columns::new(100, Arc::clone(&budget));
        for column in [3, 1, 3, 2] {
            columns.put(column, &array);
        }
        assert!(columns.has(&[]) && columns.has(&[1, 3]) && !columns.has(&[1, 2]));
        assert_eq!(columns.get(&[3, 1]).map(|arrays| arrays.len()), Some(2));
        assert!(columns.get(&[2]).is_none());
        columns.put(4, &array.slice(0, 50));
        assert!(!columns.has(&[4]), "of other rows");
        assert_eq!(budget.used(), bytes * 2);
        drop(columns);
        assert_eq!(budget.used(), 0);
    }
}
