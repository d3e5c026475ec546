//! `--on-interrupted reconcile`: what the ledger knows of an interrupted operation, by the key that it was given
//! for its charge or refund.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use tower_idempotency::engine::{InterruptedRun, Reconciled, Reconciler};

use crate::charges::Charge;
use crate::json::json;
use crate::ledger::{Intent, Ledger, LedgerError};
use crate::refunds::Answer;

/// `are_ledgers_apart`: other servers have the same records, and ledgers of their own.
pub(crate) fn reconciler(ledger: Arc<Ledger>, are_ledgers_apart: bool) -> Reconciler<Response> {
    Reconciler::new(move |run| {
        let ledger = Arc::clone(&ledger);
        async move {
            match look_up(&ledger, &run).await {
                Ok(Some(answer)) => Reconciled::Outcome(answer.map(Body::from)),
                // It may be in the ledger of the server that ran it.
                Ok(None) if are_ledgers_apart => Reconciled::Unknown,
                // What is not in the ledger did not take place. Where the ledger is on this disk, whoever was about to
                // write it is gone; where it is a table, nobody can write it any more, but for the next run.
                Ok(None) => Reconciled::RunAgain,
                Err(error) => {
                    tracing::error!(record_id = run.id.short(), "not reconciled: {}", crate::chain(&error));
                    Reconciled::Unknown
                }
            }
        }
    })
}

async fn look_up(ledger: &Ledger, run: &InterruptedRun) -> Result<Option<http::Response<Bytes>>, LedgerError> {
    let intent = |step| Intent::of(&run.derived_key(step));
    if let Some(intent) = intent("charge")
        && let Some((id, entry)) = ledger.intended(intent).await?.pop()
    {
        return Ok(Some(json(&Charge::of(id, entry))?));
    }
    let Some(intent) = intent("refund") else { return Ok(None) };
    for (id, entry) in ledger.intended(intent).await? {
        if let Some(refund) = entry.refunds.iter().find(|refund| refund.intent == Some(intent)) {
            return Ok(Some(json(&Answer::of(id, refund.clone(), &entry))?));
        }
    }
    Ok(None)
}
