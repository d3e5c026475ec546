//! Refunds.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use tower_idempotency::IdempotencyContext;

use super::account::Account;
use super::errors::ApiError;
use super::fields::Fields;
use crate::ledger::{ChargeId, Entry, Intent, Ledger, NotRefunded, Refund, random, since_1970};

#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    id: String,
    object: &'static str,
    amount: u64,
    charge: ChargeId,
    created: u64,
    currency: String,
    status: &'static str,
}

impl Answer {
    pub(crate) fn of(charge: ChargeId, refund: Refund, entry: &Entry) -> Self {
        let Refund { id, amount, created, .. } = refund;
        let (object, status) = ("refund", "succeeded");
        Self { id, object, amount, charge, created, currency: entry.currency.clone(), status }
    }
}

/// `POST /v1/refunds`
pub(crate) async fn create(
    State(ledger): State<Arc<Ledger>>,
    account: Account,
    context: Option<IdempotencyContext>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let charge = fields.text("charge")?;
    let amount = fields.optional_number("amount", 1..=u64::MAX)?;
    let id = charge.parse().map_err(|()| ApiError::missing("charge", charge))?;
    let intent = Intent::of_step(context.as_ref(), "refund");
    let name = format!("re_{:032x}", u128::from_be_bytes(random()?));
    let refund = Refund { id: name, amount: 0, created: since_1970().as_secs(), intent };
    let refunded = ledger.refund(context.as_ref(), account, id, amount, refund).await?;
    refunded.map_err(|refusal| refused(refusal, charge))
}

fn refused(refusal: NotRefunded, charge: &str) -> ApiError {
    match refusal {
        NotRefunded::NoSuchCharge => ApiError::missing("charge", charge),
        NotRefunded::TooMuch { left } => ApiError::refused("amount", format!("{left} is left of this charge")),
        NotRefunded::TooMany => {
            ApiError::refused("charge", "This charge was refunded too often; refund the rest at once.")
        }
    }
}
