//! The engine alone, for message consumers.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::context::RunContext;
use super::engine::{Engine, Presented};
use super::event::Facts;
use super::exchange;
use super::operations::{Drained, Stats};
use super::policy::{OnInFlight, OnInterrupted, Policy};
use super::reconciler::Reconciler;
use super::verdict::Verdict;
use crate::fingerprint::{Fingerprint, Match};
use crate::key::RecordId;
use crate::record::{Described, Origin};
use crate::slots::{End, Refusal};
use crate::store::Store;

/// Runs effects at most once per record id, without HTTP.
///
/// `Once` is a handle, and its clones share everything. All layers and consumers over one store share its ids, its
/// interrupted operations and its counts. Put the consumer's name into the [`Scope`](crate::Scope) of its ids;
/// otherwise the second consumer of a message is answered with the first one's outcome. A consumer needs a store of its
/// own, apart from the layers', if operators settle operations with outcomes: the outcome that a layer records is an
/// HTTP response.
///
/// ```
/// use bytes::Bytes;
/// use tower_idempotency::{Fingerprint, Key, MemoryStore, Once, RecordId, Scope, engine::EffectError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let once = Once::new(MemoryStore::new());
/// let id = RecordId::new(Some(&Scope::new("mailer")?), &Key::new("message-17")?);
/// for redelivered in [false, true] {
///     let effect = |_context| async { Ok::<_, EffectError<std::io::Error>>(Bytes::from("mail sent")) };
///     let outcome = once.run(id, Fingerprint::of(b"the message"), effect).await?;
///     assert_eq!(outcome.replayed, redelivered);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Once<St> {
    /// Replaced, not changed, by a method that sets an option: clones keep the old options.
    engine: Arc<Engine<St>>,
    /// The origin of the operations that run through this handle.
    origin: Origin,
}

/// The failure of an effect.
#[derive(Debug, thiserror::Error)]
pub enum EffectError<E> {
    /// The effect did not take place; it may be tried again under the same key.
    #[error("the effect did not take place")]
    NotStarted(#[source] E),
    /// It is unknown whether the effect took place. `?` converts an error into this.
    #[error("it is not known whether the effect took place")]
    MaybeStarted(#[source] E),
}

impl<E> From<E> for EffectError<E> {
    fn from(error: E) -> Self {
        Self::MaybeStarted(error)
    }
}

/// The result of an effect, from this run or an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The bytes of the outcome.
    pub bytes: Bytes,
    /// `true` if an earlier run produced them.
    pub replayed: bool,
}

/// The reason why a message has no outcome. [`advice`](Self::advice) says what to do with the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnceError<E> {
    /// The effect itself failed, as it says.
    #[error(transparent)]
    Effect(EffectError<E>),
    /// The effect panicked or exceeded `max_run`, or its transaction may or may not be durable: it is unknown whether
    /// it took place.
    #[error("the effect was interrupted; it is not known whether it took place")]
    Interrupted,
    /// An earlier run was interrupted, and the policy is to refuse.
    #[error("an earlier run was interrupted; it is not known whether it took place")]
    OutcomeUnknown,
    /// The effect is running now; come again later.
    #[error("the effect is running; try again later")]
    InFlight,
    /// The effect took place, but its outcome could not be stored.
    #[error("the effect took place, but its outcome was not stored")]
    NotReplayable,
    /// The id belongs to another message.
    #[error("the id was used with another fingerprint")]
    Mismatch(Match),
    /// The store can't be reached, is poisoned or takes too long. Nothing ran.
    #[error("the store is not available")]
    Unavailable,
    /// There is a record, but its bytes are damaged. Nothing ran.
    #[error("what is stored for this id can't be read")]
    Corrupt,
    /// The store's limits are reached. Nothing ran.
    #[error("the store is full")]
    Full,
    /// Too much is under way: runs, outcomes that could not be recorded, or the store's work. Nothing ran.
    #[error("too much is under way")]
    Overloaded,
    /// The process is shutting down. Nothing ran.
    #[error("the process is shutting down")]
    ShuttingDown,
}

/// What to do with a message that has no outcome. A message with one is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Acknowledge it: the effect took place.
    Acknowledge,
    /// Let the queue deliver it again, after a pause.
    Redeliver,
    /// Set it aside for an operator, for example in a dead-letter queue, and acknowledge it: as a rule, another
    /// delivery ends in the same way.
    HandOver,
}

impl<E> OnceError<E> {
    /// Returns what to do with the message.
    ///
    /// | advice | errors |
    /// |---|---|
    /// | [`Acknowledge`](Advice::Acknowledge) | [`NotReplayable`](Self::NotReplayable) |
    /// | [`Redeliver`](Advice::Redeliver) | [`Effect`](Self::Effect), [`Interrupted`](Self::Interrupted), [`InFlight`](Self::InFlight), [`Unavailable`](Self::Unavailable), [`Full`](Self::Full), [`Overloaded`](Self::Overloaded), [`ShuttingDown`](Self::ShuttingDown) |
    /// | [`HandOver`](Advice::HandOver) | [`OutcomeUnknown`](Self::OutcomeUnknown), [`Mismatch`](Self::Mismatch), [`Corrupt`](Self::Corrupt) |
    ///
    /// After [`Effect(MaybeStarted)`](EffectError::MaybeStarted) and [`Interrupted`](Self::Interrupted), another
    /// delivery gets what [`on_interrupted`](Once::on_interrupted) and [`reconcile_with`](Once::reconcile_with) say.
    /// If the policy is to refuse, that is [`OutcomeUnknown`](Self::OutcomeUnknown), and nothing runs. After a
    /// transaction whose commit is in doubt, it gets `Interrupted` again, until the retention is over or the process is
    /// restarted. With a reconciler that may know more later, you can let `OutcomeUnknown` be redelivered, too.
    ///
    /// Bound the number of deliveries, as most queues can: an effect that fails each time, or a store that stays
    /// unavailable, would let a message be delivered without end.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::NotReplayable => Advice::Acknowledge,
            Self::Effect(_) | Self::Interrupted | Self::InFlight => Advice::Redeliver,
            Self::Unavailable | Self::Full | Self::Overloaded | Self::ShuttingDown => Advice::Redeliver,
            Self::OutcomeUnknown | Self::Mismatch(_) | Self::Corrupt => Advice::HandOver,
        }
    }

    /// Returns the error of a message that was refused before it ran.
    fn refused(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unavailable => Self::Unavailable,
            Refusal::Corrupt => Self::Corrupt,
            Refusal::Full => Self::Full,
            Refusal::Overloaded => Self::Overloaded,
            Refusal::ShuttingDown => Self::ShuttingDown,
        }
    }
}

impl<St: Store> Once<St> {
    /// Creates a consumer over `store`. Defaults: retries of interrupted operations are refused, duplicates wait for a
    /// run for at most two seconds, and outcomes are remembered for 24 hours.
    #[must_use]
    pub fn new(store: St) -> Self {
        let engine = Engine { store: Arc::new(store), policy: Policy::default(), wrap_run: None };
        Self { engine: Arc::new(engine), origin: Origin::default() }
    }

    /// Sets what a retry gets when the run before it was interrupted. Of this and
    /// [`reconcile_with`](Self::reconcile_with), the last call counts. Default: [`OnInterrupted::Refuse`].
    #[must_use]
    pub fn on_interrupted(self, on_interrupted: OnInterrupted) -> Self {
        self.with(|policy| policy.set_on_interrupted(on_interrupted))
    }

    /// Sets the reconciler, which is asked about an interrupted run when its message comes again. The message is
    /// refused if the reconciler does not know. Default: no reconciler.
    #[must_use]
    pub fn reconcile_with(self, reconciler: Reconciler) -> Self {
        self.with(|policy| policy.reconcile_with(reconciler))
    }

    /// Sets what a duplicate gets while the first message still runs. Default: it waits for two seconds.
    #[must_use]
    pub fn on_in_flight(self, policy: OnInFlight) -> Self {
        self.with(|with| with.on_in_flight = policy)
    }

    /// Sets how long an outcome is remembered, counted from its completion. **A message that is delivered again later
    /// runs again.** Default: 24 hours.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        self.with(|with| with.retention = retention)
    }

    /// Sets how long an interrupted operation is kept, counted from when the interruption was noticed. After it, a
    /// redelivery runs. Default: 30 days.
    #[must_use]
    pub fn interrupted_retention(self, retention: Duration) -> Self {
        self.with(|policy| policy.interrupted_retention = retention)
    }

    /// Sets how long an effect may run. Default: 10 minutes.
    #[must_use]
    pub fn max_run(self, max_run: Duration) -> Self {
        self.with(|with| with.max_run = max_run)
    }

    /// Sets the most effects that run at once over this store. More new ids are refused ([`OnceError::Overloaded`]).
    /// Duplicates and outcomes are not counted. A consumer may have all of them: only the clients of a layer have
    /// shares. Default: 16,384.
    #[must_use]
    pub fn max_runs(self, runs: usize) -> Self {
        self.with(|with| with.max_runs = runs)
    }

    /// Returns a consumer with a changed policy over the same store.
    fn with(self, change: impl FnOnce(&mut Policy)) -> Self {
        let Engine { store, policy, wrap_run } = &*self.engine;
        let (store, mut policy, wrap_run) = (Arc::clone(store), policy.clone(), wrap_run.clone());
        change(&mut policy);
        Self { engine: Arc::new(Engine { store, policy, wrap_run }), origin: self.origin }
    }

    /// Returns a handle whose operations have this name, for the people who look after them: the queue, the customer,
    /// the invoice. It is stored with the claim of an operation, and shown in logs and with
    /// interrupted ones. The first claim's label stays. Default: none.
    ///
    /// ```
    /// # use tower_idempotency::{MemoryStore, Once};
    /// # let once = Once::new(MemoryStore::new());
    /// let once_for_17 = once.clone().label("mailer: receipt of invoice 17");
    /// ```
    ///
    /// A label has at most 200 bytes; a longer one is cut, and control characters become blanks. It is stored as it is
    /// and read by operators: leave out secrets, payment data, and what your records must not keep of a person.
    #[must_use]
    pub fn label(self, label: impl AsRef<str>) -> Self {
        let label = Described::label(label.as_ref());
        Self { origin: Origin::of(Described { label, ..Described::default() }), ..self }
    }

    /// Runs `effect` and returns its outcome. If it already ran under `id`, returns the recorded one. The effect is
    /// detached: it runs on if this future is dropped.
    ///
    /// # Errors
    /// [`OnceError::Effect`] is the effect's own error; every other variant says why no outcome is returned.
    /// [`OnceError::advice`] says what to do with the message.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for an effect that has begun; it is recorded all the same.
    pub async fn run<W, F, E>(&self, id: RecordId, fingerprint: Fingerprint, effect: W) -> Result<Outcome, OnceError<E>>
    where
        W: FnOnce(RunContext) -> F + Send + 'static,
        F: Future<Output = Result<Bytes, EffectError<E>>> + Send + 'static,
        E: Send + 'static,
    {
        let work = move |context| async move {
            let result = effect(context).await;
            let end = match &result {
                // It may be a small part of a large buffer, which the record would keep alive.
                Ok(bytes) => End::Outcome(Bytes::copy_from_slice(bytes)),
                Err(EffectError::NotStarted(_)) => End::Released,
                Err(EffectError::MaybeStarted(_)) => End::Interrupted { status: None },
            };
            (result, end)
        };
        // Only a layer's clients have shares of `max_runs`, and only its handlers send requests of their own.
        let presented = Presented::new(id, fingerprint, self.origin.clone());
        let span = exchange::span();
        let (verdict, waited) = self.engine.exchange(&span, presented, work).await;
        if !verdict.is_of_own_run() {
            self.engine.report(
                &span,
                verdict.name(),
                Facts { id: Some(&id), attempt: verdict.attempt(), waited, ran: None },
            );
        }
        if verdict.is_rejection() {
            self.engine.tally().notify(|observer| observer.rejected(verdict.name()));
        }
        match verdict {
            Verdict::Answered(Ok(bytes)) | Verdict::Committed(bytes) => Ok(Outcome { bytes, replayed: false }),
            Verdict::Answered(Err(error)) => Err(OnceError::Effect(error)),
            // The effect and its record were undone, and the id is free.
            Verdict::RolledBack => Err(OnceError::refused(Refusal::Unavailable)),
            Verdict::Interrupted(_) | Verdict::InDoubt(_) | Verdict::Met(End::InDoubt, _) => {
                Err(OnceError::Interrupted)
            }
            Verdict::Met(End::Outcome(bytes), _) => Ok(Outcome { bytes, replayed: true }),
            Verdict::Met(End::Consumed { .. }, _) => Err(OnceError::NotReplayable),
            // After a run without an effect, the next delivery of the message may run.
            Verdict::Met(End::InFlight | End::Released, _) => Err(OnceError::InFlight),
            Verdict::Met(End::Interrupted { .. }, _) => Err(OnceError::OutcomeUnknown),
            Verdict::Met(End::Refused(refusal), _) => Err(OnceError::refused(refusal)),
            Verdict::Mismatch(found) => Err(OnceError::Mismatch(found)),
        }
    }

    /// Refuses new ids from now on, and waits at most `timeout` for runs that are under way, and for outcomes whose
    /// recording failed and is being retried. Returns how many of each are left. Over a store that several processes
    /// share, runs that another process may run again are dropped shortly before.
    ///
    /// New ids stay refused for as long as the store is open.
    ///
    /// # Cancel safety
    /// If the future is dropped, the wait ends, and new ids are refused all the same.
    pub async fn drain(&self, timeout: Duration) -> Drained {
        self.engine.drain(timeout).await
    }

    /// Returns what this process has counted over this store.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &St {
        &self.engine.store
    }

    pub(crate) fn engine(&self) -> &Arc<Engine<St>> {
        &self.engine
    }
}

impl<St> Clone for Once<St> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine), origin: self.origin.clone() }
    }
}

impl<St: fmt::Debug> fmt::Debug for Once<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("engine", &self.engine).finish()
    }
}
