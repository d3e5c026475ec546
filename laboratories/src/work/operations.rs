//! The operations over a store, through the public API: a consumer that refuses interrupted operations, one that runs
//! them again, and one that asks for their results.

use std::sync::{Arc, OnceLock};

use testkit::history::Policy;
use testkit::lab::done;
use testkit::lab::operator::{Operated as _, outcome as outcome_of};
use testkit::lab::steps::{Claimed, Steps as _, Wish};
use tower_idempotency::engine::{EffectError, OnceContext, OnceError, Reconciled, Reconciler};
use tower_idempotency::internals::{Completion, Fence, Operation, Origin, Records as _, RunResult, State};
use tower_idempotency::operations::{Action, Applied, OperationRecord};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::store::{Abort, CommitError, Store as _, StoreError};
use tower_idempotency::{AnyStore, OnInterrupted, Once};

use crate::engine::{Embedded, Rows, Table};

use super::key::{self, Kind, RETENTION};
use super::notes::{Note, Said};
use super::truth::Truth;

const KEPT: std::time::Duration = std::time::Duration::from_millis(RETENTION);
/// The application's own tables: the one that it syncs itself, and the one that is committed together with the record.
const LEDGER: &str = "ledger";
const COMMITTED: &str = "committed";

/// The receiver of notes about handlers.
pub type Witness = Arc<dyn Fn(Note) + Send + Sync>;

#[derive(Clone)]
pub struct Operations {
    pub store: AnyStore,
    embedded: Embedded,
    ledger: Arc<OnceLock<Table>>,
    committed: Arc<OnceLock<Table>>,
    refuse: Once<AnyStore, String>,
    rerun: Once<AnyStore, String>,
    reconcile: Once<AnyStore, String>,
    /// `true` if handlers may fail and the application may withhold its knowledge. Otherwise every handler takes effect
    /// and answers, and the application answers with the truth.
    whims: bool,
    witness: Witness,
}

/// A handler's own error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failure;

impl Operations {
    /// The operations over `embedded`. `truth` learns from the notes for `witness`.
    pub fn over(embedded: Embedded, whims: bool, truth: Truth, witness: Witness) -> Self {
        let store = embedded.any();
        let witness: Witness = {
            let truth = truth.clone();
            Arc::new(move |note: Note| {
                truth.hears(&note);
                witness(note);
            })
        };
        let once = || Once::new(store.clone()).retention(KEPT);
        let (refuse, rerun) = (once(), once().on_interrupted(OnInterrupted::Rerun));
        let reconcile = once().reconcile_with(reconciler(whims, truth, witness.clone()));
        let (ledger, committed) = Default::default();
        Self { store, embedded, ledger, committed, refuse, rerun, reconcile, whims, witness }
    }

    fn once(&self, key: u64) -> &Once<AnyStore, String> {
        match key::policy(key) {
            Policy::Refuse => &self.refuse,
            Policy::Reconcile => &self.reconcile,
            Policy::Rerun | Policy::Atomic => &self.rerun,
        }
    }

    /// Sends the request of `key`, or another one with it.
    pub async fn ask(&self, key: u64, other: bool) -> Said {
        if self.whims && key::kind(key) == Kind::Consumed && !other {
            return self.consume(key).await;
        }
        let operations = self.clone();
        let handler = move |context| async move { operations.handle(key, context).await };
        let result = self.once(key).run(key::id(key), key::fingerprint(key, other), handler).await;
        match result {
            Ok(outcome) => Said::Outcome(key::digest(&outcome.value)),
            Err(OnceError::Effect(EffectError::NotStarted(Failure))) => Said::Freed,
            Err(OnceError::Effect(EffectError::MaybeStarted(Failure))) if !key::claims(key) => Said::Freed,
            Err(error) => Said::Refused(name(&error).to_owned()),
        }
    }

    async fn handle(self, key: u64, context: OnceContext<String>) -> Result<String, EffectError<Failure>> {
        self.tell(Note::Began(key));
        tokio::task::yield_now().await;
        let fence = context.fence().0;
        let turns = self.whims && key::turns(key, fence);
        if key::policy(key) == Policy::Atomic {
            return self.commit(key, &context, turns && key::kind(key) == Kind::Released).await;
        }
        match key::kind(key) {
            Kind::Released if turns => return Err(EffectError::NotStarted(Failure)),
            Kind::Forgotten if turns => return Err(EffectError::MaybeStarted(Failure)),
            _ => self.tell(Note::Effect(key)),
        }
        if key::kind(key) == Kind::Ledger && !self.enter(key, fence).await {
            return Err(EffectError::MaybeStarted(Failure));
        }
        let cut = key::kind(key) == Kind::Cut && self.whims && (turns || key::claims(key));
        if cut { Err(EffectError::MaybeStarted(Failure)) } else { Ok(key::outcome(key, fence)) }
    }

    /// Writes the effect and the record of its outcome in one transaction. The effect counts its own times.
    async fn commit(
        &self,
        key: u64,
        context: &OnceContext<String>,
        gives_up: bool,
    ) -> Result<String, EffectError<Failure>> {
        let outcome = key::outcome(key, context.fence().0);
        let effect = move |committed: &dyn Rows| {
            let count = committed.get(&key.to_be_bytes())?.map_or(0, |count| number(&count));
            committed.insert(&key.to_be_bytes(), &(count + 1).to_be_bytes())?;
            if gives_up { Err(Abort::Because(())) } else { Ok(outcome.clone()) }
        };
        match self.table_of(COMMITTED)?.complete(context, effect).await {
            Ok(outcome) => Ok(outcome),
            Err(CommitError::Aborted(())) => Err(EffectError::NotStarted(Failure)),
            Err(_) => Err(EffectError::MaybeStarted(Failure)),
        }
    }

    /// Returns the number of times that the effect of a key took place that is committed together with its record.
    pub fn committed(&self, key: u64) -> u64 {
        let committed = self.table_of(COMMITTED).expect("the engine works");
        committed.get(&key.to_be_bytes()).expect("the engine works").map_or(0, |count| number(&count))
    }

    /// Writes into the application's own table. Returns whether that is durable.
    async fn enter(&self, key: u64, value: u64) -> bool {
        let Ok(ledger) = self.table_of(LEDGER) else { return false };
        let written = ledger.insert(&key.to_be_bytes(), &value.to_be_bytes());
        let synced = written.is_ok() && self.embedded.sync().await.is_ok();
        if synced {
            self.tell(Note::Synced { key, value });
        }
        synced
    }

    /// The entry in the application's own table.
    pub fn entry(&self, key: u64) -> Option<u64> {
        let ledger = self.table_of(LEDGER).expect("the engine works");
        ledger.get(&key.to_be_bytes()).expect("the engine works").map(|value| number(&value))
    }

    /// The table of this name, which is opened once: fjall syncs a directory each time.
    fn table_of(&self, name: &str) -> Result<&Table, Failure> {
        let opened = if name == LEDGER { &self.ledger } else { &self.committed };
        if let Some(table) = opened.get() {
            return Ok(table);
        }
        let table = self.embedded.table(name).map_err(|_| Failure)?;
        Ok(opened.get_or_init(|| table))
    }

    /// An operation whose answer can't be stored. Only the layer has such answers; this makes the layer's calls.
    async fn consume(&self, key: u64) -> Said {
        let fingerprint = key::fingerprint(key, false);
        let wish = Wish::new(key::id(key), fingerprint);
        let away = |error| {
            let name = if let StoreError::Full { .. } = error { "store-full" } else { "store-unavailable" };
            Said::Refused(name.to_owned())
        };
        let hold = match self.store.claim(wish).await {
            Ok(Claimed::Fresh(hold)) => hold,
            Ok(Claimed::Held(record)) => {
                return match record.state {
                    State::Consumed { .. } => consumed(),
                    // It was settled meanwhile.
                    State::Completed { outcome, .. } => {
                        let text: String = serde_json::from_slice(&outcome).expect("an operator's, which was checked");
                        Said::Outcome(key::digest(&text))
                    }
                    _ => Said::Refused("outcome-unknown".to_owned()),
                };
            }
            Err(error) => return away(error),
        };
        self.tell(Note::Began(key));
        self.tell(Note::Effect(key));
        let result = RunResult::Consumed { status: 200 };
        let operation = Operation { id: hold.id, fingerprint, origin: Origin::default() };
        let done = Completion { operation, result, ..done(hold, "", KEPT) };
        let completed = self.store.complete(done).await;
        completed.map_or_else(away, |_| consumed())
    }

    /// A claim whose process ends before its run does.
    pub async fn leave_running(&self, key: u64) {
        let wish = Wish::new(key::id(key), key::fingerprint(key, false));
        self.tell(Note::Sent { ticket: u64::MAX, key, other: false });
        let claimed = self.store.claim(wish).await.expect("the store works");
        assert!(matches!(claimed, Claimed::Fresh(_)), "{claimed:?}");
        self.tell(Note::Began(key));
    }

    /// Settles an operation that was interrupted: by an outcome if its effect took place, otherwise by forgetting it.
    pub async fn settle(&self, key: u64, fence: Fence, took_place: bool) {
        let text = key::outcome(key, fence.0);
        let outcome = took_place.then(|| key::digest(&text));
        let action = if took_place { outcome_of(text) } else { Action::Release };
        self.tell(Note::Settling { key, outcome: outcome.clone() });
        if let Ok(settled) = self.refuse.resolve(key::id(key), fence, action).await {
            assert_eq!(settled, Applied::Done, "{key}: nothing else settles it");
            self.tell(Note::Settled { key, outcome });
        }
    }

    /// Asks about all interrupted operations, whatever their policies were.
    pub async fn reconcile_all(&self) {
        // Operations that can't be listed are asked about later.
        let _ = self.reconcile.reconcile_all().await;
    }

    /// The interrupted runs, as an operator sees them.
    pub async fn interrupted(&self) -> Result<Vec<OperationRecord>, StoreError> {
        self.refuse.interrupted(usize::MAX).await
    }

    /// Deletes the records that are past their time, as the store does by itself when it is idle.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        // The loop is bounded: if errors are ignored on purpose, it finds the same records for ever.
        for _ in 0..100 {
            if self.store.sweep(1_000).await? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Closes the store, of which nothing else may hold a table.
    pub async fn close(self) -> Result<(), StoreError> {
        let store = self.store.clone();
        drop(self);
        store.close().await
    }

    /// Returns the number of answers that this process gave and could not record.
    pub fn unsaved(&self) -> u64 {
        self.refuse.stats().unsaved
    }

    fn tell(&self, note: Note) {
        (self.witness)(note);
    }
}

/// The application, which looks up the operation that it is asked about. It settles it as an operator does.
fn reconciler(whims: bool, truth: Truth, witness: Witness) -> Reconciler<String> {
    Reconciler::new(move |run: InterruptedRun| {
        let (id, fence) = (run.id, run.fence.0);
        let knows = truth.of(id).filter(|(key, _)| !(whims && key::turns(*key, fence)));
        let verdict = match knows {
            Some((key, true)) => {
                let outcome = key::outcome(key, fence);
                witness(Note::Settling { key, outcome: Some(key::digest(&outcome)) });
                Reconciled::Outcome(outcome)
            }
            Some((_, false)) => Reconciled::RunAgain,
            None => Reconciled::StillUnknown,
        };
        std::future::ready(verdict)
    })
}

fn consumed() -> Said {
    Said::Refused("not-replayable".to_owned())
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("eight bytes"))
}

/// The problem's name, as the layer would give it.
fn name<E>(error: &OnceError<E>) -> &'static str {
    match error {
        OnceError::OutcomeUnknown | OnceError::Interrupted | OnceError::Effect(_) => "outcome-unknown",
        OnceError::InFlight => "in-flight",
        OnceError::NotReplayable | OnceError::WrongType(_) => "not-replayable",
        OnceError::Mismatch(_) => "key-reused",
        OnceError::Full => "store-full",
        OnceError::Overloaded => "overloaded",
        OnceError::ShuttingDown => "shutting-down",
        OnceError::Corrupt => "corrupt",
        _ => "store-unavailable",
    }
}
