//! The outbox: what applications and operators do with it, and what it asks of a database.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use tower_idempotency_client::Key;

use crate::storage::{Storage, Which};
use crate::{Call, Entry, OpenCalls, Operator, OutboxError, State};

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
        self.find(Which::Key(key))
    }

    /// Returns the call at this position.
    fn at(&self, position: u64) -> impl Future<Output = Result<Option<Entry>, OutboxError>> + Send {
        self.find(Which::Position(position))
    }

    /// Returns up to `limit` calls in this state, in the order in which they were stored; those after the position
    /// `after`, if that is given. They are without their requests and answers: [`at`](Self::at) returns one with both.
    /// A call has a position, and not the id and the times of a record, which the pages of a store are ordered by.
    fn list(
        &self,
        state: State,
        after: Option<u64>,
        limit: u16,
    ) -> impl Future<Output = Result<Vec<Entry>, OutboxError>> + Send {
        self.page(state, after, limit)
    }

    /// Returns how many calls have not ended, by their states and destinations, in the order of those.
    ///
    /// It reads each of them, or its index: call it once a minute, not for each request.
    fn open_calls(&self) -> impl Future<Output = Result<Vec<OpenCalls>, OutboxError>> + Send {
        async {
            let mut open = self.count().await?;
            open.sort_by(|one, other| {
                (one.state.as_str(), &one.destination).cmp(&(other.state.as_str(), &other.destination))
            });
            Ok(open)
        }
    }

    /// Returns a handle for changes in the name of an operator, whose name is in the log, and in the call's reason.
    fn by(&self, actor: impl Into<Arc<str>>) -> Operator<Self> {
        Operator::new(self.clone(), actor.into())
    }
}

impl<S: Storage + Clone + Debug + Send + Sync + 'static> Outbox for S {}
