//! What a request gets that has met a record: the policy and the record decide it. A retry comes here from
//! `exchange.rs`, which has read the record; a run comes here from `drive.rs`, if its claim has met one.

use super::engine::Engine;
use super::policy::{OnInterrupted, Policy};
use super::reconcile::Question;
use crate::fingerprint::{Fingerprint, Match};
use crate::key::RecordId;
use crate::record::{Owner, Record, State};
use crate::slots::{End, Ended, once_a_minute};
use crate::store::{InterruptedRun, Store};

/// A record that a request with this fingerprint has met.
#[derive(Debug, Clone, Copy)]
pub(super) struct Met<'a> {
    pub(super) policy: &'a Policy,
    pub(super) fingerprint: &'a Fingerprint,
    pub(super) record: &'a Record,
}

impl Met<'_> {
    fn is_same(&self) -> bool {
        self.record.fingerprint.compare(self.fingerprint) == Match::Same
    }

    /// Returns whether the record is of an interrupted run of the same request.
    fn is_interrupted(&self) -> bool {
        self.record.is_interrupted() && self.is_same()
    }

    /// Returns whether an interrupted operation runs again for the request.
    pub(super) fn runs_again(&self) -> bool {
        self.record.may_run_again() && self.would_run_again()
    }

    /// Returns whether an interrupted operation would run again for the request if it had been claimed under `Rerun`.
    fn would_run_again(&self) -> bool {
        self.policy.on_interrupted == OnInterrupted::Rerun && self.is_interrupted()
    }

    /// Returns the question to the application about the record, if it is to be asked for the request.
    pub(super) fn question(&self, id: RecordId) -> Option<Box<Question>> {
        let reconciler = self.policy.reconciler.clone().filter(|_| self.is_interrupted())?;
        let interrupted = InterruptedRun::of(id, self.record)?;
        Some(Box::new(Question { reconciler, interrupted, fingerprint: *self.fingerprint }))
    }

    /// Returns whether the request can be answered from the record without any further step.
    pub(super) fn is_answer(&self) -> bool {
        match self.record.state {
            State::Completed { .. } | State::Consumed { .. } => true,
            // A run of this process without a slot has ended without settling, and is interrupted before its answer.
            State::Running { .. } => self.record.owner == Owner::Elsewhere,
            State::Interrupted { .. } => {
                let asks = self.policy.reconciler.is_some() && self.is_interrupted();
                !self.runs_again() && !asks
            }
        }
    }

    /// Counts a request that is answered from the record if it is refused because the operation was claimed under
    /// another policy than `Rerun`, which is the policy now. Logs at most one line a minute, because a deploy may leave
    /// thousands of such operations.
    pub(super) fn report_not_rerun<St: Store>(&self, engine: &Engine<St>, id: &RecordId) {
        if self.record.may_run_again() || !self.would_run_again() {
            return;
        }
        engine.count(|counters| &counters.not_rerun);
        once_a_minute!(
            engine.lines().of("not_rerun"),
            warn,
            record_id = id.short(),
            "an interrupted operation does not run again, because it was not claimed under Rerun: list the interrupted \
             operations and settle them"
        );
    }
}

/// Returns the answers to a request of this fingerprint and to its duplicates, which may be different clients'
/// requests, for the record that its claim has met. If the record needs a step that only a request with its own
/// fingerprint may take, the client of that request retries, and the retry takes the step. The request is also asked to
/// retry if it was to take the operation over and another process took a step first.
pub(super) fn ended(policy: &Policy, fingerprint: &Fingerprint, record: Record) -> Ended {
    let met = Met { policy, fingerprint, record: &record };
    // A request with another fingerprint gets a mismatch at once; this is about the waiters whose fingerprint fits.
    let of_waiters = Met { fingerprint: &record.fingerprint, ..met };
    let is_answer = if met.is_same() { !met.runs_again() } else { of_waiters.is_answer() };
    let fingerprint = record.fingerprint;
    let ended = Ended::from(record);
    if is_answer || ended.is_in_flight() { ended } else { Ended::new(fingerprint, End::Released) }
}
