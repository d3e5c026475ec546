//! What the ledger knows of interrupted operations, for operators: `POST /admin/ledger`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::authorize;
use super::errors::ApiError;
use crate::ledger::{Intent, Ledger, LedgerError};
use crate::reconcile::of_intents;

/// The longest body: an `idem export` of some 10,000 operations.
pub(crate) const MAX_BODY: usize = 16 << 20;

/// The ledger, and the seconds for which an answer is kept.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) retention: u64,
}

/// `POST /admin/ledger` takes operations: the lines of `idem export`, or what `/admin/api/operations` answers. It
/// returns what is to be done with them: lines for `idem settle --from`, or the body for `/admin/api/changes`. An
/// operation that has a charge or a refund in the ledger gets its answer. All others are left as they are, unless
/// `otherwise=release` says that no other ledger can have them.
pub(crate) async fn decide(
    State(desk): State<Desk>,
    RawQuery(query): RawQuery,
    parts: Parts,
    body: Bytes,
) -> Result<Response, Response> {
    authorize(parts).await?;
    let releases = match query.as_deref() {
        None | Some("") => false,
        Some("otherwise=release") => true,
        Some(_) => return Err(ApiError::invalid(None, "the query is `otherwise=release`, or none").into_response()),
    };
    let wrong = |error: serde_json::Error| {
        let hint = "send the lines of `idem export --step charge --step refund`, or what /admin/api/operations answers";
        ApiError::invalid(None, format!("{error}: {hint}")).into_response()
    };
    if let Ok(Listing { operations }) = serde_json::from_slice(&body) {
        let mut changes = Vec::new();
        for mut operation in operations {
            desk.look_up(&mut operation, releases).await?;
            // The others are for another ledger.
            if operation.get("action").is_some_and(|action| !action.is_null()) {
                let fields = ["id", "fence", "action", "answer"];
                let change = fields.iter().filter_map(|name| Some((*name, operation.get(*name)?.clone())));
                changes.push(Value::Object(change.map(|(name, value)| (name.to_owned(), value)).collect()));
            }
        }
        return Ok(axum::Json(json!({ "changes": changes })).into_response());
    }
    let mut lines = String::new();
    for line in serde_json::Deserializer::from_slice(&body).into_iter::<Value>() {
        let mut operation = line.map_err(wrong)?;
        desk.look_up(&mut operation, releases).await?;
        lines.push_str(&format!("{operation}\n"));
    }
    Ok(([("content-type", "application/jsonl")], lines).into_response())
}

#[derive(Deserialize)]
struct Listing {
    operations: Vec<Value>,
}

impl Desk {
    /// Adds what is to be done with an operation, unless that is said already.
    async fn look_up(&self, operation: &mut Value, releases: bool) -> Result<(), Response> {
        if operation.get("action").is_some_and(|action| !action.is_null()) {
            return Ok(());
        }
        let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
        let keys = operation.get("derived_keys").cloned().unwrap_or_default();
        let (charge, refund) = (text(&keys, "charge"), text(&keys, "refund"));
        let began = text(operation, "began").and_then(|time| humantime::parse_rfc3339(&time).ok());
        let began = began.and_then(|time| Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()));
        // A key that can't be read is in no ledger, and says nothing.
        let keys = charge.as_deref().and_then(Intent::of).zip(refund.as_deref().and_then(Intent::of));
        let (Some((charge, refund)), Some(began)) = (keys, began) else {
            let missing = "an operation needs `began`, and `derived_keys` for the steps `charge` and `refund`";
            return Err(ApiError::invalid(None, missing).into_response());
        };
        let found = match of_intents(&self.ledger, charge, refund, began, self.retention).await {
            Ok(found) => found,
            Err(error @ LedgerError::Away(_)) => return Err(ApiError::from(error).into_response()),
            // Such as another sum under its key. A person has to look at it.
            Err(error) => {
                let id = operation.get("id").and_then(Value::as_str).unwrap_or_default();
                tracing::error!(id, "left undecided: {}", crate::chain(&error));
                return Ok(());
            }
        };
        match found {
            Some(answer) => {
                operation["action"] = "answer".into();
                operation["answer"] = json!({
                    "status": answer.status().as_u16(),
                    "headers": headers(answer.headers()),
                    "body": String::from_utf8_lossy(answer.body()),
                });
            }
            None if releases => operation["action"] = "release".into(),
            None => {}
        }
        Ok(())
    }
}

fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
