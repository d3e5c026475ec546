//! The application's part: the work of a run, and the answer about one that was interrupted.

use bytes::Bytes;
use testkit::history::ClientAnswer;
use tokio::sync::oneshot;
use tower_idempotency::engine::{EffectError, OnceContext, OnceError, Outcome, Reconciled, Reconciler, SentApart};
use tower_idempotency::internals::{Records as _, Reply, Stepped, Transition};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::{AnyStore, Key, RecordId};

use crate::ledger::Ledger;
use crate::plan::{Ending, Fate, KEYS, Knows};
use crate::runs::{self, breathe};

pub fn id(key: &str) -> RecordId {
    RecordId::new(None, &Key::new(key).expect("a valid key"))
}

pub fn key_of(id: RecordId) -> &'static str {
    KEYS.into_iter().find(|key| self::id(key) == id).expect("there are no others")
}

pub async fn wait(breaths: usize) {
    for _ in 0..breaths {
        breathe().await;
    }
}

/// An outcome of the ledger, as a run returns it.
pub fn text(outcome: Bytes) -> String {
    String::from_utf8(outcome.into()).expect("the ledger's outcomes are text")
}

/// The same as it is recorded, in JSON: these texts need no escapes.
pub fn recorded(outcome: Bytes) -> Bytes {
    format!("\"{}\"", text(outcome)).into()
}

/// The work of a run.
pub async fn handle(
    ledger: Ledger,
    key: &'static str,
    request: &'static str,
    breaths: usize,
) -> Result<String, EffectError<&'static str>> {
    let (_inside, ending) = ledger.begin(key);
    wait(breaths).await;
    let outcome = ending.has_effect().then(|| ledger.effect(key, request));
    wait(breaths).await;
    match ending {
        Ending::Outcome => Ok(text(outcome.expect("it has one"))),
        Ending::NotStarted => Err(EffectError::NotStarted("not started")),
        Ending::Unknown { .. } => Err(EffectError::MaybeStarted("no answer")),
        // This bypasses the panic hook, which would print a schedule though nothing failed.
        Ending::Panic => std::panic::resume_unwind(Box::new("on purpose")),
        Ending::Hang => std::future::pending().await,
    }
}

/// The work of a run that commits its effect together with its record, and then has any ending.
pub async fn commit(
    ledger: Ledger,
    key: &'static str,
    request: &'static str,
    breaths: usize,
    context: OnceContext<String>,
    store: AnyStore,
) -> Result<String, EffectError<&'static str>> {
    let (_inside, ending) = ledger.begin(key);
    wait(breaths).await;
    let outcome = Bytes::from(format!("{request}@{}", context.fence().0));
    let sent = context.send_apart(&text(outcome.clone())).expect("it is the first");
    if context.send_apart(&text(outcome.clone())).is_some() {
        ledger.wrong(format!("{key}: two transactions in one run"));
    }
    let fate = ledger.fate();
    // Transactions are done in the order in which they were sent, and are visible before they are durable.
    if fate.is_done() {
        ledger.takes_effect(key, request, outcome.clone());
        let settled = store.apply(id(key), Transition::Complete(sent.completion())).await;
        if !matches!(settled, Ok(Stepped { reply: Reply::Taken, .. })) {
            ledger.wrong(format!("{key}: the transaction ends as {settled:?}"));
        }
    }
    let (reply, answer) = oneshot::channel();
    runs::also(shuttle::future::spawn(async move {
        wait(2).await;
        answer_sent(&ledger, outcome, fate, sent);
        let _ = reply.send(());
    }));
    wait(breaths).await;
    match ending {
        Ending::NotStarted => Err(EffectError::NotStarted("not started")),
        Ending::Unknown { .. } => Err(EffectError::MaybeStarted("no answer")),
        Ending::Panic => std::panic::resume_unwind(Box::new("on purpose")),
        Ending::Hang => std::future::pending().await,
        Ending::Outcome => {
            let _ = answer.await;
            match fate {
                // Its returned value does not count, only the committed outcome.
                Fate::Committed => Ok("something else".into()),
                Fate::Aborted => Err(EffectError::NotStarted("aborted")),
                Fate::Lost { .. } => Err(EffectError::MaybeStarted("no answer")),
            }
        }
    }
}

/// Gives the store's writer's final answer.
fn answer_sent(ledger: &Ledger, outcome: Bytes, fate: Fate, sent: SentApart) {
    match fate {
        Fate::Committed => {
            ledger.see("committed");
            ledger.durable(outcome);
            sent.committed();
        }
        Fate::Aborted => {
            ledger.see("aborted");
            sent.aborted();
        }
        // `sent` is dropped: the store was poisoned.
        Fate::Lost { .. } => ledger.see("in doubt"),
    }
}

/// A reconciler that looks in the ledger, unless the plan has another answer.
pub fn reconciler(ledger: &Ledger) -> Reconciler<String> {
    let ledger = ledger.clone();
    Reconciler::new(move |run: InterruptedRun| {
        let ledger = ledger.clone();
        async move {
            ledger.see("asked");
            breathe().await;
            match ledger.knows() {
                Some(Knows::NotYet) => return Reconciled::StillUnknown,
                Some(Knows::Panics) => std::panic::resume_unwind(Box::new("on purpose")),
                Some(Knows::Hangs) => std::future::pending().await,
                None => {}
            }
            match ledger.look_up(key_of(run.id)) {
                Some((_, outcome)) => Reconciled::Outcome(text(outcome)),
                None => Reconciled::RunAgain,
            }
        }
    })
}

pub fn told(result: Result<Outcome<String>, OnceError<&'static str>>) -> ClientAnswer {
    let slug = match result {
        Ok(outcome) => return ClientAnswer::outcome(outcome.value),
        // The run's own error. The key may be free now: no outcome.
        Err(OnceError::Effect(_)) => "effect-failed",
        Err(OnceError::Interrupted | OnceError::OutcomeUnknown) => "outcome-unknown",
        Err(OnceError::InFlight) => "in-flight",
        Err(OnceError::Mismatch(_)) => "key-reused",
        Err(OnceError::Unavailable) => "store-unavailable",
        Err(OnceError::ShuttingDown) => "shutting-down",
        Err(other) => return ClientAnswer::Refused(format!("{other:?}")),
    };
    ClientAnswer::refused(slug)
}
