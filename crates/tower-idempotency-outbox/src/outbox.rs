//! The outbox: what applications and operators do with it, and what relays ask of its database: a lease before a try,
//! and an update after it.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tower_idempotency_client::Key;
use tracing::Instrument as _;

use crate::action::log;
use crate::lease::{Leased, Room, Update};
use crate::{Action, Call, Entry, OpenCalls, OutboxError, State};

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
pub trait Outbox: Clone + Debug + Send + Sync + 'static {
    /// Puts a call in, in a transaction of its own. It is durable when this returns.
    ///
    /// A call that is there already, in whatever state, is not put in again.
    ///
    /// # Errors
    /// [`OutboxError::KeyReused`]: there is another call with its key.
    fn put(&self, call: &Call) -> impl Future<Output = Result<(), OutboxError>> + Send;

    /// Returns the call with this key.
    ///
    /// Relays delete those that have ended some time ago: see [`Relay::keep_for`](crate::Relay::keep_for).
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<Entry>, OutboxError>> + Send;

    /// Returns the call at this position.
    fn at(&self, position: u64) -> impl Future<Output = Result<Option<Entry>, OutboxError>> + Send;

    /// Returns up to `limit` calls in this state, in the order in which they were stored; those after the position
    /// `after`, if that is given. They are without their requests and answers: [`at`](Self::at) returns one with both.
    /// A call has a position, and not the id and the times of a record, which the pages of a store are ordered by.
    fn list(
        &self,
        state: State,
        after: Option<u64>,
        limit: u16,
    ) -> impl Future<Output = Result<Vec<Entry>, OutboxError>> + Send;

    /// Returns how many calls have not ended, by their states and destinations, in the order of those.
    ///
    /// It reads each of them, or its index: call it once a minute, not for each request.
    fn open_calls(&self) -> impl Future<Output = Result<Vec<OpenCalls>, OutboxError>> + Send;

    /// Returns a handle for changes in the name of an operator, whose name is in the log, and in the call's reason.
    fn by(&self, actor: impl Into<Arc<str>>) -> Operator<Self> {
        Operator { outbox: self.clone(), actor: actor.into() }
    }

    // Relays and operators call the rest. No other crate can name the types, and so none can implement the trait.
    //
    // Rules:
    // 1. Each method is one transaction, durable when it returns `Ok`.
    // 2. `lease` and `update` give the entry a new fence. `update` compares the fence, and does nothing if it is
    //    another.
    // 3. `lease` takes entries that wait, or whose lease is over, and are due, of each partition key only the first
    //    open one, so that each has its turn. It counts a try, and notes that the operation may have taken place,
    //    before it is sent.
    // 4. `lease` takes no more calls to one destination than the relay has room for, and goes on to others.
    // 5. Nothing is given up, and nothing is deleted, because one clock says so.

    /// Takes entries for this time.
    #[doc(hidden)]
    fn lease(&self, time: Duration, room: Room) -> impl Future<Output = Result<Vec<Leased>, OutboxError>> + Send;

    /// Changes an entry if it still is as it was read. Returns whether it was.
    #[doc(hidden)]
    fn update(&self, entry: &Entry, update: Update) -> impl Future<Output = Result<bool, OutboxError>> + Send;

    /// Deletes some of those that have ended so long ago, and makes those due whose time is too far ahead. Returns
    /// whether there may be more. It also keeps the time that relays have seen go by, so it writes even if there is
    /// nothing to delete.
    #[doc(hidden)]
    fn sweep(&self, ended: Duration) -> impl Future<Output = Result<bool, OutboxError>> + Send;
}

/// Changes calls in an operator's name: [`Outbox::by`] returns it.
#[derive(Debug, Clone)]
pub struct Operator<O> {
    outbox: O,
    actor: Arc<str>,
}

impl<O: Outbox> Operator<O> {
    /// Changes a call. Returns whether it was changed: it is not, if it has changed since `entry` was read, or is in a
    /// state that the action [is not for](Action::is_for).
    ///
    /// A change leaves an event in the log, at INFO, or at WARN if it fails, with the target
    /// `tower_idempotency::audit`: the actor, the action, the call's position in the outbox, its fence and the result.
    /// It has no key and no body.
    ///
    /// # Errors
    /// As those of an [`Outbox`]: the call may have been changed.
    ///
    /// # Cancel safety
    /// If the future was polled and is dropped, the change is still made, and logged, unless the runtime ends.
    ///
    /// # Panics
    /// Outside a runtime of tokio.
    pub async fn apply(&self, entry: &Entry, action: Action) -> Result<bool, OutboxError> {
        let (Self { outbox, actor }, entry) = (self.clone(), entry.clone());
        let change = async move {
            let changed = match action.is_for(entry.state) {
                true => outbox.update(&entry, action.update(&actor)).await,
                false => Ok(false),
            };
            log(&actor, action, &entry, &changed);
            changed
        };
        // The caller may go away, as a browser does.
        tokio::spawn(change.in_current_span()).await.map_err(OutboxError::database)?
    }
}
