//! For this crate's own laboratories: protections broken on command, to show that a laboratory would see it, and hooks
//! through which a scheduler explores interleavings.
//!
//! All of it is compiled only with `--cfg idempotency_laboratory`. No feature sets that, so no dependency can switch it
//! on; `.ci/controls` does, for the programs of the laboratories alone. Without it nothing is ever broken, and the
//! hooks are empty.
//!
//! Broken here is only what can't be broken from outside. What the disk or the clock can do to a store, the
//! laboratories do there, to the crate as users have it.

/// The variable of the environment that names the protection to break, for the whole process.
#[cfg(idempotency_laboratory)]
const SWITCH: &str = "TOWER_IDEMPOTENCY_BREAK";

/// A protection that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(idempotency_laboratory), allow(dead_code, reason = "named where the protection is"))]
pub(crate) enum Protection {
    /// A claim is written before the handler starts, where the policy needs it.
    DurableClaim,
    /// An answer was handed to the operating system before it is given.
    Flush,
    /// A run is detached from its requester.
    Detached,
    /// An outcome is recorded.
    Record,
    /// The slot is held until the record is durable.
    Slot,
    /// Memory that sled frees while it may still read it is kept.
    Pins,
}

impl Protection {
    #[cfg(idempotency_laboratory)]
    const fn name(self) -> &'static str {
        match self {
            Self::DurableClaim => "durable-claim",
            Self::Flush => "flush",
            Self::Detached => "detached",
            Self::Record => "record",
            Self::Slot => "slot",
            Self::Pins => "pins",
        }
    }
}

/// Returns whether a protection is broken in this process.
#[cfg(idempotency_laboratory)]
pub(crate) fn is_broken(protection: Protection) -> bool {
    // The variable is read once, so a protection is broken for the whole life of the process.
    static BROKEN: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
    let broken = BROKEN.get_or_init(|| {
        let broken = std::env::var_os(SWITCH);
        if let Some(name) = &broken {
            tracing::error!(target: "tower_idempotency", ?name, "{SWITCH} is set: a protection is broken on purpose");
        }
        broken
    });
    broken.as_ref().is_some_and(|name| name == protection.name())
}

/// Returns whether a protection is broken in this process: never.
#[cfg(not(idempotency_laboratory))]
pub(crate) const fn is_broken(_: Protection) -> bool {
    false
}

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
