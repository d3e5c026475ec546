//! What each request has to pass, and the headers of each answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use tower_idempotency::store::Store;

use crate::access::{Actor, Permission};
use crate::nonce::Nonce;
use crate::problem::Problem;
use crate::site::Site;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The headers of each answer, but for the content security policy. `same-origin` and not `no-referrer`: under that,
/// browsers send `Origin: null` with forms, which could then not be told from those of another page.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// The caller, and the nonce of the answer, for the handlers.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) actor: Actor,
    pub(crate) nonce: Option<Nonce>,
}

impl Caller {
    pub(crate) fn may(&self, permission: Permission) -> bool {
        self.actor.access.permits(permission)
    }

    /// Refuses what the caller may not do.
    pub(crate) fn require(&self, permission: Permission) -> Result<(), Problem> {
        if self.may(permission) { Ok(()) } else { Err(Problem::not_permitted(permission)) }
    }
}

/// Lets a request pass that comes from this page or from a program, and whose caller may read.
pub(crate) async fn guard<St: Store>(State(site): State<Arc<Site<St>>>, request: Request, next: Next) -> Response {
    let nonce = request.extensions().get::<Nonce>().cloned();
    let (mut parts, body) = request.into_parts();
    if !parts.method.is_safe() && !is_same_origin(&parts) {
        let detail = "A POST must come from this page: with `Sec-Fetch-Site: same-origin`, or with an `Origin` that is \
                      the host of the request. A program sends one of them itself. If this is the page, the proxy in \
                      front of it has to pass the header `Host` on as it is.";
        return secured(Problem::new(StatusCode::FORBIDDEN, detail).into_response(), nonce.as_ref());
    }
    let actor = match (site.authorize)(parts.clone()).await {
        Ok(actor) => actor,
        Err(refusal) => return unframed(refusal),
    };
    if !actor.access.permits(Permission::Read) {
        let refusal = Problem::new(StatusCode::FORBIDDEN, "You have no access to the operators' page.");
        return secured(refusal.into_response(), nonce.as_ref());
    }
    parts.extensions.insert(Caller { actor, nonce: nonce.clone() });
    secured(next.run(Request::from_parts(parts, body)).await, nonce.as_ref())
}

/// Sets the headers that keep the page to itself.
fn secured(mut response: Response, nonce: Option<&Nonce>) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        // The files of the page may be kept.
        headers.entry(name).or_insert(value);
    }
    let nonce = nonce.map(|nonce| format!(" 'nonce-{}'", nonce.as_str())).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'{nonce}; style-src 'self'{nonce}; img-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Sets on an answer of the hook's own what it does not say itself. A page for signing in may need styles and scripts.
fn unframed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(value);
    }
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("frame-ancestors 'none'"));
    response
}

/// Returns whether a browser says, or a program, that a request comes from this page (Fetch Metadata; Fetch standard,
/// section "`Origin` header"). The first header can't be set by a script; a browser sends it where the connection can
/// be trusted, and then it alone counts.
fn is_same_origin(parts: &Parts) -> bool {
    let headers = &parts.headers;
    if headers.contains_key(SEC_FETCH_SITE) {
        return only(headers, &SEC_FETCH_SITE) == Some("same-origin");
    }
    let host = match only(headers, &HOST) {
        None if !headers.contains_key(HOST) => parts.uri.authority().cloned(),
        host => host.and_then(|host| host.parse().ok()),
    };
    let (Some(origin), Some(host)) = (only(headers, &ORIGIN), host) else { return false };
    let Some((scheme, origin)) = origin.split_once("://") else { return false };
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let Ok(origin) = origin.parse::<Authority>() else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
    origin.host().eq_ignore_ascii_case(host.host()) && port(&origin) == port(&host)
}

/// Returns the value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}
