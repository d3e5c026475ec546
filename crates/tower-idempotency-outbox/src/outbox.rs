//! The outbox: what applications and operators do with it, and what it asks of a database.

use std::fmt::Debug;
use std::future::Future;

use tower_idempotency_client::Key;

use crate::storage::{Storage, Update};
use crate::{Call, Entry, OutboxError, State};

/// Where calls are kept: in a database of the application.
///
/// An application puts calls in, in its own transaction: see the methods of `PostgresOutbox` and `SledOutbox`. A
/// [`Relay`](crate::Relay) carries them to their end. Clones are the same outbox.
///
/// # Errors
/// All methods return [`OutboxError`] if the database fails. Then a change may have been made.
///
/// # Cancel safety
/// A change whose future is dropped may have been made.
pub trait Outbox: Storage + Clone + Debug + Send + Sync + 'static {
    /// Puts a call in, in a transaction of its own. It is durable when this returns.
    ///
    /// A call that is there already, in whatever state, is not put in again.
    ///
    /// # Errors
    /// [`OutboxError::KeyReused`]: there is another call with its key.
    fn put(&self, call: &Call) -> impl Future<Output = Result<(), OutboxError>> + Send {
        self.insert(call)
    }

    /// Returns the call with this key.
    ///
    /// Relays delete those that have ended some time ago: see [`Relay::keep_for`](crate::Relay::keep_for).
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<Entry>, OutboxError>> + Send {
        self.find(key)
    }

    /// Returns up to `limit` calls in this state, in the order in which they were stored; those after the position
    /// `after`, if that is given.
    fn list(
        &self,
        state: State,
        after: Option<u64>,
        limit: u16,
    ) -> impl Future<Output = Result<Vec<Entry>, OutboxError>> + Send {
        self.page(state, after, limit)
    }

    /// Tries a call again that was refused, given up or set aside as damaged, and gives it all of its time anew.
    /// Returns whether it was changed: it is not, if it has changed since `entry` was read, or is in another state.
    ///
    /// **If the operation [may have taken place](Entry::may_have_taken_place), first make sure that the server still
    /// remembers its key**, or that it has not taken place: else it may take place a second time.
    fn retry(&self, entry: &Entry) -> impl Future<Output = Result<bool, OutboxError>> + Send {
        async move {
            if !matches!(entry.state, State::Refused | State::GivenUp | State::Damaged) {
                return Ok(false);
            }
            self.update(entry, Update { restarts: true, ..Update::to(State::Waiting, "retried by an operator") }).await
        }
    }

    /// Gives a call up that waits for its next try, so that it can be settled. Returns whether it was changed: it is
    /// not, if it has changed since `entry` was read, or is in another state.
    fn give_up(&self, entry: &Entry) -> impl Future<Output = Result<bool, OutboxError>> + Send {
        async move {
            if entry.state != State::Waiting {
                return Ok(false);
            }
            self.update(entry, Update::to(State::GivenUp, "given up by an operator")).await
        }
    }

    /// Settles a call that was given up or set aside as damaged, as what an operator has found out: the operation has
    /// taken place, or it has not. Later calls with its partition key go on. Returns whether it was changed: it is not,
    /// if it has changed since `entry` was read, or is in another state.
    fn settle(&self, entry: &Entry, has_taken_place: bool) -> impl Future<Output = Result<bool, OutboxError>> + Send {
        async move {
            if !matches!(entry.state, State::GivenUp | State::Damaged) {
                return Ok(false);
            }
            let state = if has_taken_place { State::Delivered } else { State::Refused };
            let may_have_taken_place = Some(has_taken_place);
            self.update(entry, Update { may_have_taken_place, ..Update::to(state, "settled by an operator") }).await
        }
    }
}

impl<S: Storage + Clone + Debug + Send + Sync + 'static> Outbox for S {}
