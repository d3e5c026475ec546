//! The engine alone, for message consumers.

use std::fmt;
use std::future::{Future, ready};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::drain::{Drained, drain};
use super::engine::{Caller, Engine};
use super::event::Facts;
use super::exchange;
use super::once_context::{OnceContext, json_of};
use super::once_result::{EffectError, OnceError, Outcome};
use super::policy::{OnInFlight, OnInterrupted, Policy};
use super::reconciler::Reconciler;
use super::verdict::Verdict;
use crate::fingerprint::Fingerprint;
use crate::key::RecordId;
use crate::panics::panic_message;
use crate::record::{Cause, Described, Operation, Origin};
use crate::slots::{End, Stats, once_a_minute};
use crate::store::Store;

/// Runs effects at most once per record id, without HTTP.
///
/// `T` is what an effect produces: any type that serde can write and read. It is recorded as JSON, and a message that
/// is delivered again gets it back. A consumer that has nothing to say takes `()`. For another type, create another
/// consumer over a clone of the store.
///
/// `Once` is a handle, and its clones share everything. All layers and consumers over one store share its ids, its
/// interrupted operations and its counts. Put the consumer's name into the [`Scope`](crate::Scope) of its ids;
/// otherwise the second consumer of a message is answered with the first one's outcome. A consumer needs a store of its
/// own, apart from the layers', if operators settle operations with outcomes: the outcome that a layer records is an
/// HTTP response.
///
/// The order that is safe: run the effect here, and acknowledge the message when this has returned, as
/// [`Advice::of`](crate::engine::Advice::of) says. [`guide::consumers`](mod@crate::guide::consumers) says which id to
/// use, and what else can go wrong.
///
/// ```
/// use std::io;
///
/// use tower_idempotency::engine::{Advice, EffectError};
/// use tower_idempotency::{Fingerprint, Key, MemoryStore, Once, RecordId, Scope};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let once = Once::new(MemoryStore::new());
/// let id = RecordId::new(Some(&Scope::new("mailer")?), &Key::new("message-17")?);
/// for redelivered in [false, true] {
///     let effect = |_context| async { Ok::<_, EffectError<io::Error>>("mail sent".to_owned()) };
///     let result = once.run(id, Fingerprint::of(b"the message"), effect).await;
///     // What to do with the message, whatever has happened.
///     assert_eq!(Advice::of(&result), Advice::Acknowledge);
///     assert_eq!(result?.replayed, redelivered);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Once<St, T> {
    /// Replaced, not changed, by a method that sets an option: clones keep the old options.
    engine: Arc<Engine<St>>,
    /// The origin of the operations that run through this handle.
    origin: Origin,
    outcome: PhantomData<fn(T) -> T>,
}

impl<St: Store, T> Once<St, T> {
    /// Creates a consumer over `store`, with the default of each option.
    #[must_use]
    pub fn new(store: St) -> Self {
        let engine = Engine { store: Arc::new(store), policy: Policy::default(), wrap_run: None };
        Self { engine: Arc::new(engine), origin: Origin::default(), outcome: PhantomData }
    }

    /// Sets what a retry gets when the run before it was interrupted. Of this and
    /// [`reconcile_with`](Self::reconcile_with), the last call counts. Default: [`OnInterrupted::Refuse`].
    #[must_use]
    pub fn on_interrupted(self, on_interrupted: OnInterrupted) -> Self {
        self.with(|policy| policy.set_on_interrupted(on_interrupted))
    }

    /// Sets the reconciler, which is asked about an interrupted run when its message comes again. The message is
    /// refused if the reconciler does not know, or if its outcome can't be written as JSON. Default: no reconciler.
    #[must_use]
    pub fn reconcile_with(self, reconciler: Reconciler<T>) -> Self
    where
        T: Serialize + Send + 'static,
    {
        let in_json = reconciler.map(|outcome| ready(json_of(&outcome).map_err(|_| "JSON can't have it")));
        self.with(|policy| policy.reconcile_with(in_json))
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
        self.with(|with| {
            with.retention = retention;
            with.warn();
        })
    }

    /// Sets how long the id of a done message is remembered, counted from its completion, if that is longer than
    /// [`retention`](Self::retention). Between the two, a redelivery gets [`OnceError::NotReplayable`], and does not
    /// run. Set it after `retention`, because a shorter one is logged at WARN. Default: the same as `retention`.
    #[must_use]
    pub fn outcome_retention(self, retention: Duration) -> Self {
        self.with(|with| {
            with.outcome_retention = Some(retention);
            with.warn();
        })
    }

    /// Sets how long an interrupted operation is kept, counted from when the interruption was noticed. After it, a
    /// redelivery runs. Default: 30 days.
    #[must_use]
    pub fn interrupted_retention(self, retention: Duration) -> Self {
        self.with(|with| {
            with.interrupted_retention = retention;
            with.warn();
        })
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
        Self { engine: Arc::new(Engine { store, policy, wrap_run }), ..self }
    }

    /// Returns a handle whose operations have this name, for the people who look after them: the queue, the customer,
    /// the invoice. It is stored with the claim of an operation, and shown in logs and with
    /// interrupted ones. The first claim's label stays. Default: none.
    ///
    /// ```
    /// # use tower_idempotency::{MemoryStore, Once};
    /// # let once = Once::<_, ()>::new(MemoryStore::new());
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
    /// If JSON can't have what the effect produced, such as a map whose keys are no texts, this call returns it all the
    /// same, logs it at ERROR, and the next one gets [`OnceError::NotReplayable`].
    ///
    /// # Errors
    /// [`OnceError::Effect`] is the effect's own error; every other variant says why no outcome is returned.
    /// [`OnceError::advice`] says what to do with the message.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for an effect that has begun; it is recorded all the same.
    pub async fn run<W, F, E>(
        &self,
        id: RecordId,
        fingerprint: Fingerprint,
        effect: W,
    ) -> Result<Outcome<T>, OnceError<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        W: FnOnce(OnceContext<T>) -> F + Send + 'static,
        F: Future<Output = Result<T, EffectError<E>>> + Send + 'static,
        E: Send + 'static,
    {
        let engine = Arc::clone(&self.engine);
        let work = move |context| async move {
            let result = effect(OnceContext::new(context)).await;
            let end = match &result {
                Ok(value) => match written(value) {
                    Ok(json) => End::Outcome(json),
                    Err(error) => {
                        let (line, record_id) = (engine.lines().of("unwritable"), id.short());
                        once_a_minute!(line, error, record_id, error, "the outcome of a message can't be recorded");
                        End::Consumed { status: 0 }
                    }
                },
                Err(EffectError::NotStarted(_)) => End::Released,
                Err(EffectError::MaybeStarted(_)) => End::Interrupted { cause: Cause::Failed },
            };
            (result, end)
        };
        // Only a layer's clients have shares of `max_runs`, and only its handlers send requests of their own.
        let operation = Operation { id, fingerprint, origin: self.origin.clone() };
        let span = exchange::span();
        let (verdict, waited) = self.engine.exchange(&span, operation, Caller::default(), Box::new(work)).await;
        if !verdict.is_of_own_run() {
            self.engine.report(
                &span,
                verdict.name(),
                Facts { id: Some(&id), attempt: verdict.attempt(), waited, differs: verdict.differs(), ran: None },
            );
        }
        match verdict {
            Verdict::Own(Ok(value)) => Ok(Outcome { value, replayed: false }),
            Verdict::Own(Err(error)) => Err(OnceError::Effect(error)),
            Verdict::Outcome { outcome: json, is_own, .. } => self.read(id, &json, !is_own),
            Verdict::Unanswered { why, .. } => {
                self.engine.telemetry().notify(|observer| observer.rejected(why.name()));
                Err(OnceError::of(why))
            }
        }
    }

    fn read<E>(&self, id: RecordId, json: &[u8], replayed: bool) -> Result<Outcome<T>, OnceError<E>>
    where
        T: DeserializeOwned,
    {
        serde_json::from_slice(json).map(|value| Outcome { value, replayed }).map_err(|error| {
            let (line, record_id) = (self.engine.lines().of("wrong_type"), id.short());
            // The error itself may quote a value of the outcome.
            let (kind, json_line, column) = (error.classify(), error.line(), error.column());
            once_a_minute!(
                line,
                error,
                record_id,
                ?kind,
                json_line,
                column,
                "the outcome of a message is of another type"
            );
            OnceError::WrongType(error)
        })
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
        drain(self.engine.store.slots(), timeout).await
    }

    /// Returns what this process has counted over this store.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.store.slots().stats()
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

/// Returns an outcome as it is recorded. The effect has taken place, so a panic here must not make it run again.
fn written<T: Serialize>(value: &T) -> Result<Bytes, String> {
    let json = catch_unwind(AssertUnwindSafe(|| json_of(value))).map_err(|panic| panic_message(&*panic).to_owned())?;
    json.map_err(|error| error.to_string())
}

impl<St, T> Clone for Once<St, T> {
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine), origin: self.origin.clone(), outcome: PhantomData }
    }
}

impl<St: fmt::Debug, T> fmt::Debug for Once<St, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("engine", &self.engine).finish()
    }
}
