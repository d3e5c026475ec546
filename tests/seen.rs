//! What is seen of refusals and replays: counts by kind, and one event each.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use axum::body::Body;
use axum::routing::post as route;
use common::lab::{Lab, id, keyed, post};
use common::log::Log;
use http::{Request, StatusCode};
use tower_idempotency::test_util::{TestStore, Verb};
use tower_idempotency::{IdempotencyLayer, MemoryStore, Rejection, RejectionKind, Scope};
use tracing::Level;

#[tokio::test]
async fn each_refusal_is_counted_by_its_kind() {
    let store = TestStore::new();
    let scope = |parts: &http::request::Parts| match parts.headers.contains_key("x-stranger") {
        true => Err(Rejection::custom(StatusCode::UNAUTHORIZED, "Unauthorized", "Sign in first.")),
        false => Ok(Scope::new("alice")),
    };
    let layer = IdempotencyLayer::new(store.clone()).require_key(true).max_request_body(5).scope(scope);
    let lab = Lab::new(layer.clone(), |_| async { StatusCode::BAD_GATEWAY });
    lab.send(Request::post("/").body(Body::empty()).unwrap()).await;
    lab.post("a b", "a").await;
    lab.post("a b", "a").await;
    lab.post("k", "too long").await;
    lab.post("k", "a").await;
    lab.post("k", "b").await;
    lab.post("k", "a").await;
    lab.send(keyed("POST", "/", "k").header("x-stranger", "1").body(Body::empty()).unwrap()).await;
    store.fail_next(Verb::Claim);
    lab.post("other", "a").await;
    let counts = layer.counts();
    let refused = [
        (RejectionKind::KeyMissing, 1),
        (RejectionKind::KeyMalformed, 2),
        (RejectionKind::BodyTooLarge, 1),
        (RejectionKind::KeyReused, 1),
        (RejectionKind::OutcomeUnknown, 1),
        (RejectionKind::StoreUnavailable, 1),
        (RejectionKind::Custom, 1),
        (RejectionKind::InFlight, 0),
    ];
    for (kind, count) in refused {
        assert_eq!(counts.refused(kind), count, "{}", kind.slug());
    }
    let all = RejectionKind::ALL.iter().chain([&RejectionKind::Custom]).map(|kind| counts.refused(*kind)).sum::<u64>();
    assert_eq!(all, 8);
}

#[tokio::test]
async fn each_refusal_and_each_replay_is_one_event_that_plain_fmt_shows() {
    let layer = IdempotencyLayer::new(MemoryStore::new()).require_key(true);
    let lab = Lab::counting(layer);
    let log = Log::begin(Level::DEBUG);
    let short = id("secret-key").short();
    lab.post("secret-key", "secret-body").await;
    assert_eq!(log.lines(), [""; 0], "a first run is none");
    lab.post("secret-key", "secret-body").await;
    lab.post("secret-key", "other").await;
    lab.post("secret key", "secret-body").await;
    let lines = log.lines();
    let [replay, reused, malformed] = &lines[..] else { panic!("{lines:#?}") };
    for (line, parts) in [
        (replay, vec!["DEBUG", "tower_idempotency: replayed", &*format!("record_id=\"{short}\""), "status=200"]),
        (reused, vec!["INFO", "refused: key-reused", &*format!("record_id=\"{short}\""), "status=422"]),
        (malformed, vec!["INFO", "refused: key-malformed", "status=400"]),
    ] {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        assert!(!line.contains("secret"), "neither key nor body: {line}");
    }
}

#[tokio::test]
async fn the_levels_are_options() {
    let layer = IdempotencyLayer::new(MemoryStore::new());
    let layer = layer.refusal_level(Level::WARN).replay_level(Level::INFO);
    let lab = Lab::counting(layer);
    let log = Log::begin(Level::INFO);
    lab.post("k", "a").await;
    lab.post("k", "a").await;
    lab.post("k", "b").await;
    let lines = log.lines();
    let [replay, refused] = &lines[..] else { panic!("{lines:#?}") };
    assert!(replay.starts_with("INFO") && refused.starts_with("WARN"), "{lines:#?}");
    // By default replays are not shown at INFO.
    let quiet =
        Lab::of(axum::Router::new().fallback(route(async || "done")).layer(IdempotencyLayer::new(MemoryStore::new())));
    quiet.send(post("k", "a")).await;
    quiet.send(post("k", "a")).await;
    assert_eq!(log.lines(), [""; 0]);
}
