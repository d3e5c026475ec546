//! A map that is nearly always empty, and looked into by every request.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use dashmap::DashMap;

use crate::key::RecordId;

/// Tells without a lock that there is nothing in it.
pub(super) struct Rare<V> {
    entries: DashMap<RecordId, V, RandomState>,
    // At least as many as there are entries: counted before one is put in, and after one is taken out.
    count: AtomicUsize,
}

impl<V> Default for Rare<V> {
    fn default() -> Self {
        Self { entries: DashMap::default(), count: AtomicUsize::new(0) }
    }
}

impl<V: Clone> Rare<V> {
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Gives what was there before.
    pub(super) fn insert(&self, id: RecordId, value: V) -> Option<V> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let old = self.entries.insert(id, value);
        if old.is_some() {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
        old
    }

    pub(super) fn get(&self, id: &RecordId) -> Option<V> {
        if self.len() == 0 {
            return None;
        }
        self.entries.get(id).map(|value| value.clone())
    }

    /// Takes an entry out, if it is one of these.
    pub(super) fn remove_if(&self, id: &RecordId, is_meant: impl FnOnce(&V) -> bool) -> Option<V> {
        if self.len() == 0 {
            return None;
        }
        let (_, value) = self.entries.remove_if(id, |_, value| is_meant(value))?;
        self.count.fetch_sub(1, Ordering::SeqCst);
        Some(value)
    }

    /// The ids of all entries of this kind.
    pub(super) fn ids(&self, is_meant: impl Fn(&V) -> bool) -> Vec<RecordId> {
        self.entries.iter().filter(|entry| is_meant(entry.value())).map(|entry| *entry.key()).collect()
    }
}

impl<V: fmt::Debug> fmt::Debug for Rare<V> {
    /// The entries alone, unless they are counted wrongly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count.load(Ordering::SeqCst);
        if count == self.entries.len() {
            return self.entries.fmt(f);
        }
        f.debug_struct("Rare").field("entries", &self.entries).field("count", &count).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> RecordId {
        RecordId::from_bytes([number; 32])
    }

    #[test]
    fn what_is_put_in_is_found_until_it_is_taken_out() {
        let rare = Rare::default();
        assert_eq!((rare.get(&id(1)), rare.remove_if(&id(1), |_| true), rare.len()), (None, None, 0));
        rare.insert(id(1), 'a');
        rare.insert(id(1), 'b');
        rare.insert(id(2), 'c');
        assert_eq!((rare.get(&id(1)), rare.get(&id(2)), rare.len()), (Some('b'), Some('c'), 2));
        assert_eq!(
            (rare.remove_if(&id(1), |_| true), rare.remove_if(&id(1), |_| true), rare.len()),
            (Some('b'), None, 1)
        );
        assert_eq!((rare.get(&id(1)), rare.get(&id(2))), (None, Some('c')));
        assert_eq!((rare.remove_if(&id(2), |value| *value == 'b'), rare.len()), (None, 1));
        assert_eq!((rare.ids(|value| *value == 'b'), rare.ids(|value| *value == 'c')), (vec![], vec![id(2)]));
    }
}
