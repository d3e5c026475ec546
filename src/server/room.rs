//! The room for request bodies that are being read: a bound on their bytes, over all requests of a layer.
//!
//! A quarter of the room is reserved for bodies up to 64 KiB, and a quarter for longer ones, so that neither kind can
//! keep the other out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most bytes of a small body.
const SMALL: usize = 64 * 1024;

/// The number of bytes that there is room for, and how many of them are taken.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    taken: Mutex<Taken>,
}

/// The bytes that are taken by bodies that are small so far, and by the others.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Taken {
    small: usize,
    large: usize,
}

impl Room {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn of(&mut self, bytes: usize) -> &mut usize {
        if bytes <= SMALL { &mut self.small } else { &mut self.large }
    }

    fn fits(self, most: usize) -> bool {
        let most_of_one_kind = most - most / 4;
        self.small.saturating_add(self.large) <= most && self.small.max(self.large) <= most_of_one_kind
    }
}

/// The bytes of the room that one body takes. They are given back when the share is dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Share {
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), bytes: 0 }
    }

    /// Takes this many more bytes. Returns `false` if there is no room for them.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let whole = self.bytes.saturating_add(bytes);
        let mut taken = self.room.taken();
        let mut then = *taken;
        *then.of(self.bytes) -= self.bytes;
        *then.of(whole) += whole;
        let fits = then.fits(self.room.most);
        if fits {
            (*taken, self.bytes) = (then, whole);
        }
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            *self.room.taken().of(self.bytes) -= self.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn a_quarter_is_for_each_kind_and_what_is_given_back_is_there_again() {
        let room = Arc::new(Room::new(1024 * KIB));
        let share = || Share::new(&room);
        let (mut large, mut growing, mut small) = (share(), share(), share());
        assert!(large.grow(512 * KIB) && large.grow(256 * KIB));
        assert!(!large.grow(1), "three quarters are taken");
        assert!(growing.grow(SMALL), "it is small so far");
        assert!(!growing.grow(1), "and is not any more");
        assert!(small.grow(SMALL / 2) && small.grow(SMALL / 2));
        drop(large);
        assert!(growing.grow(1));
        drop((growing, small));
        assert_eq!(*room.taken(), Taken::default());

        let many: Vec<_> = (0..20)
            .map_while(|_| {
                let mut small = share();
                small.grow(SMALL).then_some(small)
            })
            .collect();
        assert_eq!(many.len(), 12, "small ones have three quarters");
        assert!(share().grow(256 * KIB), "and a long one has room");
        assert!(!share().grow(257 * KIB));
    }
}
