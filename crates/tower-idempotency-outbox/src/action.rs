//! What operators change, and the event in the log that each change leaves.

use std::error::Error;

use crate::lease::Update;
use crate::{Entry, OutboxError, State};

/// What an operator does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Tries a call again that was refused, given up or set aside as damaged, and gives it all of its time anew.
    ///
    /// **If the operation [may have taken place](Entry::may_have_taken_place), first make sure that the server still
    /// remembers its key**, or that it has not taken place: else it may take place a second time.
    Retry,
    /// Gives a call up that waits for its next try, so that it can be settled.
    GiveUp,
    /// Settles a call that was given up or set aside as damaged: the operator has found out that the operation has
    /// taken place. It counts as delivered, without an answer. Later calls with its partition key go on.
    SettleAsDone,
    /// The same, where the operation has not taken place. It counts as refused.
    SettleAsNotDone,
}

impl Action {
    /// All values.
    pub const ALL: &'static [Self] = &[Self::Retry, Self::SettleAsDone, Self::SettleAsNotDone, Self::GiveUp];

    /// Returns its name, as audit events have it: `retry`, `give-up`, `settle-done` or `settle-not-done`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::GiveUp => "give-up",
            Self::SettleAsDone => "settle-done",
            Self::SettleAsNotDone => "settle-not-done",
        }
    }

    /// Returns the one with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.name() == name)
    }

    /// Returns whether it is for a call in this state.
    #[must_use]
    pub const fn is_for(self, state: State) -> bool {
        match self {
            Self::Retry => matches!(state, State::Refused | State::GivenUp | State::Damaged),
            Self::GiveUp => matches!(state, State::Waiting),
            Self::SettleAsDone | Self::SettleAsNotDone => matches!(state, State::GivenUp | State::Damaged),
        }
    }

    pub(crate) fn update(self, actor: &str) -> Update {
        let update = |state, what| Update::to(state, format!("{what} by {actor}"));
        let settled =
            |state, has_taken_place| Update { may_have_taken_place: Some(has_taken_place), ..update(state, "settled") };
        match self {
            Self::Retry => Update { restarts: true, ..update(State::Waiting, "retried") },
            Self::GiveUp => update(State::GivenUp, "given up"),
            Self::SettleAsDone => settled(State::Delivered, true),
            Self::SettleAsNotDone => settled(State::Refused, false),
        }
    }
}

/// Leaves the event of a change.
pub(crate) fn log(actor: &str, action: Action, entry: &Entry, changed: &Result<bool, OutboxError>) {
    let (action, position, fence) = (action.name(), entry.position, entry.fence);
    match changed {
        Ok(is_changed) => {
            let result = if *is_changed { "done" } else { "stale" };
            tracing::info!(target: AUDIT, actor, action, position, fence, result, "an operator changed a call");
        }
        Err(error) => {
            tracing::warn!(
                target: AUDIT, actor, action, position, fence, result = "uncertain", error = error as &dyn Error,
                "it is not known what an operator did to a call"
            );
        }
    }
}

/// What audit events come from, as those of a store.
const AUDIT: &str = "tower_idempotency::audit";
