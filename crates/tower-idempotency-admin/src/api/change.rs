//! Changes, each with its result.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tower_idempotency::RecordId;
use tower_idempotency::internals::written::WrittenChange;
use tower_idempotency::operations::{Applied, Change, ChangeError};
use tower_idempotency::store::{Store, StoreError};

use super::read::{Answered, MOST, read, within};
use crate::access::Permission;
use crate::action::Kind;
use crate::fields::Fields;
use crate::guard::Caller;
use crate::problem::{Problem, with_causes};
use crate::selection::Selection;
use crate::site::Site;
use crate::text::sentence;
use crate::timeout::Unread;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    changes: Vec<WrittenChange>,
}

/// `POST api/changes`
pub(super) async fn apply<St: Store>(
    State(site): State<Arc<Site<St>>>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    let Changes { changes } = read(body)?;
    if changes.is_empty() || changes.len() > MOST {
        return Err(Problem::wrong(format!("Send from 1 to {MOST} changes.")));
    }
    // Nothing is changed unless all of it is understood and permitted.
    let changes: Vec<_> = changes.into_iter().map(|wanted| change(wanted, &caller)).collect::<Result<_, _>>()?;
    let results = site.operations.by(caller.actor.name).apply_all(changes).await;
    site.look_again().await;
    Ok(Json(json!({ "results": all(&results) })))
}

/// Returns the result of each change.
fn all(results: &[(RecordId, Result<Applied, ChangeError>)]) -> Vec<Value> {
    let one = |(id, result): &(RecordId, Result<Applied, ChangeError>)| {
        let error = result.as_ref().err().map(|error| with_causes(error));
        json!({ "id": id.to_string(), "result": name(result), "error": error })
    };
    results.iter().map(one).collect()
}

fn change(written: WrittenChange, caller: &Caller) -> Result<Change, Problem> {
    let kind: Kind = written.action.as_deref().unwrap_or_default().parse()?;
    caller.require(kind.permission())?;
    let (_, change) = written.read(&[]).map_err(|why| Problem::wrong(sentence(&why)))?;
    change.ok_or_else(|| Problem::wrong("A change needs an `action`."))
}

fn name(result: &Result<Applied, ChangeError>) -> &'static str {
    match result {
        Ok(applied) => applied.name(),
        Err(ChangeError::Store(StoreError::Uncertain { .. })) => "uncertain",
        Err(_) => "failed",
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    state: Option<String>,
    older_than: Option<String>,
    status: Option<u16>,
    scope: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    answers_only: Option<bool>,
}

/// `POST api/purge`
pub(super) async fn purge<St: Store>(
    State(site): State<Arc<Site<St>>>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Answered {
    caller.require(Permission::Purge)?;
    let Purge { state, older_than, status, scope, after, limit, answers_only } = read(body)?;
    if older_than.is_none() && scope.is_none() {
        return Err(Problem::wrong("Say which records: those older than `older_than`, or those of a `scope`."));
    }
    let limit = within(limit.unwrap_or(MOST))?;
    let status = status.map(|status| status.to_string());
    let fields = [("state", state), ("older_than", older_than), ("status", status), ("scope", scope), ("after", after)];
    let fields = Fields::of(fields);
    if !fields.are_of(&Selection::FIELDS) {
        return Err(Problem::wrong("A field has a value, or is left out."));
    }
    let selection = Selection::read(&fields).map_err(Problem::wrong)?;
    let operator = site.operations.by(caller.actor.name);
    let (filter, after) = (&selection.filter, selection.after.as_ref());
    let purge = match answers_only {
        Some(true) => operator.forget_answers(filter, after, limit).await,
        _ => operator.purge(filter, after, limit).await,
    };
    let purged = purge.map_err(Unread::from)?;
    site.look_again().await;
    let next = purged.next.map(|next| next.to_string());
    Ok(Json(json!({ "forgotten": purged.forgotten, "left": all(&purged.left), "next": next })))
}
