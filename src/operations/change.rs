//! What an operator does, and what became of it.

use super::answer::Answer;
use crate::key::RecordId;
use crate::record::Fence;
use crate::store::StoreError;
use crate::store::page::Cursor;

/// A change of one operation, as it was seen: it names the fence, so that nothing is changed that has changed since.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Change {
    /// The id of the operation.
    pub id: RecordId,
    /// The fence that the operation had when it was looked at.
    pub fence: Fence,
    /// What is to be done.
    pub action: Action,
}

impl Change {
    /// Returns the change of the operation with this id, if it still has this fence.
    #[must_use]
    pub fn new(id: RecordId, fence: Fence, action: Action) -> Self {
        Self { id, fence, action }
    }
}

/// What an operator does with an operation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Action {
    /// Settles an interrupted operation that took place: retries get this answer, for as long as the layer or the
    /// consumer keeps any other, or for what was given to [`Operations::over`](super::Operations::over).
    Answer(Answer),
    /// Settles an interrupted operation that did not take place, or may take place again: the key is free, and **the
    /// next retry runs**.
    Release,
    /// Deletes the record of a done operation before its retention is over. **The key is free: a retry that still comes
    /// is a second effect.** Another process that has the outcome in its cache goes on replaying it until it is asked
    /// about the operation, by [`inspect`](super::Operations::inspect) for example, before the operation has run again.
    /// If it has run again, a failover may list the forgotten outcome as disputed, or put it back once the row of
    /// the later run is gone.
    Forget,
    /// Deletes the answer of a completed operation, and keeps the fact that it took place for as long as it would be
    /// kept: a retry is refused as `not-replayable` with the answer's status, a consumer's message gets
    /// [`NotReplayable`](crate::engine::OnceError::NotReplayable), and nothing runs again. The fence stays. Another
    /// process that has the answer in its cache goes on replaying it until it is asked about the operation, by
    /// [`inspect`](super::Operations::inspect) for example, or until its copy expires. It puts the answer back after a
    /// failover that has lost the record and this deletion.
    ForgetAnswer,
    /// Asks the reconciler about an interrupted operation now.
    Reconcile,
}

impl Action {
    /// Returns the action's name: `answer`, `release`, `forget`, `forget-answer` or `reconcile`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Answer(_) => "answer",
            Self::Release => "release",
            Self::Forget => "forget",
            Self::ForgetAnswer => "forget-answer",
            Self::Reconcile => "reconcile",
        }
    }
}

/// The result of a change.
#[must_use = "`Stale` means that nothing was changed"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Applied {
    /// The operation is settled, or it or its answer is forgotten. Of [`Action::Reconcile`]: the application knew the
    /// outcome.
    Done,
    /// Nothing was changed: the operation is no longer in the state that the action is for under this fence, or a
    /// request for it is just being answered. Over a shared store also: this process still counts its run as under
    /// way, where another may list it as interrupted already, because each judges by what it has seen itself. Look at
    /// it again.
    Stale,
    /// Of [`Action::Reconcile`]: the application does not know. The operation is interrupted under a new fence.
    StillUnknown,
    /// Of [`Action::Reconcile`]: the application says that it may run again. It stays interrupted until a retry comes,
    /// which runs.
    RunsAgain,
}

impl Applied {
    /// Returns the result's name: `done`, `stale`, `still-unknown` or `runs-again`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stale => "stale",
            Self::StillUnknown => "still-unknown",
            Self::RunsAgain => "runs-again",
        }
    }
}

/// The reason why a change was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// There is no reconciler: set one with `reconcile_with`.
    #[error("there is no reconciler to ask; the layer's option `reconcile_with` sets one")]
    NoReconciler,
    /// The answer is JSON and the operations are a layer's, or the other way round.
    #[error(
        "the answer has another form than the recorded outcomes: a layer records HTTP answers, and a consumer JSON"
    )]
    WrongForm,
    /// The answer is not JSON of the type that the consumer records.
    // The error itself may quote a value, and this is in the log and on the page.
    #[error(
        "the consumer can't read this outcome, at line {}, column {}; give it as JSON of the type that its effects return",
        .0.line(), .0.column()
    )]
    WrongType(serde_json::Error),
    /// The answer is longer than the layer's `max_response_body`, or has the mark [`Secret`](crate::Secret).
    #[error("the answer is longer than `max_response_body`, or is marked as one that is not stored")]
    TooLong,
    /// The store failed. [`Uncertain`](StoreError::Uncertain): there is no answer after 5 seconds (of
    /// [`Action::Reconcile`]: 15 seconds and the reconciler's own limit), and the change may still be made. The audit
    /// event then follows when it is known. Look at the operation again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of the operations that were to be forgotten, or whose answers were.
#[must_use = "there may be more to forget"]
#[derive(Debug)]
#[non_exhaustive]
pub struct Purged {
    /// The number of operations that are forgotten, or whose answers are.
    pub forgotten: usize,
    /// Those that were selected and are not forgotten: they changed meanwhile, or the store failed.
    pub left: Vec<(RecordId, Result<Applied, ChangeError>)>,
    /// The place at which the next call goes on; `None` if all records were looked at.
    pub next: Option<Cursor>,
}

/// The numbers of interrupted operations that came to each end when the application was asked about them. An operation
/// that was settled meanwhile, or that a retry handles, is in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Reconciliation {
    /// Operations that have an outcome now.
    pub settled: usize,
    /// Operations that may run again, and will when a retry comes. They stay interrupted until then.
    pub run_again: usize,
    /// Operations whose end is still unknown, because the application does not know yet, the store failed, or the
    /// process is shutting down. They stay interrupted.
    pub unknown: usize,
}
