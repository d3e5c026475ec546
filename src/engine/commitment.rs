//! The state of a run's transaction, shared by the handler that sends it, the writer that answers, and the run that
//! settles. Each run makes one and closes it, also if its handler has no transaction.
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

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::key::RecordId;
use crate::laboratory::point;
use crate::record::{Completion, Hold, Operation, RunResult};
use crate::slots::{End, Slot, Slots};
use crate::timeouts::COMMIT_TIMEOUT;
use crate::until::until;

/// A run's transaction: its data and its stage.
#[derive(Debug)]
pub struct Commitment {
    /// The right under which the run was claimed. The record is written under its fence.
    pub(super) hold: Hold,
    /// The operation that the run completes.
    pub operation: Operation,
    /// The time for which the store keeps the outcome, or the slot keeps a doubt.
    pub(super) retention: Duration,
    /// The slots of the run's store. They identify the store, and `unsaved` there keeps a doubt.
    pub slots: Arc<Slots>,
    /// The session of this process when the run was claimed; `None` where there are none.
    pub(super) session: Option<RecordId>,
    /// `true` if the key is free when the application has not committed the run's transaction; otherwise the run is
    /// interrupted then.
    pub may_rerun: bool,
    /// The turn of the run's slot: only this run's unsaved end is forgotten.
    turn: u64,
    /// Changed by the handler, the writer and the run. `Slots::unsaved` may be locked within this lock, never the
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
    /// The transaction has decided how the run ends: by this outcome, or it was not committed and the store has ended
    /// the run, or it is unknown whether it is durable ([`End::InDoubt`]).
    Ended(End),
    /// The writer answered after the transaction had counted as doubtful.
    Late,
    /// The run is being settled.
    Closed,
}

impl Commitment {
    /// Creates the commitment of the run that has the slot of this turn.
    pub(super) fn new(
        hold: Hold,
        operation: Operation,
        retention: Duration,
        slots: Arc<Slots>,
        session: Option<RecordId>,
        may_rerun: bool,
        turn: u64,
    ) -> Self {
        let (stage, moved, over) = (Mutex::new(Stage::Open), Notify::new(), AtomicBool::new(false));
        Self { hold, operation, retention, slots, session, may_rerun, turn, stage, moved, over }
    }

    /// Returns the completion of the run by `outcome`.
    #[must_use]
    pub fn completion<O>(&self, outcome: O) -> Completion<O> {
        let (operation, hold, retention) = (self.operation.clone(), self.hold, self.retention);
        Completion { operation, hold, result: RunResult::Outcome(outcome), retention, began: None }
    }

    /// The writer's answer: how the transaction has ended the run, or `None` if it did nothing.
    fn answered(&self, answer: Option<End>) {
        point();
        let is_doubt = matches!(answer, Some(End::InDoubt));
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Ended(End::InDoubt)) {
            // No caller waits any more, but the store now has the result.
            if !is_doubt {
                *stage = Stage::Late;
                drop(stage);
                point();
                self.slots.unsaved.forget(&self.operation.id, self.turn);
            }
            return;
        }
        let is_orphaned = matches!(*stage, Stage::Sent { is_orphaned: true });
        *stage = match answer {
            Some(end) => Stage::Ended(end),
            None if is_orphaned => Stage::Closed,
            None => Stage::Open,
        };
        drop(stage);
        point();
        // The run was dropped, and its slot was kept for this answer: now the store can answer requests.
        if is_orphaned && !is_doubt {
            self.slots.unsaved.forget(&self.operation.id, self.turn);
        }
        self.moved.notify_waiters();
    }

    /// Stops waiting for the writer: the transaction's end is unknown from now on.
    pub fn give_up(&self) {
        let mut stage = self.stage.lock();
        if let Stage::Sent { .. } = *stage {
            *stage = Stage::Ended(End::InDoubt);
        }
        drop(stage);
        self.moved.notify_waiters();
    }

    /// Is called once the slot remembers the doubt. If the writer has answered meanwhile, the slot forgets the doubt
    /// again.
    pub(super) fn unsaved(&self) {
        if matches!(*self.stage.lock(), Stage::Late) {
            self.slots.unsaved.forget(&self.operation.id, self.turn);
        }
    }

    /// Refuses further transactions, waits for the one that was sent, and returns how it has ended the run. `None` if
    /// there was none, or it did nothing: the value that the run returns counts.
    pub(super) async fn close(&self) -> Option<End> {
        self.over.store(true, Ordering::SeqCst);
        point();
        // Most runs send no transaction.
        match self.try_close() {
            Some(answer) => answer,
            None => Box::pin(self.wait_and_close()).await,
        }
    }

    async fn wait_and_close(&self) -> Option<End> {
        // This wakes `ended`: an application's transaction is looked for only once the run is over.
        self.moved.notify_waiters();
        let waited = timeout(COMMIT_TIMEOUT, until(&self.moved, || self.try_close()));
        waited.await.unwrap_or_else(|_| {
            self.give_up();
            // The writer may have answered at this very moment.
            self.try_close().unwrap_or(Some(End::InDoubt))
        })
    }

    /// Returns what [`close`](Self::close) does, or `None` while the writer has the transaction. Closes a run that has
    /// sent none.
    fn try_close(&self) -> Option<Option<End>> {
        let mut stage = self.stage.lock();
        match &*stage {
            Stage::Sent { .. } => None,
            Stage::Ended(end) => Some(Some(end.clone())),
            Stage::Late => Some(Some(End::InDoubt)),
            Stage::Open | Stage::Closed => {
                *stage = Stage::Closed;
                Some(None)
            }
        }
    }

    /// Returns whether the run is over, or being settled.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Waits until the run that has sent a transaction is over, or being settled.
    pub async fn ended(&self) {
        until(&self.moved, || self.is_over().then_some(())).await;
    }

    /// Returns whether a transaction was sent and the run is still under way.
    #[must_use]
    pub fn is_sent(&self) -> bool {
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
                slot.keep(0, self.retention);
                self.moved.notify_waiters();
            }
            Stage::Ended(End::InDoubt) => slot.keep(0, self.retention),
            Stage::Open => *stage = Stage::Closed,
            // The store knows the end, or the run is being settled.
            Stage::Ended(_) | Stage::Late | Stage::Closed => {}
        }
    }
}

/// A transaction that the writer has not answered. If the writer never answers, its end is unknown.
#[derive(Debug)]
pub struct PendingCommit {
    commitment: Arc<Commitment>,
    /// What the drop answers.
    answer: Option<End>,
}

impl PendingCommit {
    /// Begins a transaction. Returns `None` if there is one that may be done, or if the run is over.
    #[must_use]
    pub fn begin(commitment: &Arc<Commitment>) -> Option<Self> {
        point();
        let mut stage = commitment.stage.lock();
        if !matches!(*stage, Stage::Open) {
            return None;
        }
        *stage = Stage::Sent { is_orphaned: false };
        Some(Self { commitment: Arc::clone(commitment), answer: Some(End::InDoubt) })
    }

    /// The writer's answer: how the transaction has ended the run, or `None` if it did nothing.
    pub fn answered(mut self, answer: Option<End>) {
        self.answer = answer;
    }
}

impl Drop for PendingCommit {
    fn drop(&mut self) {
        self.commitment.answered(self.answer.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::record::{Fence, Origin};
    use crate::slots::{Ended, Entered};

    // A seeded fault: every late answer of the writer frees the key.
    #[tokio::test(start_paused = true)]
    async fn a_doubt_is_forgotten_once_the_writer_knows_and_not_before() {
        let (slots, fingerprint, retention) = (Arc::<Slots>::default(), Fingerprint::of(b"m"), Duration::MAX);
        for (number, answer, is_known) in [(1, Some(End::InDoubt), false), (2, None, true)] {
            let id = RecordId::from_bytes([number; 32]);
            let Entered::Mine(slot) = slots.take(id, 1, None) else { panic!("it is free") };
            let hold = Hold { fence: Fence(1), attempt: 1 };
            let (turn, slots) = (slot.turn, Arc::clone(&slots));
            let operation = Operation { id, fingerprint, origin: Origin::default() };
            let commitment =
                Arc::new(Commitment::new(hold, operation, retention, Arc::clone(&slots), None, true, turn));
            let pending = PendingCommit::begin(&commitment).expect("it is the first");
            assert!(matches!(commitment.close().await, Some(End::InDoubt)));
            // The run that has sent the transaction does the same.
            slot.remember(Ended::new(fingerprint, End::InDoubt), retention);
            commitment.unsaved();
            pending.answered(answer);
            assert_eq!(slots.look(&id).is_none(), is_known, "{number}");
        }
    }
}
