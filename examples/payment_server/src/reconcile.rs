//! `--on-interrupted reconcile`: the reconciler looks an interrupted operation up in the ledger, by the key that it
//! derived for its charge or refund. It compares its find with the run first (`evidence.rs`).

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::store::InterruptedRun;

use crate::api::charges::Charge;
use crate::api::refunds::Answer;
use crate::evidence::{Found, Moved, found};
use crate::json::json;
use crate::ledger::{Entry, Intent, Ledger, LedgerError, Noted, Refund};

/// Returns the reconciler. With `are_ledgers_apart`, other servers have the same records, and ledgers of their own. The
/// retention is in seconds.
pub(crate) fn reconciler(ledger: Arc<Ledger>, are_ledgers_apart: bool, retention: u64) -> Reconciler<Response> {
    Reconciler::new(move |run| {
        let ledger = Arc::clone(&ledger);
        async move {
            match look_up(&ledger, &run, retention).await {
                Ok(Some(answer)) => Reconciled::Outcome(answer.map(Body::from)),
                // The charge may be in the ledger of the server that ran the operation.
                Ok(None) if are_ledgers_apart => Reconciled::StillUnknown,
                // A charge that is not in the ledger did not take place. If the ledger is on this disk, the process
                // that was about to write it is gone. If it is a table, only the next run can write to it.
                Ok(None) => Reconciled::RunAgain,
                Err(error) => {
                    tracing::error!(record_id = run.id.short(), "not reconciled: {}", crate::chain(&error));
                    Reconciled::StillUnknown
                }
            }
        }
    })
}

async fn look_up(
    ledger: &Ledger,
    run: &InterruptedRun,
    retention: u64,
) -> Result<Option<http::Response<Bytes>>, LedgerError> {
    let intents = ["charge", "refund"].map(|step| Intent::of(&run.derived_key(step)?));
    let [Some(charged), Some(refunded)] = intents else { return Ok(None) };
    of_intents(ledger, charged, refunded, run.began.as_millis() / 1_000, retention).await
}

/// Returns the answer of the charge or the refund that was made under these derived keys, by an operation that began at
/// this second.
pub(crate) async fn of_intents(
    ledger: &Ledger,
    charged: Intent,
    refunded: Intent,
    began: u64,
    retention: u64,
) -> Result<Option<http::Response<Bytes>>, LedgerError> {
    let is_of_this_run = |moved: Moved<'_>, noted: Option<&Noted>| is_of_run(moved, noted, began, retention);
    for (id, entry, noted) in ledger.intended(charged).await?.into_iter().rev() {
        let Entry { amount, ref currency, created, .. } = entry;
        if is_of_this_run(Moved { amount, currency, created }, noted.as_ref())? {
            return Ok(Some(json(&Charge::of(id, entry))?));
        }
    }
    for (id, entry, noted) in ledger.intended(refunded).await?.into_iter().rev() {
        for refund in entry.refunds.iter().rev().filter(|refund| refund.intent == Some(refunded)) {
            let Refund { amount, created, .. } = *refund;
            let moved = Moved { amount, currency: &entry.currency, created };
            if is_of_this_run(moved, noted.as_ref())? {
                return Ok(Some(json(&Answer::of(id, refund.clone(), &entry))?));
            }
        }
    }
    Ok(None)
}

/// Returns whether the run has made this charge or refund; otherwise another run made it before the operation began. It
/// is an error if the sum is not the one that was noted: an operator must look at that.
fn is_of_run(moved: Moved<'_>, noted: Option<&Noted>, began: u64, retention: u64) -> Result<bool, LedgerError> {
    match found(moved, noted.map(|noted| (noted.amount, noted.currency.as_str())), began, retention) {
        Found::OfThisRun => Ok(true),
        Found::OfAnEarlierOperation => Ok(false),
        Found::AnotherSum => Err(LedgerError::Failed("another sum is found under the key of the run".into())),
    }
}
