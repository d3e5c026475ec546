//! Refunds.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::account::Account;
use crate::errors::ApiError;
use crate::fields::Fields;
use crate::ledger::{Ledger, Refunded, random, since_1970};

/// `POST /v1/refunds`
pub(crate) async fn create(
    State(ledger): State<Arc<Ledger>>,
    account: Account,
    fields: Fields,
) -> Result<Json<Value>, ApiError> {
    let charge = fields.text("charge")?;
    let amount = fields.optional_number("amount", 1..=u64::MAX)?;
    let missing = || ApiError::missing("charge", charge);
    let id = charge.parse().map_err(|()| missing())?;
    match ledger.refund(account, id, amount).await? {
        Refunded::Done { amount, currency } => Ok(Json(json!({
            "id": format!("re_{:032x}", u128::from_be_bytes(random()?)),
            "object": "refund",
            "amount": amount,
            "charge": charge,
            "created": since_1970().as_secs(),
            "currency": currency,
            "status": "succeeded",
        }))),
        Refunded::NoSuchCharge => Err(missing()),
        Refunded::TooMuch { left } => Err(ApiError::invalid("amount", format!("{left} is left of this charge"))),
    }
}
