//! The operators' page: who may open it, and whose a key is. It is open to this machine alone.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use tower_idempotency::{AnyStore, IdempotencyLayer, Scope};
use tower_idempotency_admin::{Access, Actor, AdminPage, Latencies};

use super::account::Account;
use super::errors::ApiError;

/// The most interrupted operations that are counted at the start.
pub(crate) const LISTED: usize = 1_000;

pub(crate) fn page(layer: &IdempotencyLayer<AnyStore>, latencies: Latencies) -> Router {
    let page = AdminPage::new(layer.operations(), authorize).scope_from(scope_from);
    page.steps(["charge", "refund"]).latencies(latencies).router()
}

/// Lets in who calls from this machine. A real server asks who that is: what it says is in the audit events.
pub(crate) async fn authorize(parts: Parts) -> Result<Actor, Response> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    // A server bound to all IPv6 addresses sees IPv4 ones mapped.
    let is_from_here = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    if is_from_here && names_this_machine(&parts) {
        Ok(Actor::new("this machine", Access::ALL))
    } else {
        Err(ApiError::not_found().into_response())
    }
}

/// Returns whether the request is to a name of this machine. A page of another host can lead a browser on this machine
/// here, under that host's name, and would then be of the same origin as the operators' page.
fn names_this_machine(parts: &Parts) -> bool {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let host = host.or_else(|| parts.uri.authority().cloned());
    host.is_some_and(|host| {
        let name = host.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    })
}

/// Returns the scope of the account with these credentials, as a client sends them (`Bearer alice`); without any, that
/// of the demo account. Staff of a real server enter the account's id.
fn scope_from(lines: &[&str]) -> Result<Option<Scope>, Box<dyn Error + Send + Sync>> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(AUTHORIZATION, HeaderValue::from_str(line)?);
    }
    let hint = "write the credentials as the client sends them, such as `Bearer alice`; nothing is the demo account";
    let account = Account::of(&headers).map_err(|_| hint)?;
    Ok(Some(account.scope()?))
}
