//! `--atomic`: the charge or refund, and the record of its answer, in one transaction. A crash leaves both or neither.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use tower_idempotency::engine::CommitError;
use tower_idempotency::server::Committed;
use tower_idempotency::store::{Abort, TransactionTree};
use tower_idempotency::{IdempotencyContext, SledStore};

use crate::account::Account;
use crate::charges::Charge;
use crate::entry::{ChargeId, Entry, Intent, NotRefunded, Refund, charge_key, intent_key};
use crate::errors::ApiError;
use crate::ledger::Ledger;
use crate::refunds::Answer;

/// Why a transaction is given up.
#[derive(Debug)]
enum Reason {
    Refused(NotRefunded),
    Entry(serde_json::Error),
}

impl Ledger {
    /// Where a run with a key commits, if it is to commit by itself.
    pub(crate) fn commits(&self) -> Option<&SledStore> {
        self.store.as_ref().filter(|_| self.atomic)
    }

    pub(crate) async fn commit_charge(
        &self,
        store: &SledStore,
        context: &IdempotencyContext,
        account: Account,
        id: ChargeId,
        entry: Entry,
    ) -> Result<Committed, ApiError> {
        let intent = Intent::of(&context.derived_key("charge"));
        let committed = context.commit_in(store, [&self.charges, &self.intents], move |[charges, intents]| {
            note(&intents, intent, account, id)?;
            put(&charges, account, id, &entry)?;
            answer(&Charge::of(id, entry.clone()))
        });
        committed.await.map_err(|error| refusal(error, &id.to_string()))
    }

    pub(crate) async fn commit_refund(
        &self,
        store: &SledStore,
        context: &IdempotencyContext,
        account: Account,
        id: ChargeId,
        amount: Option<u64>,
        refund: Refund,
    ) -> Result<Committed, ApiError> {
        let committed = context.commit_in(store, [&self.charges, &self.intents], move |[charges, intents]| {
            let old = charges.get(charge_key(account, id))?;
            let old = old.ok_or(Abort::Because(Reason::Refused(NotRefunded::NoSuchCharge)))?;
            let mut entry: Entry =
                serde_json::from_slice(&old).map_err(|error| Abort::Because(Reason::Entry(error)))?;
            let refunded = entry.refund(amount, &refund).map_err(|refused| Abort::Because(Reason::Refused(refused)))?;
            note(&intents, refund.intent, account, id)?;
            put(&charges, account, id, &entry)?;
            answer(&Answer::of(id, refunded, &entry))
        });
        committed.await.map_err(|error| refusal(error, &id.to_string()))
    }
}

fn note(
    intents: &TransactionTree<'_>,
    intent: Option<Intent>,
    account: Account,
    id: ChargeId,
) -> Result<(), Abort<Reason>> {
    if let Some(intent) = intent {
        intents.insert(&intent_key(intent, id), &account.bytes())?;
    }
    Ok(())
}

fn put(charges: &TransactionTree<'_>, account: Account, id: ChargeId, entry: &Entry) -> Result<(), Abort<Reason>> {
    let entry = serde_json::to_vec(entry).map_err(|error| Abort::Because(Reason::Entry(error)))?;
    charges.insert(&charge_key(account, id), entry)?;
    Ok(())
}

fn answer(answer: &impl Serialize) -> Result<Response<Bytes>, Abort<Reason>> {
    json(answer).map_err(|error| Abort::Because(Reason::Entry(error)))
}

/// An answer 200.
pub(crate) fn json(answer: &impl Serialize) -> Result<Response<Bytes>, serde_json::Error> {
    let mut response = Response::new(serde_json::to_vec(answer)?.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn refusal(error: CommitError<Reason>, charge: &str) -> ApiError {
    match error {
        CommitError::Aborted(Reason::Refused(refused)) => crate::refunds::refused(refused, charge),
        CommitError::Aborted(Reason::Entry(error)) => crate::ledger::LedgerError::Entry(error).into(),
        error => {
            tracing::error!("not committed: {error:?}");
            ApiError::api(StatusCode::INTERNAL_SERVER_ERROR, "The ledger could not be written.")
        }
    }
}
