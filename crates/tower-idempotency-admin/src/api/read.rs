//! What can be read, and found.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::{Extension, Json};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower_idempotency::internals::written::WrittenAnswer;
use tower_idempotency::store::Store;
use tower_idempotency::{Fence, Key, RecordId};

use super::json;
use crate::access::Permission;
use crate::fields::Fields;
use crate::guard::Caller;
use crate::problem::Problem;
use crate::selection::Selection;
use crate::site::Site;
use crate::timeout::in_time;

/// The most operations on a page, the most changes, and the most records of a purge.
pub(super) const MOST: usize = 1_000;
/// The operations on a page whose URL does not say how many.
const USUAL: usize = 100;

pub(super) type Answered = Result<Json<Value>, Problem>;

/// `GET api/operations`
pub(super) async fn list<St: Store>(State(site): State<Arc<Site<St>>>, RawQuery(query): RawQuery) -> Answered {
    let fields = known(query, &[&Selection::FIELDS[..], &["limit"]].concat())?;
    let selection = Selection::read(&fields).map_err(Problem::wrong)?;
    let limit = limit(&fields)?;
    let listing = in_time(site.operations.list(&selection.filter, selection.after.as_ref(), limit)).await?;
    Ok(Json(json::listing(&site, &listing)))
}

/// `GET api/operations/{id}`
pub(super) async fn inspect<St: Store>(State(site): State<Arc<Site<St>>>, Path(id): Path<String>) -> Answered {
    let found = in_time(site.operations.inspect(id_of(&id)?)).await?;
    found.map(|operation| Json(json::operation(&site, &operation))).ok_or_else(no_operation)
}

/// `GET api/operations/{id}/outcome`
pub(super) async fn outcome<St: Store>(
    State(site): State<Arc<Site<St>>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answered {
    caller.require(Permission::Bodies)?;
    let (id, fields) = (id_of(&id)?, known(query, &["disputed"])?);
    let recorded = match fields.get("disputed") {
        None => in_time(site.operations.outcome(id)).await?,
        Some(fence) => in_time(site.operations.disputed_outcome(id, fence_of(fence)?)).await?,
    };
    let recorded = recorded.map(WrittenAnswer::of);
    let none = || Problem::new(StatusCode::NOT_FOUND, "No outcome is recorded under this id.");
    recorded.map(|answer| Json(json!(answer))).ok_or_else(none)
}

/// `GET api/disputed`
pub(super) async fn disputed<St: Store>(State(site): State<Arc<Site<St>>>, RawQuery(query): RawQuery) -> Answered {
    let fields = known(query, &["after", "limit"])?;
    let after = Selection::read(&fields).map_err(Problem::wrong)?.after;
    let limit = limit(&fields)?;
    let listing = in_time(site.operations.disputed(after.as_ref(), limit)).await?;
    Ok(Json(json::listing(&site, &listing)))
}

/// What support staff know of an operation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedKey {
    key: String,
    #[serde(default)]
    scope: Vec<String>,
}

/// `POST api/find`: the key is a secret, so it is in the body and not in the URL.
pub(super) async fn find<St: Store>(
    State(site): State<Arc<Site<St>>>,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    let WantedKey { key, scope } = read(body)?;
    let key = Key::new(&key).map_err(|error| Problem::wrong(error.to_string()))?;
    let parts: Vec<_> = scope.iter().map(String::as_str).collect();
    let scope = (site.scope_from)(&parts).map_err(|error| Problem::wrong(error.to_string()))?;
    let found = in_time(site.operations.find(scope.as_ref(), &key)).await?;
    Ok(Json(json!({ "operation": found.as_ref().map(|found| json::operation(&site, found)) })))
}

/// Reads a body of JSON. The error does not repeat any of it: it may have a key.
pub(super) fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let body = body.map_err(|error| Problem::new(error.status(), "The body can't be read, or is too long."))?;
    serde_json::from_slice(&body).map_err(|error| {
        let what = if error.is_data() { "The JSON does not have the form that is described" } else { "It is not JSON" };
        Problem::wrong(format!("{what}, at line {}, column {}.", error.line(), error.column()))
    })
}

pub(super) fn id_of(text: &str) -> Result<RecordId, Problem> {
    text.parse().map_err(|_| Problem::wrong("An id has 64 hex digits, as it is listed."))
}

pub(super) fn fence_of(text: &str) -> Result<Fence, Problem> {
    text.parse().map(Fence).map_err(|_| Problem::wrong("A fence is a number in a text, as it is listed."))
}

/// Reads the fields of a query, which may have these names and no other, each once and with a value: a filter with a
/// slip would select too much.
fn known(query: Option<String>, names: &[&str]) -> Result<Fields, Problem> {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    if fields.are_of(names) {
        return Ok(fields);
    }
    Err(Problem::wrong(format!("The URL may have these parameters, each once and with a value: {}.", names.join(", "))))
}

fn limit(fields: &Fields) -> Result<usize, Problem> {
    fields.get("limit").map_or(Ok(USUAL), |limit| within(limit.parse().unwrap_or(0)))
}

/// Refuses a number of operations that one request may not have.
pub(super) fn within(limit: usize) -> Result<usize, Problem> {
    let wrong = || Problem::wrong(format!("`limit` must be a number from 1 to {MOST}."));
    (1..=MOST).contains(&limit).then_some(limit).ok_or_else(wrong)
}

fn no_operation() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "There is no operation of this id: it was never there, was freed, or has expired.",
    )
}
