//! The truth, which no process knows.

use tower_idempotency::internals::ClaimPolicy;

use crate::rows::Run;

/// The truth about an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Truth {
    /// The runs that took effect downstream, and the oldest fence that is still heard there.
    pub(crate) effects: Vec<Run>,
    pub(crate) heard: u64,
    /// The number of allowed effects beyond one: by the policy, by an operator, after its retention, or because of a
    /// loss.
    pub(crate) allowed: u8,
    /// The outcome that was answered, since it was last forgotten.
    pub(crate) told: Option<Run>,
    /// Runs that were taken over, or whose operation was settled.
    pub(crate) taken: Vec<u64>,
    pub(crate) last_granted: u64,
    /// `true` if a failover has lost an answer that was given.
    pub(crate) is_lost: bool,
    /// `true` if a row has vanished that refused a claim, and another copy of that claim has arrived, which has no run.
    /// The row vanished because its retention was over, or because a failover took back what a restart had shown.
    pub(crate) has_vanished: bool,
    /// The true time until which the outcome is kept, and the true time at which the bound of the run is over.
    pub(crate) kept_until: Option<u64>,
    pub(crate) bound: u64,
    /// The policy under which the latest run was claimed.
    pub(crate) policy: Option<ClaimPolicy>,
    /// The outcome of the operation before this one.
    pub(crate) earlier: Option<Run>,
    /// The records that an operator has deleted.
    pub(crate) forgotten: Vec<Forgotten>,
    /// `true` if all clocks of a process were wrong together.
    pub(crate) is_premature: bool,
}

/// A record that was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Forgotten {
    pub(crate) fence: u64,
    pub(crate) run: Run,
    /// The server that answered then.
    pub(crate) server: u8,
}
