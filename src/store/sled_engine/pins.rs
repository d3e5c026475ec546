//! Keeps sled from freeing what it still reads.
//!
//! sled 0.34 frees a log buffer by epochs (`pagecache/iobuf.rs`, `maybe_seal_and_write_iobuf`), but reads the pointer
//! to the newest one without a pin and counts it a moment later (`IoBufs::current_iobuf`). A thread that stands still
//! between the two, and whose buffer is swapped out meanwhile, counts and writes into freed memory. So:
//! 1. Who calls sled's `flush()`, or drops its handles, holds a pin of sled's own collector: see [`pinned`].
//! 2. sled's flusher, a thread of its own, can't be given one. Who watches over the store holds two in its place, in
//!    turn, as long as there is a flusher, before the store is open and after it is closed too: see [`Keeper`]. What is
//!    swapped out is freed an eighth of a second later at the earliest, and about half a second later as a rule. The flusher
//!    is exposed only if it stands still for longer between two instructions.
//! 3. Nothing here calls `flush_async`, which runs on a thread of sled's.
//!
//! What is not freed at once takes memory, some 40 MiB in a store that writes as fast as it can, and memory that is not
//! used again at once takes time, up to a tenth of its throughput. While a flush hangs, its pin holds back all that
//! this process frees by the same collector; but what would write to that database waits too.

use crossbeam_epoch::{Collector, Guard, LocalHandle, default_collector, pin};

use crate::laboratory::{self, Protection};

/// Calls `act`, which may call sled's `flush()` or drop its handles.
pub(super) fn pinned<T>(act: impl FnOnce() -> T) -> T {
    let _guard = (!laboratory::is_broken(Protection::Pins)).then(pin);
    act()
}

/// Two pins, one of which is always at least as old as the time between two renewals.
pub(crate) struct Keeper {
    older: Pin,
    newer: Pin,
}

/// A pin apart from its thread's others, whose renewal moves all of them.
struct Pin {
    // Before the handle, which it needs.
    guard: Option<Guard>,
    handle: LocalHandle,
}

impl Pin {
    fn new(collector: &Collector) -> Self {
        let handle = collector.register();
        Self { guard: Some(handle.pin()), handle }
    }

    fn renew(&mut self) {
        self.guard = None;
        if !laboratory::is_broken(Protection::Pins) {
            self.guard = Some(self.handle.pin());
        }
    }
}

impl Default for Keeper {
    /// Of sled's own collector. It is renewed eight times a second: each pin is held for twice as long, a quarter of a
    /// second.
    fn default() -> Self {
        Self::new(default_collector())
    }
}

impl Keeper {
    fn new(collector: &Collector) -> Self {
        Self { older: Pin::new(collector), newer: Pin::new(collector) }
    }

    /// Lets go what was swapped out before the last renewal.
    pub(super) fn renew(&mut self) {
        std::mem::swap(&mut self.older, &mut self.newer);
        self.newer.renew();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    /// Something that was swapped out.
    struct SwappedOut {
        collector: Collector,
        freed: Arc<AtomicBool>,
    }

    impl SwappedOut {
        fn new(collector: &Collector) -> Self {
            let freed = Arc::new(AtomicBool::new(false));
            let freeing = Arc::clone(&freed);
            let guard = collector.register().pin();
            guard.defer(move || freeing.store(true, Ordering::SeqCst));
            guard.flush();
            Self { collector: collector.clone(), freed }
        }

        /// Lets the collector go on as far as it can.
        fn is_freed(&self) -> bool {
            (0..100).for_each(|_| self.collector.register().pin().flush());
            self.freed.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn trap_93_what_is_swapped_out_is_kept_through_a_renewal_and_freed_after_a_few() {
        let collector = Collector::new();
        let mut keeper = Keeper::new(&collector);
        keeper.renew();
        let swapped_out = SwappedOut::new(&collector);
        assert!(!swapped_out.is_freed());
        keeper.renew();
        assert!(!swapped_out.is_freed(), "one pin is older than it");
        // Two epochs have to go by, and each wants both pins renewed.
        let freed = (0..4).any(|_| {
            keeper.renew();
            swapped_out.is_freed()
        });
        assert!(freed);
    }

    #[test]
    fn trap_93_nothing_is_freed_that_was_swapped_out_during_a_flush() {
        let collector = default_collector();
        let swapped_out = pinned(|| {
            let swapped_out = std::thread::spawn(|| SwappedOut::new(default_collector())).join().unwrap();
            assert!(!swapped_out.is_freed());
            swapped_out
        });
        // Other tests of this process have keepers of their own.
        let began = Instant::now();
        while !swapped_out.is_freed() {
            assert!(began.elapsed() < Duration::from_secs(60), "{collector:?} frees nothing");
            std::thread::yield_now();
        }
    }
}
