//! What a process counts over a store: one list for the counters and for what is shown of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// The largest possible number of kinds of refusals.
pub(crate) const REFUSALS: usize = 20;

/// A counter for each line.
macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        /// The counters of this process. [`Stats`] says what each one counts.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub $name: AtomicU64,)+
            /// Refusals, by their kind as the server numbers them.
            pub(crate) refused: [AtomicU64; REFUSALS],
        }

        /// The counts of this process since the store was opened, over all layers on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Runs that are under way now.
            pub live: u64,
            /// Refusals by layers, by the index of their `RejectionKind`. `Stats::refused` reads them.
            pub(crate) refused: [u64; REFUSALS],
        }

        impl Counters {
            /// Reads them, next to the number of runs that are under way.
            pub(super) fn read(&self, live: usize) -> Stats {
                let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                let refused = self.refused.each_ref().map(read);
                Stats { $($name: read(&self.$name),)+ live: live as u64, refused }
            }
        }

        impl Stats {
            /// Returns each count but those of refusals, with its name.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+ ("live", self.live)]
            }
        }
    };
}

counts! {
    /// Handlers that were started.
    runs;
    /// Requests that were answered with the outcome of an earlier one.
    replays;
    /// Runs whose end is unknown: panics, errors, timeouts, and answers that mean so.
    interrupted;
    /// Those of the interrupted runs whose handler answered, and whose answer means that the effect is unknown, or
    /// broke off.
    unknown;
    /// Answers that were given although their record could not be written: after a restart, their retries are refused,
    /// or run again under `Rerun`.
    unsaved;
    /// Handlers that were started without protection, because `fail_open` was chosen and the store was away.
    fail_open_runs;
    /// Damaged records that were found.
    corrupt;
    /// Interrupted operations that the reconciler settled with an outcome.
    reconciled;
    /// Retries under [`OnInterrupted::Rerun`](crate::OnInterrupted::Rerun) that were refused with `outcome-unknown`
    /// because the interrupted run had been claimed under another policy.
    not_rerun;
    /// Outcomes that came after another process had taken the operation over, or an operator or the reconciler had
    /// settled it. They are kept in the shared store for 30 days, and count for nothing.
    disputed;
    /// Outcomes that a shared store's database refuses for good, because they are too large for example. Their
    /// operations are done, and retries are refused as `not-replayable`.
    consumed;
    /// Records that were written anew in a shared store because a failover had lost them, or because they had expired:
    /// when a run ended that had claimed its operation, or because this process still knew the outcome. Until then, a
    /// retry could have run.
    lost;
    /// Answers of a shared database that showed a difference of more than five seconds between its clock, the wall
    /// clock of this process, and the clock that this process keeps.
    skewed;
    /// Openings that went on without records that a damaged disk had lost, because `accept_loss_after` says
    /// so: 0 or 1.
    losses_accepted;
    /// Claims that the store has granted in time.
    claimed;
    /// Ends of runs that the store has recorded at once, those in a transaction of the application's not included.
    recorded;
    /// Requests that have waited for the run of another one, and had the same fingerprint.
    waited;
    /// Interrupted operations that an operator or the reconciler settled.
    settled;
    /// Expired records that this process has deleted.
    swept;
    /// Times that this process has renewed its lease over a shared store.
    lease_renewals;
    /// Times that another process has taken this one for dead.
    lease_losses;
    /// Times that the circuit breaker of a shared store has opened.
    breaker_openings;
}
