//! Where a run is spawned, and the places where another thread may come between: in this crate's own laboratories, a
//! scheduler explores the interleavings there.
//!
//! The scheduler is compiled only with `--cfg idempotency_laboratory`. No feature sets that, so no dependency can
//! switch it on; `.ci/controls` does, for the programs of the laboratories alone. Without it, `point` is empty, and
//! `spawn` is tokio's.
//!
//! What breaks a protection on purpose is not here: `laboratories/broken.patch` puts it into a copy of the crate.

#[cfg(idempotency_laboratory)]
mod explore {
    use std::sync::OnceLock;

    use futures_util::future::BoxFuture;

    /// The actions of a scheduler that replaces the machine's.
    #[derive(Debug, Clone, Copy)]
    pub struct Scheduler {
        /// Called where another thread may come between.
        pub point: fn(),
        /// Starts a run.
        pub spawn: fn(BoxFuture<'static, ()>),
    }

    /// Set at most once. `point` and `spawn` then call the scheduler.
    pub(super) static SCHEDULER: OnceLock<Scheduler> = OnceLock::new();

    /// Lets a scheduler explore the interleavings of this process from now on.
    pub fn explore(scheduler: Scheduler) {
        let _ = SCHEDULER.set(scheduler);
    }
}
#[cfg(idempotency_laboratory)]
pub use explore::{Scheduler, explore};

/// A place where another thread may come between. No lock is held here.
pub(crate) fn point() {
    #[cfg(idempotency_laboratory)]
    if let Some(scheduler) = explore::SCHEDULER.get() {
        (scheduler.point)();
    }
}

/// Starts a run in the current runtime.
pub(crate) fn spawn(run: impl Future<Output = ()> + Send + 'static) {
    #[cfg(idempotency_laboratory)]
    if let Some(scheduler) = explore::SCHEDULER.get() {
        return (scheduler.spawn)(Box::pin(run));
    }
    tokio::spawn(run);
}
