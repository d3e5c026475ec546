//! The budget for request bodies that are being read: a bound on their bytes, over all requests of a layer.
//!
//! A quarter of it is reserved for bodies up to 64 KiB, and a quarter for longer ones, so that neither kind can
//! keep the other out. Of either kind, one client may have at most half of what is free for it, so that none keeps the
//! others out. Its only body may take all that is free: a body that is longer than a share would never be taken
//! otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use parking_lot::Mutex;

use crate::slots::Client;

/// The most bytes of a small body.
const SMALL: usize = 64 * 1024;

/// The number of bytes that the budget has, and how many of them are taken.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The bytes that it has: the option `max_buffered`.
    most: usize,
    /// The bytes that are taken. It is locked for a few sums, and no other lock is taken meanwhile.
    taken: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    by_all: Usage,
    // Only of clients that have taken some.
    by_client: HashMap<Client, Usage, RandomState>,
}

/// The bytes that are taken by bodies that are small so far, and by the others.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Usage {
    small: usize,
    large: usize,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// Returns the bytes that are free for a body of `length` bytes, in addition to those that are taken. `None` if
    /// more are taken than there are.
    fn free(&self, mut taken: Usage, length: usize) -> Option<usize> {
        // The last quarter is for the other kind.
        let of_its_kind = (self.most - self.most / 4).checked_sub(*taken.of(length))?;
        Some(of_its_kind.min(self.most.checked_sub(taken.sum())?))
    }
}

impl Usage {
    /// Returns the count in which a body of `length` bytes is.
    fn of(&mut self, length: usize) -> &mut usize {
        if length <= SMALL { &mut self.small } else { &mut self.large }
    }

    fn sum(self) -> usize {
        self.small.saturating_add(self.large)
    }

    /// The same, with a body that had `before` bytes, and has `after` now.
    fn with(mut self, before: usize, after: usize) -> Self {
        *self.of(before) -= before;
        let kind = self.of(after);
        *kind = kind.saturating_add(after);
        self
    }
}

/// The bytes of the budget that one body takes. They are given back when the share is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    client: Client,
    /// The bytes of the body so far, which are in the counts of `budget`.
    bytes: usize,
}

impl Share {
    pub(crate) fn new(budget: &Arc<Budget>, client: Client) -> Self {
        Self { budget: Arc::clone(budget), client, bytes: 0 }
    }

    /// Takes this many more bytes. Returns `false` if the budget does not have them.
    #[must_use]
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        // An empty frame takes nothing, and makes no entry for its client.
        if bytes == 0 {
            return true;
        }
        let whole = self.bytes.saturating_add(bytes);
        let mut taken = self.budget.taken.lock();
        // The new counts are kept only if they fit. A body that is no longer small moves to the large ones.
        let by_all = taken.by_all.with(self.bytes, whole);
        let own = taken.by_client.get(&self.client).copied().unwrap_or_default();
        let mut own = own.with(self.bytes, whole);
        // The client has no other body in the budget.
        let is_only = own.sum() == whole;
        let fits = self.budget.free(by_all, whole).is_some_and(|free| is_only || *own.of(whole) <= free);
        if fits {
            taken.by_all = by_all;
            taken.by_client.insert(self.client, own);
            self.bytes = whole;
        }
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut taken = self.budget.taken.lock();
        taken.by_all = taken.by_all.with(self.bytes, 0);
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own = own.with(self.bytes, 0);
            if own.sum() == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn a_quarter_is_for_each_kind_and_what_is_given_back_is_there_again() {
        let budget = Arc::new(Budget::new(1024 * KIB));
        let clients = Cell::new(0);
        let share = || Share::new(&budget, Client(clients.replace(clients.get() + 1)));
        let (mut large, mut growing, mut small) = (share(), share(), share());
        assert!(large.grow(512 * KIB) && large.grow(256 * KIB));
        assert!(!large.grow(1), "three quarters are taken");
        assert!(growing.grow(SMALL), "it is small so far");
        assert!(!growing.grow(1), "and is not any more");
        assert!(small.grow(SMALL / 2) && small.grow(SMALL / 2));
        drop(large);
        assert!(growing.grow(1));
        drop((growing, small));
        assert_eq!(budget.taken.lock().by_all, Usage::default());
        assert!(budget.taken.lock().by_client.is_empty());

        let many: Vec<_> = (0..20)
            .map_while(|_| {
                let mut small = share();
                small.grow(SMALL).then_some(small)
            })
            .collect();
        assert_eq!(many.len(), 12, "small ones have three quarters");
        assert!(share().grow(256 * KIB), "and there are some for a long one");
        assert!(!share().grow(257 * KIB));
    }
}
