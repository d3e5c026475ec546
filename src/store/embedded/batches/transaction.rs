//! The writer's part of a transaction: the effect and the record of its outcome in one. A crash leaves both or neither.

use std::time::Instant;

use bytes::Bytes;

use super::batch::Batch;
use crate::codec::Stored;
use crate::key::RecordId;
use crate::record::{self, Completion, Current, Edit, Record, Reply, RunResult, State, Transition};
use crate::store::embedded::layout::storage_engine::StorageEngine;
use crate::store::embedded::layout::writes::Writes;
use crate::store::embedded::transact::{Purpose, Transact, Transacted, quietly};
use crate::store::{CommitError, StoreError, TransactionError};

impl<E: StorageEngine> Batch<'_, E> {
    /// Runs a transaction, and answers once this batch is durable.
    pub(crate) fn transact(&mut self, transact: Transact<E::Transaction>) {
        let Transact { purpose, mut effect, answer } = transact;
        let answer = move |result| quietly(|| answer(result));
        let ran = match purpose {
            Purpose::Run(completion) => self.commit_together(&completion, &mut effect),
            Purpose::Own(until) if until <= Instant::now() => {
                let late = "the store came to the transaction too late; nothing was done";
                return answer(Err(CommitError::Store(StoreError::unavailable(late))));
            }
            Purpose::Own(_) => self.write_alone(&mut effect),
        };
        // The closure and its values are dropped before an answer is sent.
        drop(effect);
        match ran {
            Ok(outcome) => {
                self.answer_later(move |committed| answer(committed.map(|()| outcome).map_err(CommitError::Store)));
            }
            // This is answered after the store is poisoned.
            Err(CommitError::Store(error)) => self.answer_later(move |committed| {
                answer(Err(CommitError::Store(committed.err().unwrap_or(error))));
            }),
            Err(error @ CommitError::Refused(TransactionError::Database(_))) => {
                self.answer_later(move |_| answer(Err(error)));
            }
            Err(error) => answer(Err(error)),
        }
    }

    /// Completes a run in one transaction with its effect. Nothing is done if the run may no longer say how it ended.
    fn commit_together(&mut self, completion: &Completion<()>, effect: &mut E::Transaction) -> Transacted<Bytes> {
        let id = completion.operation.id;
        let current = self.current(id).map_err(|error| CommitError::Store(self.shared.read_failed(error, id)))?;
        let live = current.as_ref().filter(|record| record.is_live(self.now));
        // The application may have been asked about an interrupted run meanwhile, and have found nothing.
        let is_open = live.is_none_or(|live| matches!(live.state, State::Running { .. }));
        // This tries an empty outcome, so that the closure is not called in vain.
        if !is_open || self.completed(live, completion, &Bytes::new()).is_none() {
            return Err(CommitError::Superseded);
        }
        self.prepare_for_transaction().map_err(CommitError::Store)?;
        // The engine may call the closure again; only the batch of the last call is merged.
        let (mut apart, mut bytes) = (None, 0);
        let ran = self.engine.transact(effect, &mut |outcome| {
            let record = self.completed(live, completion, outcome).ok_or(CommitError::Superseded)?;
            let (writes, batch) =
                self.apart(id, current.clone(), record, outcome.clone()).map_err(CommitError::Store)?;
            (apart, bytes) = (Some(batch), writes.bytes);
            Ok(writes)
        });
        let outcome = self.ran(ran, bytes)?;
        if let Some(batch) = apart {
            self.merge(batch);
        }
        Ok(outcome)
    }

    /// Returns the writes of one more change, and a batch that includes it, which is to be [merged](Self::merge) once
    /// they are written.
    fn apart(
        &self,
        id: RecordId,
        old: Option<Record<Stored>>,
        new: Record<Stored>,
        outcome: Bytes,
    ) -> Result<(Writes, Self), StoreError> {
        let mut batch = Self::new(self.shared, self.engine);
        // `merge` takes the totals back, so they begin with those of this batch.
        (batch.now, batch.totals, batch.step.is_transaction) = (self.now, self.totals.clone(), true);
        batch.write_record(id, old, Some(new), Some(outcome))?;
        Ok((batch.take_writes(), batch))
    }

    /// Takes over what a batch made by [`apart`](Self::apart) has written.
    fn merge(&mut self, apart: Self) {
        self.overlay.extend(apart.overlay);
        self.totals = apart.totals;
        self.listed += apart.listed;
        self.chunks += apart.chunks;
        self.fresh.extend(apart.fresh);
        self.gone.extend(apart.gone);
        apart.step.ended.iter().for_each(|id| self.end_run(id));
    }

    /// Runs a transaction of the application that completes no run.
    fn write_alone(&mut self, effect: &mut E::Transaction) -> Transacted<Bytes> {
        self.prepare_for_transaction().map_err(CommitError::Store)?;
        let ran = self.engine.transact(effect, &mut |_| Ok(Writes::default()));
        self.ran(ran, 0)
    }

    /// Notes the result of a transaction that wrote `own` bytes in addition to its effect. If the database has failed,
    /// so has the batch.
    fn ran(&mut self, ran: Transacted<(Bytes, usize)>, own: usize) -> Transacted<Bytes> {
        match &ran {
            Ok((_, effect)) => {
                self.early = Ok(true);
                self.unsynced += effect + own;
            }
            Err(CommitError::Store(StoreError::Uncertain { reason, .. })) => self.early = Err(reason.clone()),
            // This counts like any other failed read.
            Err(CommitError::Refused(TransactionError::Database(error))) => {
                self.early = Err(format!("reading failed: {error}"));
            }
            // The transaction was aborted or refused, or its closure panicked: nothing was written.
            Err(_) => {}
        }
        ran.map(|(outcome, _)| outcome)
    }

    /// Returns the record of a run's outcome, or `None` if the run may no longer say how it ended.
    fn completed(
        &self,
        live: Option<&Record<Stored>>,
        completion: &Completion<()>,
        outcome: &Bytes,
    ) -> Option<Record<Stored>> {
        let Completion { ref operation, hold, retention, .. } = *completion;
        let (operation, result) = (operation.clone(), RunResult::Outcome(Stored::of(outcome)));
        let complete = Transition::Complete(Completion { operation, hold, result, retention, began: None });
        match record::next(Current::from(live), complete) {
            (Edit::Put(draft), Reply::Taken) => Some(draft.stamp(live, hold.fence, self.began, self.now)),
            _ => None,
        }
    }
}
