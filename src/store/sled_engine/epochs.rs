//! Keeps sled from freeing memory that it still reads.
//!
//! sled 0.34 frees a log buffer by epochs (`pagecache/iobuf.rs`, `maybe_seal_and_write_iobuf`), but reads the pointer
//! to the newest buffer without a pin and increments its count a moment later (`IoBufs::current_iobuf`). If a thread is
//! paused between the two, and its buffer is swapped out meanwhile, it counts and writes in freed memory. So:
//! 1. A caller of sled's `flush()`, and a thread that drops sled's handles, holds a pin of sled's own collector; see
//!    [`pinned`].
//! 2. sled's flusher is a thread of sled's own and cannot be given a pin. The thread that watches over the store holds
//!    two in its place, in turn, as long as there is a flusher, also before the store is open and after it is closed;
//!    see [`EpochGuards`]. A buffer that is swapped out is freed an eighth of a second later at the earliest, and about
//!    half a second later as a rule. The flusher is exposed only if it is paused for longer between two instructions.
//! 3. Nothing here calls `flush_async`, which runs on a thread of sled's.
//!
//! Memory that is freed later takes space, some 40 MiB in a store that writes as fast as it can, and costs time because
//! it is not reused at once, up to a tenth of the throughput. While a flush hangs, its pin holds back everything that
//! this process frees by the same collector; but all writers to that database wait then, too.

use crossbeam_epoch::{Collector, Guard, LocalHandle, default_collector, pin};

/// Calls `act`, which may call sled's `flush()` or drop its handles.
pub(super) fn pinned<T>(act: impl FnOnce() -> T) -> T {
    let _guard = pin();
    act()
}

/// Two pins, one of which is always at least as old as the time between two renewals.
pub(crate) struct EpochGuards {
    older: Pin,
    newer: Pin,
}

/// A pin that is independent of its thread's others. Renewing one of those would move all of them.
struct Pin {
    /// This field comes before the handle, which it needs when it is dropped.
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
        self.guard = Some(self.handle.pin());
    }
}

impl Default for EpochGuards {
    /// Creates the guards of sled's own collector. They are renewed eight times a second, so each pin is held for twice
    /// as long, a quarter of a second.
    fn default() -> Self {
        Self::new(default_collector())
    }
}

impl EpochGuards {
    fn new(collector: &Collector) -> Self {
        Self { older: Pin::new(collector), newer: Pin::new(collector) }
    }

    /// Lets the collector free what was swapped out before the last renewal.
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

        /// Lets the collector go on as far as it can, and returns whether the value was freed.
        fn is_freed(&self) -> bool {
            (0..100).for_each(|_| self.collector.register().pin().flush());
            self.freed.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn trap_93_what_is_swapped_out_is_kept_through_a_renewal_and_freed_after_a_few() {
        let collector = Collector::new();
        let mut guards = EpochGuards::new(&collector);
        guards.renew();
        let swapped_out = SwappedOut::new(&collector);
        assert!(!swapped_out.is_freed());
        guards.renew();
        assert!(!swapped_out.is_freed(), "one pin is older than it");
        // Two epochs have to go by, and both pins must be renewed for each.
        let freed = (0..4).any(|_| {
            guards.renew();
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
        // Other tests of this process have guards of their own.
        let began = Instant::now();
        while !swapped_out.is_freed() {
            assert!(began.elapsed() < Duration::from_secs(60), "{collector:?} frees nothing");
            std::thread::yield_now();
        }
    }
}
