//! Effect and record in one batch of fjall: the functions that a run calls.

use std::future::Future;

use bytes::Bytes;
use fjall::Keyspace;
use serde::Serialize;

use super::embedded::{Given, taken, write_alone};
use crate::engine::once_context::{OnceContext, recorded};
use crate::store::fjall_engine::{FjallStore, transaction};
use crate::store::{Abort, CommitError, TransactionKeyspace};

impl<T: Serialize + Send + 'static> OnceContext<T> {
    /// Writes the effect and the record of its outcome in one batch, durably. With
    /// [`Rerun`](crate::engine::OnInterrupted::Rerun) the effect takes place exactly once: a crash leaves both or
    /// neither, and a retry gets the outcome or runs.
    ///
    /// `closure` is given the keyspaces, which must have been opened by [`FjallStore::keyspace`], and returns the
    /// outcome. It runs on the store's writer thread, where every other request with a key waits for it: it should only
    /// read and write these keyspaces. Whatever the effect returns afterwards, the message has this outcome. All that
    /// the transaction writes, the outcome included, is at most 128 KiB.
    ///
    /// # Errors
    /// [`CommitError`]. Unless it is uncertain whether the transaction is durable, nothing was done, and what the
    /// effect returns counts as usual.
    ///
    /// # Cancel safety
    /// The transaction is sent when this is *called*; dropping the future undoes nothing, and the transaction still
    /// settles the run.
    pub fn complete_in_keyspaces<const N: usize, E, F>(
        &self,
        store: &FjallStore,
        keyspaces: [&Keyspace; N],
        closure: F,
    ) -> impl Future<Output = Result<T, CommitError<E>>> + Send + use<N, T, E, F>
    where
        F: FnMut([TransactionKeyspace<'_>; N]) -> Result<T, Abort<E>> + Send + 'static,
        E: Send + 'static,
    {
        let given = Given::default();
        let (mut closure, value) = (closure, Given::clone(&given));
        let effect = transaction(keyspaces, move |keyspaces| {
            let outcome = closure(keyspaces)?;
            let json = recorded(&outcome)?;
            *value.lock() = Some(outcome);
            Ok::<_, Abort<E>>(json)
        });
        // This sends the transaction to the writer, before the future is polled.
        let committed = self.run.complete_in_embedded(store, effect);
        async move { taken(committed.await, &given) }
    }
}

impl FjallStore {
    /// Writes to keyspaces of the application in one batch, durably, for effects that belong to no run. The effect of a
    /// run should be written with the record of its outcome, by [`OnceContext::complete_in_keyspaces`].
    ///
    /// `closure` is given the keyspaces, which must have been opened by [`keyspace`](Self::keyspace). It runs on the
    /// store's writer thread, where every other request with a key waits for it, so it should only read and write these
    /// keyspaces. Transactions come one after the other, so none changes what another one has read. What it writes is
    /// limited to 128 KiB, where each key counts 64 bytes more.
    ///
    /// # Errors
    /// [`CommitError`], as `Aborted`, `Panicked`, `Refused`, `Trees` or `Store`. Nothing was done, unless it is
    /// uncertain whether the transaction is durable, as it is when a write has not returned in 70 seconds. The store
    /// returns [`Overloaded`](crate::store::StoreError::Overloaded) at once while 4,096 commands wait for it, and
    /// [`Unavailable`](crate::store::StoreError::Unavailable) if it comes to the transaction only after 30 seconds and
    /// does not begin it.
    ///
    /// # Cancel safety
    /// The transaction is sent when this is *called*; dropping the future undoes nothing.
    pub fn transaction<const N: usize, T, E, F>(
        &self,
        keyspaces: [&Keyspace; N],
        closure: F,
    ) -> impl Future<Output = Result<T, CommitError<E>>> + Send + use<N, T, E, F>
    where
        F: FnMut([TransactionKeyspace<'_>; N]) -> Result<T, Abort<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let given = Given::default();
        let (mut closure, value) = (closure, Given::clone(&given));
        let kept = move |keyspaces: [TransactionKeyspace<'_>; N]| {
            *value.lock() = Some(closure(keyspaces)?);
            // No record is written, so the writer needs no outcome.
            Ok::<_, Abort<E>>(Bytes::new())
        };
        write_alone(self, transaction(keyspaces, kept), given)
    }
}
