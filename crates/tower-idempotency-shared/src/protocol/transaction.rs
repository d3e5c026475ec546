//! The record of a run that a transaction of the application writes: its content, and how this process finds out
//! whether the transaction was committed.
//!
//! Rules:
//! 1. The transaction completes the run only if the row still is the run's own, and running. If another process takes
//!    the operation over first, the transaction fails.
//! 2. A write that ends the run without its outcome finds out whether the transaction was committed. The write is done
//!    only if the transaction is over and has not written the row. It waits for as long as the transaction has the row
//!    locked.
//! 3. The transaction's row is recognised by its token, which is derived from the token of the claim. A run that tries
//!    several transactions has one such token.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tower_idempotency::RecordId;
use tower_idempotency::internals::{Cause, Completion, Current, Edit, End, Record, State, Transition, next};

use super::Protocol;
use super::rows::of_transaction;
use super::write::release;
use crate::backend::{Backend, Token, Write};
use crate::database::snapshot::RowSnapshot;
use crate::database::writes::{WriteError, WriteResult};
use crate::run_record::RunRecord;

/// The pause before the transaction's row is read once more because it may not be durable yet.
const DURABLE_PAUSE: Duration = Duration::from_secs(1);

/// Finds out how a transaction ended that was to complete a run.
#[derive(Debug)]
pub struct PendingTransaction<B: Backend> {
    protocol: Arc<Protocol<B>>,
    id: RecordId,
    /// The token of the row while the transaction has not written it.
    claimed: Token,
    /// The token of the row that the transaction writes.
    completed: Token,
    /// The write that ends the run if the transaction was not committed, and whether the key is free then.
    end: Write,
    is_free: bool,
}

impl<B: Backend> Protocol<B> {
    /// Returns the record of a run, for a transaction of the application, and a value that finds out afterwards whether
    /// it was written. Returns `None` if the run no longer has the operation.
    ///
    /// If the transaction turns out not to have been committed, the key is free, or the run is interrupted.
    pub(crate) fn complete_apart(
        self: &Arc<Self>,
        completion: Completion,
        is_free: bool,
    ) -> Option<(RunRecord, PendingTransaction<B>)> {
        let protocol = Arc::clone(self);
        let id = completion.operation.id;
        let fence = completion.hold.fence;
        // Without a row here, the run was taken over or has ended.
        let row = protocol.sessions.held.get(&id).map(|row| row.clone())?;
        let record = protocol.view(protocol.clocks().earliest()).of(&row)?.whole(id).ok()?;
        let becomes = |transition| {
            let (change, _) = next(Current::from(Some(&record)), transition);
            // `next` has refused: the run no longer has the operation.
            let Edit::Put(draft) = change else { return None };
            protocol.write(id, &draft, Some(&row), Some(&record))
        };
        let completed = becomes(Transition::Complete(completion))?;
        // Under another policy the run may have had other effects, which were not lost.
        let state = if is_free { of_transaction(&id, &completed.state)? } else { completed.state };
        let completed = Write { token: derived(row.token), state, ..completed };
        let end = if is_free {
            release(id, Some(&row), protocol.clocks().now())
        } else {
            becomes(Transition::Interrupt { fence, cause: Cause::Failed, lost: None })?
        };
        let record = RunRecord { write: completed, fence, clocks: protocol.clocks().now() };
        let pending =
            PendingTransaction { id, claimed: row.token, completed: record.write.token, end, is_free, protocol };
        Some((record, pending))
    }
}

impl<B: Backend> PendingTransaction<B> {
    /// Waits until it is known how the transaction has ended the run, which may not try to commit it any more. By its
    /// outcome; or it was not committed and never will be, and the key is free, or the run's other effects are unknown
    /// or the operation is another process's; or the store was closed, and it is in doubt.
    pub async fn end(&self) -> End {
        let Self { protocol, id, claimed, completed, end, is_free } = self;
        let interrupted = End::Interrupted { cause: Cause::Failed };
        let settled = loop {
            // The write waits for as long as the transaction has the row locked.
            match protocol.database.writes.insist(end.clone()).await {
                Ok(WriteResult { row: Some(row), server, earliest, .. }) if row.token == *completed => {
                    let known = RowSnapshot { row: Some(row), earliest, server: Some(server) };
                    // On an error, the row that was read may not be durable yet.
                    if let Ok(Some(Record { state: State::Completed { outcome }, .. })) =
                        protocol.durable_whole(*id, known).await
                    {
                        break End::Outcome(outcome);
                    }
                }
                Ok(WriteResult { row: Some(row), .. }) if row.token == end.token => {
                    break if *is_free { End::Released } else { interrupted };
                }
                // Another run, a settlement or a release has changed the row.
                Ok(_) => break interrupted,
                Err(WriteError::Gone) => break End::InDoubt,
                // The database does not take it: the only error of a write without a deadline that is insisted on.
                Err(WriteError::Away(_) | WriteError::Never(_) | WriteError::Late | WriteError::InDoubt) => {}
            }
            sleep(DURABLE_PAUSE).await;
        };
        // A later claim of this key has another token, and stays.
        protocol.sessions.held.remove_if(id, |_, row| row.token == *claimed);
        settled
    }
}

/// Returns the token of the row that a transaction writes over the claim with this token.
fn derived(claimed: Token) -> Token {
    let digest = blake3::derive_key("tower-idempotency 2026 record in a transaction v1", &claimed.0);
    Token(digest.as_chunks().0[0])
}
