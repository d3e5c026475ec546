//! The counts of refusals by kind, what becomes of a request in a header, and that no key, body or credentials are
//! logged.

use axum::body::Body;
use http::{HeaderName, Request, StatusCode};
use testkit::Gate;
use testkit::lab::{Lab, at_once, id, keyed};
use testkit::log::{Log, logged};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{IdempotencyLayer, Key, MemoryStore, RecordId, Rejection, RejectionKind, Scope};
use tracing::{Instrument as _, Level};

#[tokio::test]
async fn each_refusal_is_counted_by_its_kind() {
    let store = TestStore::new();
    let scope = |parts: &http::request::Parts| match parts.headers.contains_key("x-stranger") {
        true => Err(Rejection::custom(StatusCode::UNAUTHORIZED, "Unauthorized", "Sign in first.")),
        false => Ok(Scope::new("alice")?),
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
    store.fail_next(StoreCall::Claim);
    lab.post("other", "a").await;
    let counts = layer.stats();
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

#[test]
fn trap_25_neither_key_nor_body_nor_credentials_are_logged_but_the_record_id_s_beginning_is() {
    const KEY: &str = "super-secret-key";
    let log = logged(async {
        let store = TestStore::new();
        let layer = IdempotencyLayer::new(store.clone()).max_request_body(100);
        let gate = Gate::default();
        let handler = gate.clone();
        let lab = Lab::new(layer.clone(), move |number| {
            let gate = handler.clone();
            async move {
                gate.pass().await;
                assert!(number < 3, "on purpose");
                "private answer"
            }
        });
        let request = |body: &str| {
            let request = keyed("POST", "/charges?card=plastic", KEY).header("authorization", "Bearer hunter2");
            request.body(Body::from(format!("private {body}"))).unwrap()
        };
        // A run, one that waits, a replay, refusals of all kinds, and faults.
        let first = lab.spawn(request("body"));
        gate.arrival().await;
        let mut waiter = Box::pin(lab.send(request("body")));
        assert!(at_once(&mut waiter).is_none());
        gate.open();
        assert!(first.await.unwrap().text() == "private answer" && waiter.await.is_replay());
        assert!(lab.send(request("body")).await.is_replay());
        assert_eq!(lab.send(request("mismatch")).await.status, 422);
        assert_eq!(lab.send(request(&"long".repeat(100))).await.status, 413);
        assert_eq!(lab.post(&format!("{KEY},malformed"), "private body").await.status, 400);
        store.fail_next(StoreCall::Claim);
        assert_eq!(lab.post(&format!("{KEY}-2"), "private body").await.status, 503);
        (0..3).for_each(|_| store.fail_next(StoreCall::Complete));
        assert_eq!(lab.post(&format!("{KEY}-2"), "private body").await.text(), "private answer");
        assert_eq!(lab.post(&format!("{KEY}-3"), "private body").await.status, 500);
        assert_eq!(layer.stats().interrupted, 1);
        let _stall = store.stall(StoreCall::Claim);
        assert_eq!(lab.post(&format!("{KEY}-4"), "private body").await.status, 503);
    });
    for secret in ["super-secret", "private", "hunter2", "plastic"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} in: {line:?}");
    }
    let id = RecordId::new(None, &Key::new(KEY).unwrap());
    assert!(!log.contains(&id.to_string()), "the whole record id");
    let closed: Vec<_> = log.lines().filter(|line| line.contains("close") && line.contains(&id.short())).collect();
    let spans_with =
        |fields: &[&str]| closed.iter().filter(|line| fields.iter().all(|field| line.contains(field))).count();
    assert_eq!(spans_with(&["outcome=\"ran\"", "ran_ms="]), 1, "{closed:?}");
    assert_eq!(spans_with(&["outcome=\"replayed\"", "waited_ms="]), 1, "{closed:?}");
    assert_eq!(spans_with(&["outcome=\"replayed\""]), 2, "{closed:?}");
    assert_eq!(spans_with(&["outcome=\"key-reused\""]), 1, "{closed:?}");
    for said in ["the store failed", "answered without a record", "the handler panicked", "the store has not answered"]
    {
        assert!(log.contains(said), "{said}");
    }
}

#[tokio::test]
async fn trap_18_the_span_goes_along_with_the_run() {
    let lab = Lab::new(IdempotencyLayer::new(MemoryStore::new()), |_| async { tracing::info!("charging") });
    let log = Log::begin(Level::INFO);
    lab.post("k", "a").instrument(tracing::info_span!("request", tenant = 7)).await;

    let lines = log.lines();
    let line = lines.iter().find(|line| line.contains("charging")).expect("the handler's line");
    let record_id = &id("k").to_string()[..8];
    assert!(line.contains(&format!("request{{tenant=7}}:exchange{{record_id=\"{record_id}\"")), "{line}");
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn an_answer_says_what_became_of_its_request_in_a_header_that_is_off_by_default() {
    let name = || HeaderName::from_static("idempotency-outcome");
    let layer = IdempotencyLayer::new(MemoryStore::new());
    let lab = Lab::counting(layer.clone().outcome_header_name(name()));
    let outcome = async |key: &str, body: &'static str| {
        let headers = lab.post(key, body).await.headers;
        headers.get(name()).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(outcome("k", "a").await.as_deref(), Some("ran"));
    assert_eq!(outcome("k", "a").await.as_deref(), Some("replayed"));
    assert_eq!(outcome("k", "b").await.as_deref(), Some("key-reused"));
    assert_eq!(outcome("a key", "a").await.as_deref(), Some("key-malformed"));
    // It is no part of the record, and a layer without the option does not set it.
    let quiet = Lab::counting(layer);
    assert_eq!(quiet.post("k", "a").await.headers.get(name()), None);
}
