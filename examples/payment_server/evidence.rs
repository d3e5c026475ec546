//! Whether what the ledger has under the key of an interrupted run is what that run has done.
//!
//! The same key and the same request, sent again after the retention, are another operation with the same derived key:
//! its run must not be answered with the charge of the first one. That charge is older by at least the retention. What
//! is older by less than half of it is the run's own: the clocks of the ledger and of the records may differ, and a run
//! that `fail_open` let go ahead may be claimed only later.

/// What was charged or refunded, and when, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved<'a> {
    pub(crate) amount: u64,
    pub(crate) currency: &'a str,
    pub(crate) created: u64,
}

/// What is found under the key of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The run has done this.
    OfThisRun,
    /// It was done before the operation began.
    OfAnEarlierOperation,
    /// It is not the sum that was noted when the key was derived.
    AnotherSum,
}

/// Compares what is found with what was noted under the key, amount and currency, and with the time at which the
/// operation began. The retention is in seconds.
pub(crate) fn found(moved: Moved<'_>, noted: Option<(u64, &str)>, began: u64, retention: u64) -> Found {
    if moved.created.saturating_add(retention / 2) < began {
        return Found::OfAnEarlierOperation;
    }
    match noted {
        Some(noted) if noted != (moved.amount, moved.currency) => Found::AnotherSum,
        _ => Found::OfThisRun,
    }
}
