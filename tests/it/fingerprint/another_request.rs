//! Another request with the same key gets no recorded answer: it is refused, even while the first still runs (promise
//! 6). A record by unknown rules is refused too, and never run.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::OriginalUri;
use axum::http::HeaderName;
use axum::routing::post as route;
use testkit::Gate;
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, charge_print, foreign, frames, gated, id, insert_answer, insert_bytes, keyed, layer, post};
use testkit::log::Log;
use tower_idempotency::internals::Origin;
use tower_idempotency::{Fingerprint, IdempotencyLayer, MemoryStore, OnInFlight, RecordId, RequestPart, Scope};
use tracing::Level;

// Row: known key, other request → 422 `key-reused`.

#[tokio::test]
async fn a_known_key_with_another_request_is_refused() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    let original = || keyed("POST", "/charges?amount=1", "k").header("content-type", "application/json");
    assert_eq!(lab.send(original().body("a".into()).unwrap()).await.text(), "effect 1");
    let with = |method: &str, uri: &str, kind: &str, body: &'static str| {
        keyed(method, uri, "k").header("content-type", kind).body(Body::from(body)).unwrap()
    };
    let json = "application/json";
    let mut host = with("POST", "/charges?amount=1", json, "a");
    host.headers_mut().insert("host", "other.example".parse().unwrap());
    let others = [
        with("PATCH", "/charges?amount=1", json, "a"),
        with("POST", "/refunds?amount=1", json, "a"),
        with("POST", "/charges?amount=2", json, "a"),
        with("POST", "/charges?amount=1", "text/plain", "a"),
        with("POST", "/charges?amount=1", json, "b"),
        host,
    ];
    for other in others {
        lab.send(other).await.assert_refusal(422, "key-reused", false, None);
    }
    assert!(lab.send(original().body("a".into()).unwrap()).await.is_replay());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn the_log_and_the_operator_learn_in_which_part_another_request_differs_and_its_client_does_not() {
    let layer = IdempotencyLayer::new(MemoryStore::new()).fingerprint_headers([HeaderName::from_static("x-region")]);
    let operations = layer.operations();
    let lab = Lab::counting(layer);
    let request = |method: &str, uri: &str| keyed(method, uri, "k").header("content-type", "text/plain");
    let original = || request("POST", "/charges?amount=1").header("x-region", "a").body(Body::from("a")).unwrap();
    assert_eq!(lab.send(original()).await.text(), "effect 1");
    assert_eq!(operations.mismatched(id("k")), None);
    let with = |method: &str, uri: &str, tenant: &str, body: &'static str| {
        request(method, uri).header("x-region", tenant).body(Body::from(body)).unwrap()
    };
    let mut host = original();
    host.headers_mut().insert("host", "canary.example".parse().unwrap());
    let others = [
        (with("PATCH", "/charges?amount=1", "a", "a"), RequestPart::Method),
        (host, RequestPart::Host),
        (with("POST", "/canary?amount=1", "a", "canary"), RequestPart::Path),
        (with("POST", "/charges?amount=canary", "a", "canary"), RequestPart::Query),
        (with("POST", "/charges", "a", "a"), RequestPart::Query),
        (with("POST", "/charges?", "a", "a"), RequestPart::Query),
        (with("POST", "/charges?amount=1", "canary", "canary"), RequestPart::Headers),
        (with("POST", "/charges?amount=1", "a", "canary"), RequestPart::Body),
    ];
    let (log, mut answers) = (Log::begin(Level::DEBUG), HashSet::new());
    for (number, (other, part)) in (1..).zip(others) {
        let answer = lab.send(other).await;
        answer.assert_refusal(422, "key-reused", false, None);
        answers.insert(answer.text().to_owned());
        let seen = operations.mismatched(id("k")).unwrap();
        assert_eq!((seen.part, seen.requests), (part, number));
    }
    // They are alike.
    assert_eq!(answers.len(), 1, "{answers:?}");
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.contains("refused: key-reused")).collect();
    let names: Vec<_> =
        lines.iter().map(|line| line.split("differs=\"").nth(1).unwrap().split('"').next().unwrap()).collect();
    assert_eq!(names, ["method", "host", "path", "query", "query", "query", "headers", "body"]);
    assert!(!lines.concat().contains("canary"), "{lines:?}");
    // The owner's retry, and another client's request, are no such request.
    assert!(lab.send(original()).await.is_replay());
    let mut stranger = with("POST", "/canary", "a", "a");
    stranger.headers_mut().insert("authorization", "Bearer other".parse().unwrap());
    assert_eq!(lab.send(stranger).await.refusal(), (422, "credentials-changed".to_owned()));
    assert_eq!(operations.mismatched(id("k")).unwrap().requests, 8);
    // An empty query is another one than none.
    for (uri, status) in [("/charges", 200), ("/charges?", 422)] {
        assert_eq!(lab.send(keyed("POST", uri, "empty").body(Body::from("a")).unwrap()).await.status, status);
    }
    assert_eq!(operations.mismatched(id("empty")).unwrap().part, RequestPart::Query);
}

// Row: recorded under another fingerprint version or options → compared by the recorded ones; where that can't be done,
// 409 `not-verifiable`.

#[tokio::test]
async fn a_record_without_credentials_is_compared_without_them() {
    // This is the record of a layer with a scope for the same record id.
    let store = MemoryStore::new();
    let request = Fingerprint::builder(&id("k")).field("method", b"POST").context_field("host", b"pay.example");
    let fingerprint = request.field("target", b"/charges").field("body", b"a").finish();
    insert_bytes(&store, id("k"), fingerprint, Origin::default(), "recorded").await;
    let lab = Lab::counting(IdempotencyLayer::new(store));
    let request = |body| keyed("POST", "/charges", "k").header("cookie", "a=b").body(Body::from(body)).unwrap();
    lab.send(request("b")).await.assert_refusal(422, "key-reused", false, None);
    // It counts as the same request. The layer finds out afterwards that the bytes are no answer.
    lab.send(request("a")).await.assert_refusal(503, "store-unavailable", false, None);
    assert_eq!(lab.effects(), 0);
}

// Row: known key, other request → 422, even in flight.

#[tokio::test]
async fn trap_06_another_request_with_the_key_is_told_so_even_in_flight() {
    for policy in [OnInFlight::Wait(HOUR), OnInFlight::Reject] {
        let gate = Gate::default();
        let lab = gated(IdempotencyLayer::new(MemoryStore::new()).on_in_flight(policy), &gate);
        let first = lab.spawn(post("k", "a"));
        gate.arrival().await;
        assert_eq!(lab.post("k", "b").await.refusal(), (422, "key-reused".to_owned()), "{policy:?}");
        gate.open();
        assert_eq!(first.await.unwrap().text(), "effect 1");
        assert_eq!(lab.post("k", "b").await.refusal(), (422, "key-reused".to_owned()));
        assert_eq!(lab.effects(), 1);
    }
}

#[tokio::test]
async fn trap_21_an_order_s_key_on_another_route_is_not_answered_with_the_order() {
    let lab = Lab::counting(layer());
    let to = |uri| keyed("POST", uri, "k").body(Body::from("a")).unwrap();
    assert_eq!(lab.send(to("/orders")).await.text(), "effect 1");
    lab.send(to("/refunds")).await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_27_another_query_is_another_request() {
    let lab = Lab::counting(layer());
    let to = |uri| keyed("POST", uri, "k").body(Body::from("a")).unwrap();
    assert_eq!(lab.send(to("/charges?amount=1")).await.text(), "effect 1");
    for other in ["/charges?amount=100", "/charges", "/charges?amount=1&", "/charges?amount=1&amount=1"] {
        lab.send(to(other)).await.assert_refusal(422, "key-reused", false, None);
    }
    assert!(lab.send(to("/charges?amount=1")).await.is_replay());
}

// Seeded faults: the original URI is taken for the request's own if the query differs, or if the path is `/`.
#[tokio::test]
async fn requests_with_a_copy_of_one_original_uri_are_told_apart_by_where_they_go() {
    let to = |uri: &str, original: &str| {
        let original = OriginalUri(original.parse().unwrap());
        keyed("POST", uri, "k").extension(original).body(Body::from("a")).unwrap()
    };
    for (original, uri, other) in
        [("/shop/pay?for=1", "/pay?for=2", "/pay?for=3"), ("/pay", "/pay?for=1", "/pay"), ("/pay/", "/", "/pay/")]
    {
        let lab = Lab::counting(layer());
        assert_eq!(lab.send(to(uri, original)).await.text(), "effect 1");
        lab.send(to(other, original)).await.assert_refusal(422, "key-reused", false, None);
        assert!(lab.send(to(uri, original)).await.is_replay(), "{uri}");
    }
}

#[tokio::test]
async fn trap_28_a_body_of_unknown_length_is_part_of_the_request() {
    let lab = Lab::counting(layer());
    assert_eq!(lab.send(post("k", frames([Ok("amount="), Ok("1")]))).await.text(), "effect 1");
    lab.send(post("k", frames([Ok("amount="), Ok("2")]))).await.assert_refusal(422, "key-reused", false, None);
    lab.send(post("k", Body::empty())).await.assert_refusal(422, "key-reused", false, None);
    assert!(lab.send(post("k", frames([Ok("am"), Ok("ount=1"), Ok("")]))).await.is_replay(), "the same bytes");
    assert!(lab.post("k", "amount=1").await.is_replay(), "the same bytes, with a length");
}

#[tokio::test]
async fn trap_32_a_nested_router_s_prefix_is_part_of_the_request() {
    let layer = IdempotencyLayer::new(MemoryStore::new());
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let charge = move || async move { (counted.fetch_add(1, Ordering::SeqCst) + 1).to_string() };
    let inner = Router::new().route("/charges", route(charge)).layer(layer);
    let tenants = Router::new().nest("/{tenant}", inner);
    let lab = Lab::of(Router::new().nest("/eu/tenants", tenants.clone()).nest("/us/tenants", tenants));
    let to = |uri| lab.send(keyed("POST", uri, "k").body(Body::from("a")).unwrap());
    assert_eq!(to("/eu/tenants/alice/charges").await.text(), "1");
    to("/us/tenants/alice/charges").await.assert_refusal(422, "key-reused", false, None);
    to("/eu/tenants/bob/charges").await.assert_refusal(422, "key-reused", false, None);
    assert!(to("/eu/tenants/alice/charges").await.is_replay());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn trap_62_a_mismatch_is_422_which_no_sdk_retries() {
    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()));
    lab.post("k", "a").await;
    let mismatch = lab.post("k", "b").await;
    assert_eq!(mismatch.refusal(), (422, "key-reused".to_owned()));
    assert_eq!(mismatch.json()["retry_with_same_key"], false);
    assert!(!mismatch.headers.contains_key("retry-after"));
    let mut bob = post("k", "a");
    bob.headers_mut().insert("authorization", "Bearer bob".parse().unwrap());
    let changed = lab.send(bob).await;
    assert_eq!(changed.refusal(), (422, "credentials-changed".to_owned()));
    assert!(changed.text().contains("Do not mint a new key"), "{changed:?}");
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn trap_79_a_record_is_compared_by_the_options_it_was_made_with() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    insert_answer(&store, id("without"), charge_print(&id("without")).finish()).await;
    insert_answer(&store, id("with"), charge_print(&id("with")).with_credentials().finish()).await;
    insert_answer(&store, id("bob's"), charge_print(&id("bob's")).credential("authorization", b"Bearer bob").finish())
        .await;
    for key in ["without", "with"] {
        let replay = lab.post(key, "a").await;
        assert_eq!((replay.text(), replay.is_replay()), ("recorded", true), "{key}");
        assert_eq!(lab.post(key, "b").await.refusal(), (422, "key-reused".to_owned()), "{key}");
    }
    assert_eq!(lab.post("bob's", "a").await.refusal(), (422, "credentials-changed".to_owned()));
    assert_eq!(lab.effects(), 0);
}

#[tokio::test]
async fn trap_79_what_was_recorded_by_unknown_rules_is_refused_and_never_run() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    insert_answer(&store, id("options"), foreign(charge_print(&id("options")).with_credentials().finish(), 1, [9; 8]))
        .await;
    for (key, version) in [("later", 2), ("earlier", 0)] {
        insert_answer(&store, id(key), foreign(charge_print(&id(key)).with_credentials().finish(), version, [0; 8]))
            .await;
    }
    let scope = Scope::new("alice").unwrap();
    let scoped_id = RecordId::new(Some(&scope), &tower_idempotency::Key::new("scoped").unwrap());
    insert_answer(&store, scoped_id, charge_print(&scoped_id).with_credentials().finish()).await;
    let scoped = Lab::counting(IdempotencyLayer::new(store).scope(move |_| Ok(scope.clone())));
    for (lab, key) in [(&lab, "options"), (&lab, "later"), (&lab, "earlier"), (&scoped, "scoped")] {
        let refused = lab.post(key, "a").await;
        assert_eq!(refused.refusal(), (409, "not-verifiable".to_owned()), "{key}");
        assert!(refused.text().contains("Do not mint a new key"));
        assert!(!refused.headers.contains_key("retry-after"));
        assert_eq!(lab.effects(), 0);
    }
    // The layer does not show whether the request is the same before it knows the client.
    assert_eq!(scoped.post("scoped", "b").await.refusal(), (409, "not-verifiable".to_owned()));
}
