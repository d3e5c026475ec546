//! An application with payments and the page, in process, and an operator who uses both.

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use form_urlencoded::Serializer;
use http::request::{Builder, Parts};
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use testkit::Answer;
use tower::ServiceExt as _;
use tower_idempotency::store::Store;
use tower_idempotency::{IdempotencyLayer, MemoryStore, Scope, Unsure};
use tower_idempotency_admin::{Access, Actor, AdminPage};

use crate::document::Form;

/// The path of the page.
pub(crate) const PATH: &str = "/ops/idempotency";

/// The application.
#[derive(Clone)]
pub(crate) struct Desk<St = MemoryStore> {
    pub(crate) app: Router,
    pub(crate) layer: IdempotencyLayer<St>,
}

/// A layer whose scope is the header `x-account`, and whose label is the header `x-label`.
pub(crate) fn layer<St: Store>(store: St) -> IdempotencyLayer<St> {
    let text = |parts: &Parts, name| {
        let value = parts.headers.get::<&str>(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    IdempotencyLayer::new(store)
        .scope(move |parts| Ok(Scope::new(text(parts, "x-account").unwrap_or_else(|| "acme".to_owned()))?))
        .label(move |parts| text(parts, "x-label"))
}

/// Lets in who says a name.
pub(crate) async fn authorize(parts: Parts, access: Access) -> Result<Actor, Response> {
    let name = parts.headers.get("x-operator").map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
    name.map(|name| Actor::new(name, access)).ok_or_else(|| StatusCode::UNAUTHORIZED.into_response())
}

/// A handler that does as the body says.
async fn handler(body: String) -> Response {
    match body.as_str() {
        "unknown" => (Unsure, StatusCode::GATEWAY_TIMEOUT).into_response(),
        "panic" => panic!("on purpose"),
        body => format!("charged {body}").into_response(),
    }
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::permitting(Access::ALL)
    }

    pub(crate) fn permitting(access: Access) -> Self {
        Self::over(layer(MemoryStore::new()), access)
    }
}

impl<St: Store> Desk<St> {
    pub(crate) fn over(layer: IdempotencyLayer<St>, access: Access) -> Self {
        let page = AdminPage::new(layer.operations(), move |parts| authorize(parts, access));
        Self::of(layer, page)
    }

    pub(crate) fn of(layer: IdempotencyLayer<St>, page: AdminPage<St>) -> Self {
        let payments = Router::new().route("/charges", post(handler)).layer(layer.clone());
        Self { app: payments.nest(PATH, page.router()), layer }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::of(self.app.clone().oneshot(request).await.expect("a router never fails")).await
    }

    /// Sends a charge.
    pub(crate) async fn charge(&self, key: &str, body: &str) -> Answer {
        self.charge_with(key, body, HeaderMap::new()).await
    }

    pub(crate) async fn charge_with(&self, key: &str, body: &str, headers: HeaderMap) -> Answer {
        let mut request = Request::post("/charges").header("host", "pay.example").header("idempotency-key", key);
        request.headers_mut().expect("a valid request").extend(headers);
        self.send(request.body(body.to_owned().into()).expect("a valid request")).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(from(Request::get(format!("{PATH}{path}"))).body(Body::empty()).expect("a valid request")).await
    }

    /// Sends a form of the page, as a browser does, with what is entered.
    pub(crate) async fn submit<'a>(&self, form: &'a Form, more: &[(&'a str, &'a str)]) -> Answer {
        let is_kept = |(name, _): &(&str, &str)| !more.iter().any(|(entered, _)| entered == name);
        let fields = form.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(is_kept);
        let body = Serializer::new(String::new()).extend_pairs(fields.chain(more.iter().copied())).finish();
        assert_eq!(form.method, "post", "{form:?}");
        self.post(&form.action, &body).await
    }

    /// Posts a form-encoded body, as the page does.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let request = from(Request::post(format!("{PATH}{path}"))).header("sec-fetch-site", "same-origin");
        self.send(request.body(body.to_owned().into()).expect("a valid request")).await
    }

    pub(crate) async fn json(&self, path: &str, body: Value) -> Answer {
        self.post(path, &body.to_string()).await
    }

    /// The operations in this state, as the API lists them.
    pub(crate) async fn listed(&self, state: &str) -> Vec<Value> {
        let listed = self.get(&format!("/api/operations?state={state}&limit=1000")).await;
        assert_eq!(listed.status, 200, "{}", listed.text());
        listed.json()["operations"].as_array().expect("a list").clone()
    }

    /// Leaves an interrupted operation, and returns its id and its fence.
    pub(crate) async fn interrupted(&self, key: &str) -> (String, String) {
        self.charge(key, "unknown").await;
        self.found(key).await
    }

    /// The id and the fence of an operation.
    pub(crate) async fn found(&self, key: &str) -> (String, String) {
        let found = self.json("/api/find", json!({ "key": key, "scope": ["acme"] })).await.json();
        let text = |name: &str| found["operation"][name].as_str().expect("it was found").to_owned();
        (text("id"), text("fence"))
    }

    /// Makes one change, and returns its result.
    pub(crate) async fn change(&self, (id, fence): &(String, String), action: &str) -> Answer {
        self.json("/api/changes", json!({ "changes": [{ "id": id, "fence": fence, "action": action }] })).await
    }
}

/// A request of an operator's.
pub(crate) fn from(request: Builder) -> Builder {
    request.header("host", "pay.example").header("x-operator", "alice")
}
