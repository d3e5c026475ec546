//! The state of a run's transaction, shared by the handler that sends it, the writer that answers, and the run that
//! settles.
//!
//! The store's writer answers a transaction in the store's own database. If the application commits the transaction
//! itself, the store answers once the run is over: it then checks whether the record is in the database.
//!
//! `point` is empty, except in the laboratory of interleavings, which lets another thread come between there.
//!
//! Rules:
//! 1. A run has one transaction at a time, and none after one that was committed.
//! 2. The run is closed before it is settled. A closed run refuses new transactions and waits for the one that was
//!    sent.
//! 3. If a run is dropped in between, its slot stays taken until the writer has answered. Otherwise a request could be
//!    answered from a record that can be read in the store but may not be durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::engine::Presented;
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;
use crate::laboratory::point;
use crate::record::{Completion, Hold, Origin, RunResult};
use crate::slots::{Slot, Slots};
use crate::within::COMMIT_ANSWERED_WITHIN;

/// A run's transaction: its data and its stage.
#[derive(Debug)]
pub(super) struct Commitment {
    /// The right under which the run was claimed. The record is written under its fence.
    pub(super) hold: Hold,
    pub(super) fingerprint: Fingerprint,
    /// The origin of the operation.
    pub(super) origin: Origin,
    /// The time for which the store keeps the outcome, or the slot keeps a doubt.
    pub(super) retention: Duration,
    /// The slots of the run's store. They identify the store, and `remembered` there keeps a doubt.
    pub(super) slots: Arc<Slots>,
    /// The session of this process when the run was claimed; `None` where there are none.
    pub(super) session: Option<RecordId>,
    /// `true` if the key is free when the application has not committed the run's transaction; otherwise the run is
    /// interrupted then.
    #[cfg_attr(not(feature = "shared"), allow(dead_code, reason = "every transaction is the store's own"))]
    pub(super) may_rerun: bool,
    /// The turn of the run's slot: only this run's remembered end is forgotten.
    turn: u64,
    /// Changed by the handler, the writer and the run. `Slots::remembered` may be locked within this lock, never the
    /// other way round.
    stage: Mutex<Stage>,
    /// Notifies `wait_and_close` of a new stage, and `ended` that the run is over.
    moved: Notify,
    /// Set when the run begins to settle or is dropped; a handler's context may be kept for longer.
    over: AtomicBool,
}

#[derive(Debug, Clone)]
enum Stage {
    /// No transaction was sent, or it was aborted.
    Open,
    /// The writer has the transaction. `is_orphaned` is set if the run was dropped meanwhile.
    Sent { is_orphaned: bool },
    /// The transaction is durable, with this outcome.
    Committed(Bytes),
    /// It is unknown whether it is durable.
    Doubtful,
    /// The writer answered after the transaction had counted as doubtful.
    Late,
    /// The transaction was not committed, and the store has ended the run.
    RolledBack { is_free: bool },
    /// The run is being settled.
    Closed,
}

/// The end of a transaction.
#[derive(Debug)]
pub(super) enum CommitResult {
    /// There was no transaction, or it did nothing. The value that the run returns counts.
    Nothing,
    /// Effect and record are durable. This is the outcome.
    Committed(Bytes),
    /// The application has not committed it, and the store has ended the run: the key is free, or the run's other
    /// effects are unknown.
    #[cfg_attr(not(feature = "shared"), allow(dead_code, reason = "every transaction is the store's own"))]
    RolledBack {
        /// `true` if the key is free.
        is_free: bool,
    },
    /// It is unknown whether it is durable.
    Doubt,
}

impl Commitment {
    /// Creates the commitment of the run that has the slot of this turn.
    pub(super) fn new(
        hold: Hold,
        presented: &Presented,
        retention: Duration,
        slots: Arc<Slots>,
        session: Option<RecordId>,
        may_rerun: bool,
        turn: u64,
    ) -> Self {
        let (stage, moved, over) = (Mutex::new(Stage::Open), Notify::new(), AtomicBool::new(false));
        let (fingerprint, origin) = (presented.fingerprint, presented.origin.clone());
        Self { hold, fingerprint, origin, retention, slots, session, may_rerun, turn, stage, moved, over }
    }

    /// Returns the completion of the run by `outcome`.
    pub(super) fn completion<O>(&self, outcome: O) -> Completion<O> {
        let (hold, fingerprint, origin, retention) = (self.hold, self.fingerprint, self.origin.clone(), self.retention);
        Completion { hold, fingerprint, origin, result: RunResult::Outcome(outcome), retention }
    }

    /// Marks the transaction as sent. Returns `false` if one was sent or committed before, or the run is closed.
    fn begin(&self) -> bool {
        point();
        let mut stage = self.stage.lock();
        let is_open = matches!(*stage, Stage::Open);
        if is_open {
            *stage = Stage::Sent { is_orphaned: false };
        }
        is_open
    }

    /// The writer's answer.
    fn answered(&self, answer: CommitResult) {
        point();
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Doubtful) {
            // No caller waits any more, but the store now has the result.
            if !matches!(answer, CommitResult::Doubt) {
                *stage = Stage::Late;
                drop(stage);
                point();
                self.slots.remembered.forget(&self.hold.id, self.turn);
            }
            return;
        }
        let is_orphaned = matches!(*stage, Stage::Sent { is_orphaned: true });
        // The run was dropped, and its slot was kept for this answer: now the store can answer requests.
        let settled = is_orphaned && !matches!(answer, CommitResult::Doubt);
        *stage = match answer {
            CommitResult::Committed(outcome) => Stage::Committed(outcome),
            CommitResult::Nothing if is_orphaned => Stage::Closed,
            CommitResult::Nothing => Stage::Open,
            CommitResult::RolledBack { is_free } => Stage::RolledBack { is_free },
            CommitResult::Doubt => Stage::Doubtful,
        };
        drop(stage);
        point();
        if settled {
            self.slots.remembered.forget(&self.hold.id, self.turn);
        }
        self.moved.notify_waiters();
    }

    /// Stops waiting for the writer: the transaction's end is unknown from now on.
    pub(super) fn give_up(&self) {
        let mut stage = self.stage.lock();
        if let Stage::Sent { .. } = *stage {
            *stage = Stage::Doubtful;
        }
        drop(stage);
        self.moved.notify_waiters();
    }

    /// Is called once the slot remembers the doubt. If the writer has answered meanwhile, the slot forgets the doubt
    /// again.
    pub(super) fn remembered(&self) {
        let is_late = matches!(*self.stage.lock(), Stage::Late);
        if is_late {
            self.slots.remembered.forget(&self.hold.id, self.turn);
        }
    }

    /// Refuses further transactions, waits for the one that was sent, and returns how it ended.
    pub(super) async fn close(&self) -> CommitResult {
        self.over.store(true, Ordering::SeqCst);
        point();
        // Most runs send no transaction.
        match self.try_close() {
            Some(answer) => answer,
            None => Box::pin(self.wait_and_close()).await,
        }
    }

    async fn wait_and_close(&self) -> CommitResult {
        // This wakes `ended`: an application's transaction is looked for only once the run is over.
        self.moved.notify_waiters();
        let waited = timeout(COMMIT_ANSWERED_WITHIN, async {
            loop {
                let moved = self.moved.notified();
                tokio::pin!(moved);
                // From here on no notification is missed, so the stage is looked at afterwards.
                moved.as_mut().enable();
                point();
                if let Some(answer) = self.try_close() {
                    return answer;
                }
                moved.await;
            }
        });
        waited.await.unwrap_or_else(|_| {
            self.give_up();
            // The writer may have answered at this very moment.
            self.try_close().unwrap_or(CommitResult::Doubt)
        })
    }

    /// Returns how the transaction ended, or `None` while the writer has it. Closes a run that has sent none.
    fn try_close(&self) -> Option<CommitResult> {
        let mut stage = self.stage.lock();
        match &*stage {
            Stage::Sent { .. } => None,
            Stage::Committed(outcome) => Some(CommitResult::Committed(outcome.clone())),
            Stage::RolledBack { is_free } => Some(CommitResult::RolledBack { is_free: *is_free }),
            Stage::Doubtful | Stage::Late => Some(CommitResult::Doubt),
            Stage::Open | Stage::Closed => {
                *stage = Stage::Closed;
                Some(CommitResult::Nothing)
            }
        }
    }

    /// Returns whether the run is over, or being settled.
    #[cfg(any(feature = "server", feature = "embedded", feature = "shared"))]
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Waits until the run that has sent a transaction is over, or being settled.
    #[cfg(feature = "shared")]
    pub(super) async fn ended(&self) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.is_over() {
                return;
            }
            moved.await;
        }
    }

    /// Returns whether a transaction was sent and the run is still under way.
    #[cfg(feature = "shared")]
    pub(super) fn is_sent(&self) -> bool {
        !self.is_over() && matches!(*self.stage.lock(), Stage::Sent { .. })
    }

    /// Handles a run that is dropped.
    pub(super) fn abandon(&self, slot: &Slot) {
        self.over.store(true, Ordering::SeqCst);
        point();
        let mut stage = self.stage.lock();
        match &mut *stage {
            Stage::Sent { is_orphaned } => {
                *is_orphaned = true;
                // Until the writer answers, requests get this end and not a record that may not be durable.
                slot.keep_ended(self.retention);
                self.moved.notify_waiters();
            }
            Stage::Doubtful => slot.keep_ended(self.retention),
            Stage::Open => *stage = Stage::Closed,
            // The store knows the end, or the run is being settled.
            Stage::Committed(_) | Stage::RolledBack { .. } | Stage::Late | Stage::Closed => {}
        }
    }
}

/// A transaction that the writer has not answered. If the writer never answers, its end is unknown.
#[cfg_attr(
    not(any(feature = "embedded", feature = "shared", idempotency_laboratory)),
    allow(dead_code, reason = "no enabled feature sends one")
)]
#[derive(Debug)]
pub(super) struct PendingCommit {
    /// `None` once there is an answer, so that the drop adds no doubt.
    commitment: Option<Arc<Commitment>>,
}

#[cfg_attr(
    not(any(feature = "embedded", feature = "shared", idempotency_laboratory)),
    allow(dead_code, reason = "no enabled feature sends one")
)]
impl PendingCommit {
    /// Begins a transaction. Returns `None` if there is one that may be done, or if the run is over.
    pub(super) fn begin(commitment: &Arc<Commitment>) -> Option<Self> {
        commitment.begin().then(|| Self { commitment: Some(Arc::clone(commitment)) })
    }

    /// The writer's answer.
    pub(super) fn answered(mut self, answer: CommitResult) {
        if let Some(commitment) = self.commitment.take() {
            commitment.answered(answer);
        }
    }
}

impl Drop for PendingCommit {
    fn drop(&mut self) {
        if let Some(commitment) = self.commitment.take() {
            commitment.answered(CommitResult::Doubt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Fence;
    use crate::slots::{End, Ended, Entered};

    // A seeded fault: every late answer of the writer frees the key.
    #[tokio::test(start_paused = true)]
    async fn a_doubt_is_forgotten_once_the_writer_knows_and_not_before() {
        let (slots, fingerprint, retention) = (Arc::<Slots>::default(), Fingerprint::of(b"m"), Duration::MAX);
        for (number, answer, is_known) in [(1, CommitResult::Doubt, false), (2, CommitResult::Nothing, true)] {
            let id = RecordId::from_bytes([number; 32]);
            let Entered::Mine(slot) = slots.take(id, 1, None) else { panic!("it is free") };
            let hold = Hold { id, fence: Fence(1), attempt: 1 };
            let (turn, slots) = (slot.turn(), Arc::clone(&slots));
            let presented = Presented::new(id, fingerprint, Origin::default());
            let commitment =
                Arc::new(Commitment::new(hold, &presented, retention, Arc::clone(&slots), None, true, turn));
            let pending = PendingCommit::begin(&commitment).expect("it is the first");
            assert!(matches!(commitment.close().await, CommitResult::Doubt));
            // The run that has sent the transaction does the same.
            slot.remember(Ended::new(fingerprint, End::InDoubt), retention);
            commitment.remembered();
            pending.answered(answer);
            assert_eq!(slots.look(&id).is_none(), is_known, "{number}");
        }
    }
}
