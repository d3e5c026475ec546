//! The routes that make, list and look up charges.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::json;
use tower_idempotency::IdempotencyContext;

use super::account::Account;
use super::errors::ApiError;
use super::fields::Fields;
use super::sources::Source;
use crate::ledger::{ChargeId, Entry, Intent, Ledger, since_1970};

/// The largest amount, which is Stripe's limit too.
const MAX_AMOUNT: u64 = 99_999_999;
/// The longest description. It keeps the ledger's values well below the 4 KiB that sled takes into its log, escapes
/// included.
const MAX_DESCRIPTION: usize = 500;
const MAX_LIST: u64 = 1_000_000;

#[derive(Debug, Serialize)]
pub(crate) struct Charge {
    id: ChargeId,
    object: &'static str,
    amount: u64,
    amount_refunded: u64,
    created: u64,
    currency: String,
    derived_key: Option<String>,
    description: Option<String>,
    paid: bool,
    refunded: bool,
    status: &'static str,
}

impl Charge {
    pub(crate) fn of(id: ChargeId, entry: Entry) -> Self {
        let amount_refunded = entry.refunded();
        let Entry { amount, currency, description, created, intent, .. } = entry;
        let derived_key = intent.map(Intent::text);
        let refunded = amount_refunded == amount;
        let (object, status) = ("charge", "succeeded");
        let paid = true;
        Self {
            id,
            object,
            amount,
            amount_refunded,
            created,
            currency,
            derived_key,
            description,
            paid,
            refunded,
            status,
        }
    }
}

/// `POST /v1/charges`
pub(crate) async fn create(
    State(ledger): State<Arc<Ledger>>,
    account: Account,
    context: Option<IdempotencyContext>,
    fields: Fields,
) -> Result<Response, ApiError> {
    let (source, entry) = read(&fields)?;
    tracing::debug!(%source, "a charge begins");
    if let Some(answer) = source.before().await {
        return Ok(answer);
    }
    let (id, answer) = ledger.charge(context.as_ref(), account, entry).await?;
    tracing::debug!(%id, "charged");
    Ok(source.after().unwrap_or(answer))
}

fn read(fields: &Fields) -> Result<(Source, Entry), ApiError> {
    let amount = fields.number("amount", 1..=MAX_AMOUNT)?;
    let currency = fields.text("currency")?.to_ascii_lowercase();
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(ApiError::invalid("currency", "currency must be three letters, such as eur"));
    }
    let source = fields.text("source")?;
    let source = source.parse().map_err(|()| ApiError::invalid("source", format!("No such token: '{source}'")))?;
    let description = fields.optional_text("description")?.map(str::to_owned);
    if description.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION) {
        let message = format!("description may have at most {MAX_DESCRIPTION} bytes");
        return Err(ApiError::invalid("description", message));
    }
    let created = since_1970().as_secs();
    Ok((source, Entry { amount, currency, description, created, intent: None, refunds: Vec::new() }))
}

/// `GET /v1/charges`
pub(crate) async fn list(
    State(ledger): State<Arc<Ledger>>,
    account: Account,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = Fields::form(query.unwrap_or_default().as_bytes());
    let limit = query.optional_number("limit", 1..=MAX_LIST)?.unwrap_or(100);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (charges, has_more) = ledger.list(account, limit).await?;
    // A million charges take a while.
    let listed = tokio::task::spawn_blocking(move || {
        let data: Vec<_> = charges.into_iter().map(|(id, entry)| Charge::of(id, entry)).collect();
        let list = json!({ "object": "list", "url": "/v1/charges", "has_more": has_more, "data": data });
        ([(CONTENT_TYPE, "application/json")], list.to_string()).into_response()
    });
    let failed = |_| ApiError::api(StatusCode::INTERNAL_SERVER_ERROR, "The list could not be made.");
    listed.await.map_err(failed)
}

/// `GET /v1/charges/{id}`
pub(crate) async fn get(
    State(ledger): State<Arc<Ledger>>,
    account: Account,
    Path(text): Path<String>,
) -> Result<Response, ApiError> {
    let missing = || ApiError::missing("id", &text);
    let id = text.parse().map_err(|()| missing())?;
    let entry = ledger.get(account, id).await?.ok_or_else(missing)?;
    Ok(Json(Charge::of(id, entry)).into_response())
}
