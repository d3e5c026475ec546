//! The two routes: one shows, the other acts.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use http::HeaderMap;
use tower_idempotency::store::Store;

use super::frame::{error, html};
use super::{detail, files, find, home, settle};
use crate::fields::Fields;
use crate::guard::Caller;
use crate::problem::Problem;
use crate::site::Site;

pub(crate) fn router<St: Store>() -> Router<Arc<Site<St>>> {
    Router::new().route("/", get(show).post(act))
}

async fn show<St: Store>(
    State(site): State<Arc<Site<St>>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    if let Some(name) = fields.get("file") {
        return files::file(name, &headers);
    }
    let page = match fields.get("id") {
        Some(id) => detail::page(&site, &caller, id, fields.has("body"), fields.get("disputed")).await,
        None => return home::page(&site, &caller, &fields).await,
    };
    page.map_or_else(|problem| error(&caller, problem), html)
}

/// The field `do` says which form was sent.
async fn act<St: Store>(
    State(site): State<Arc<Site<St>>>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let fields = match body {
        Ok(body) => Fields::parse(&body),
        Err(rejection) => {
            let problem = Problem::new(rejection.status(), "The form can't be read, or is too long.");
            return error(&caller, problem);
        }
    };
    let page = match fields.get("do") {
        Some("find") => match find::find(&site, &caller, &fields).await {
            Ok(Ok(link)) => return Redirect::to(&link).into_response(),
            Ok(Err(page)) => Ok(page),
            Err(problem) => Err(problem),
        },
        Some("review") => settle::review(&site, &caller, &fields).await,
        Some("apply") => settle::apply(&site, &caller, &fields).await,
        #[cfg(feature = "outbox")]
        Some("review-call") => super::outbox::review(&site, &caller, &fields).await,
        #[cfg(feature = "outbox")]
        Some("change-call") => super::outbox::change(&site, &caller, &fields).await,
        _ => Err(Problem::wrong("This form is not one of this page.")),
    };
    page.map_or_else(|problem| error(&caller, problem), html)
}
