//! Our layer keeps every check, in each profile.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tower_idempotency::server::Profile;
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInFlight, Scope};
use tower_idempotency_check::{Outcome, Plan, Severity};

use super::slow::Slow;

/// Short enough to wait for, in seconds.
const RETENTION: u64 = 4;

#[derive(Clone, Default)]
struct Charges {
    made: Arc<Mutex<Vec<String>>>,
    slow: Slow,
}

async fn charge(State(charges): State<Charges>, headers: HeaderMap, body: String) -> Response {
    if body.contains("declined") {
        return (StatusCode::PAYMENT_REQUIRED, "declined").into_response();
    }
    if body.contains("limited") {
        return StatusCode::TOO_MANY_REQUESTS.into_response();
    }
    let id = {
        let mut charges = charges.made.lock().unwrap();
        let id = format!("ch_{}", charges.len() + 1);
        charges.push(id.clone());
        id
    };
    if body.contains("slow") {
        charges.slow.run(headers["idempotency-key"].as_bytes(), 1).await;
    }
    if body.contains("fails") {
        return (StatusCode::INTERNAL_SERVER_ERROR, id).into_response();
    }
    (StatusCode::CREATED, [("content-type", "application/json")], format!("{{\"id\":\"{id}\"}}")).into_response()
}

async fn list(State(charges): State<Charges>) -> String {
    let charges = charges.made.lock().unwrap();
    let items: Vec<_> = charges.iter().rev().take(200).map(|id| format!("{{\"id\":\"{id}\"}}")).collect();
    format!("[{}]", items.join(","))
}

async fn start(profile: Profile) -> SocketAddr {
    let account = |parts: &Parts| {
        let account = parts.headers.get("authorization").map(|value| value.as_bytes().to_vec());
        Ok(Scope::new(account.unwrap_or_default())?)
    };
    // The other profiles have longer retentions at least.
    let retention = if profile.name == "draft" { RETENTION } else { 24 * 3_600 };
    let layer = IdempotencyLayer::new(MemoryStore::new()).profile(profile).scope(account);
    let layer = layer.retention(Duration::from_secs(retention));
    let layer = layer.on_in_flight(OnInFlight::Reject);
    let route = || post(charge).get(list);
    let well_known = layer.well_known();
    let app = Router::new().route("/charges", route()).route("/refunds", route()).layer(layer).merge(well_known);
    let charges = Charges::default();
    let app = charges.slow.count(app).with_state(charges.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn our_layer_keeps_every_check_in_each_profile() {
    let checks = [Profile::draft(), Profile::stripe(), Profile::acp(), Profile::iceberg()].map(async |profile| {
        let name = profile.name;
        let address = start(profile).await;
        let plan = format!(
            r#"
            url = "http://{address}/charges"
            profile = "{name}"
            data = '{{"amount":5,"currency":"usd"}}'
            headers = ["Authorization: Bearer alice"]
            other_account = "Authorization: Bearer bob"
            other_path = "/refunds"
            count = "GET /charges"
            slow = '{{"amount":5,"kind":"slow"}}'
            declined = '{{"amount":5,"kind":"declined"}}'
            server_error = '{{"amount":5,"kind":"fails"}}'
            rate_limited = '{{"amount":5,"kind":"limited"}}'
            {}
            "#,
            if name == "draft" { format!("retention = \"{RETENTION}s\"") } else { String::new() }
        );
        let report = Plan::from_toml(&plan).unwrap().run(|_| {}).await;
        assert_eq!(report.exit_code(), 0, "{}", report.to_text());
        let skipped = report.checks.iter().filter(|check| matches!(check.outcome, Outcome::Skipped(_)));
        let skipped: Vec<_> = skipped.map(|check| check.name).collect();
        assert!(
            // A busy machine may take longer for many keys than they are kept.
            skipped
                .iter()
                .all(|name| { ["after-many-keys", "other-query", "retention", "restart", "kill"].contains(name) }),
            "{skipped:?}"
        );
        let findings = report.checks.iter().flat_map(|check| &check.findings);
        assert!(findings.clone().all(|finding| finding.severity == Severity::Note), "{}", report.to_text());
    });
    futures_util::future::join_all(checks).await;
}

// Seeded fault: a 409 in flight without `Retry-After` is passed over where the profile asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn under_acp_a_request_in_flight_is_told_when_to_come_back() {
    let account = |parts: &Parts| Scope::new(parts.headers.get("authorization")?.as_bytes()).ok();
    let layer = IdempotencyLayer::new(MemoryStore::new()).profile(Profile::acp()).scope(account);
    let app = Router::new().route("/charges", post(charge).get(list)).layer(layer.on_in_flight(OnInFlight::Reject));
    let without_time = axum::middleware::map_response(async |mut answer: Response| {
        answer.headers_mut().remove("retry-after");
        answer
    });
    let charges = Charges::default();
    let app = charges.slow.count(app.layer(without_time)).with_state(charges.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let plan = format!(
        r#"
        url = "http://{address}/charges"
        profile = "acp"
        data = '{{"amount":5}}'
        headers = ["Authorization: Bearer alice"]
        count = "GET /charges"
        slow = '{{"amount":5,"kind":"slow"}}'
        only = ["in-flight"]
        "#
    );
    let report = Plan::from_toml(&plan).unwrap().run(|_| {}).await;
    assert_eq!(report.exit_code(), 1, "{}", report.to_text());
    assert!(report.to_text().contains("without Retry-After"), "{}", report.to_text());
}
