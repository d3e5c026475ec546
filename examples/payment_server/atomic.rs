//! `--atomic`: the charge or refund, and the record of its answer, in one transaction. A crash leaves both or neither.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use tower_idempotency::engine::CommitError;
use tower_idempotency::server::Committed;
use tower_idempotency::store::{Abort, StoreError};
use tower_idempotency::{IdempotencyContext, SledStore};

use crate::account::Account;
use crate::charges::Charge;
use crate::entry::{ChargeId, Entry, Intent, Refund};
use crate::errors::ApiError;
use crate::ledger::{Ledger, Reason, enter, take_back};
use crate::refunds::Answer;

impl Ledger {
    /// Where a run with a key commits, if it is to commit by itself.
    pub(crate) fn commits(&self) -> Option<&SledStore> {
        self.atomic.then_some(&self.store)
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
            enter(&charges, &intents, account, id, &entry, intent)?;
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
            let (refunded, entry) = take_back(&charges, &intents, account, id, amount, &refund)?;
            answer(&Answer::of(id, refunded, &entry))
        });
        committed.await.map_err(|error| refusal(error, &id.to_string()))
    }
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

pub(crate) fn refusal(error: CommitError<Reason>, charge: &str) -> ApiError {
    match error {
        CommitError::Aborted(Reason::Refused(refused)) => crate::refunds::refused(refused, charge),
        CommitError::Aborted(Reason::Entry(error)) => crate::ledger::LedgerError::Entry(error).into(),
        // Nothing was done, and a retry may run.
        CommitError::Store(error @ (StoreError::Overloaded { .. } | StoreError::Unavailable { .. })) => {
            tracing::warn!("not committed: {error}");
            ApiError::unavailable("The ledger is not available; nothing was charged or refunded.")
        }
        error => {
            tracing::error!("not committed: {error:?}");
            ApiError::api(StatusCode::INTERNAL_SERVER_ERROR, "The ledger could not be written.")
        }
    }
}
