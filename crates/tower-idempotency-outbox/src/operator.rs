//! What operators change, and the event in the log that each change leaves.

use std::error::Error;

use crate::storage::{Storage, Update};
use crate::{Entry, OutboxError, State};

/// Changes calls in an operator's name: [`Outbox::by`](crate::Outbox::by) returns it.
///
/// Each method returns whether the call was changed: it is not, if it has changed since `entry` was read, or is in
/// another state than the method is for.
///
/// Each leaves an event in the log, at INFO, or at WARN if it fails, with the target `tower_idempotency::audit`: the
/// actor, the action, the call's position in the outbox, its fence and the result. It has no key and no body.
#[derive(Debug, Clone)]
pub struct Operator<O> {
    outbox: O,
    actor: String,
}

impl<O: Storage + Sync> Operator<O> {
    pub(crate) fn new(outbox: O, actor: String) -> Self {
        Self { outbox, actor }
    }

    /// Tries a call again that was refused, given up or set aside as damaged, and gives it all of its time anew.
    ///
    /// **If the operation [may have taken place](Entry::may_have_taken_place), first make sure that the server still
    /// remembers its key**, or that it has not taken place: else it may take place a second time.
    ///
    /// # Errors
    /// As those of an [`Outbox`](crate::Outbox).
    pub async fn retry(&self, entry: &Entry) -> Result<bool, OutboxError> {
        let update = Update { restarts: true, ..self.update_to(State::Waiting, "retried") };
        self.change("retry", entry, &[State::Refused, State::GivenUp, State::Damaged], update).await
    }

    /// Gives a call up that waits for its next try, so that it can be settled.
    ///
    /// # Errors
    /// As those of an [`Outbox`](crate::Outbox).
    pub async fn give_up(&self, entry: &Entry) -> Result<bool, OutboxError> {
        self.change("give-up", entry, &[State::Waiting], self.update_to(State::GivenUp, "given up")).await
    }

    /// Settles a call that was given up or set aside as damaged, as what the operator has found out: the operation has
    /// taken place, or it has not. Later calls with its partition key go on.
    ///
    /// # Errors
    /// As those of an [`Outbox`](crate::Outbox).
    pub async fn settle(&self, entry: &Entry, has_taken_place: bool) -> Result<bool, OutboxError> {
        let (action, state) =
            if has_taken_place { ("settle-done", State::Delivered) } else { ("settle-not-done", State::Refused) };
        let update = Update { may_have_taken_place: Some(has_taken_place), ..self.update_to(state, "settled") };
        self.change(action, entry, &[State::GivenUp, State::Damaged], update).await
    }

    fn update_to(&self, state: State, what: &str) -> Update {
        Update::to(state, format!("{what} by {}", self.actor))
    }

    async fn change(
        &self,
        action: &'static str,
        entry: &Entry,
        states: &[State],
        update: Update,
    ) -> Result<bool, OutboxError> {
        let changed = match states.contains(&entry.state) {
            true => self.outbox.update(entry, update).await,
            false => Ok(false),
        };
        let (actor, position, fence) = (&*self.actor, entry.position, entry.fence);
        match &changed {
            Ok(is_changed) => {
                let result = if *is_changed { "done" } else { "stale" };
                tracing::info!(target: AUDIT, actor, action, position, fence, result, "an operator changed a call");
            }
            Err(error) => {
                let error: &dyn Error = error;
                tracing::warn!(
                    target: AUDIT, actor, action, position, fence, result = "uncertain", error,
                    "it is not known what an operator did to a call"
                );
            }
        }
        changed
    }
}

/// What audit events come from, as those of a store.
const AUDIT: &str = "tower_idempotency::audit";
