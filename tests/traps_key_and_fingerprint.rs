//! Traps 19 to 37 of TRAPS.md, at the layer: what the key is, whose it is, and what makes two requests the same. (20, 24,
//! 31 and 33 are unit tests beside the values they are about.)
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::post as route;
use common::lab::{Gate, Lab, at_once, frames, keyed, post};
use http::{HeaderValue, Request, StatusCode, Version};
use tower_idempotency::test_util::{TestStore, Verb};
use tower_idempotency::{IdempotencyLayer, Key, MemoryStore, RecordId, Rejection, Scope};
use tracing_subscriber::fmt::format::FmtSpan;

fn lab() -> Lab {
    Lab::counting(IdempotencyLayer::new(MemoryStore::new()))
}

/// A charge whose key, body and all else are the same each time, but for one header.
fn with(name: &'static str, value: &str) -> Request<Body> {
    let mut request = post("k", "a");
    request.headers_mut().insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    request
}

#[tokio::test]
async fn trap_19_a_malformed_non_ascii_or_doubled_key_is_refused_and_never_unprotected() {
    let store = TestStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store).fail_open(true));
    for key in ["", " ", "\u{1f4b3}", "cl\u{e9}", "\"open", "a,b", "two words"] {
        lab.send(with("idempotency-key", key)).await.assert_refusal(400, "key-malformed", false, None);
    }
    for second in ["k", "other", ""] {
        let doubled = keyed("POST", "/charges", "k").header("idempotency-key", second).body(Body::empty()).unwrap();
        lab.send(doubled).await.assert_refusal(400, "key-malformed", false, None);
    }
    assert_eq!(lab.effects(), 0);
}

#[tokio::test]
async fn trap_21_an_order_s_key_on_another_route_is_not_answered_with_the_order() {
    let lab = lab();
    let to = |uri| keyed("POST", uri, "k").body(Body::from("a")).unwrap();
    assert_eq!(lab.send(to("/orders")).await.text(), "effect 1");
    lab.send(to("/refunds")).await.assert_refusal(422, "key-reused", false, None);
    assert_eq!(lab.effects(), 1);
}

fn principal(parts: &http::request::Parts) -> Result<Scope, Rejection> {
    // As an authentication layer outside would have established it: `Bearer <who>.<token>`.
    let bearer = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let who = bearer.and_then(|bearer| bearer.strip_prefix("Bearer ")?.split_once('.'));
    who.map(|(who, _)| Scope::new(who)).ok_or_else(|| Rejection::custom(StatusCode::UNAUTHORIZED, "Who?", "Log in."))
}

#[tokio::test]
async fn trap_22_a_token_refreshed_between_two_tries_is_never_a_second_charge() {
    let lab = lab();
    assert_eq!(lab.send(with("authorization", "Bearer alice.1")).await.text(), "effect 1");
    let answer = lab.send(with("authorization", "Bearer alice.2")).await;
    answer.assert_refusal(422, "credentials-changed", false, None);
    assert!(answer.json()["detail"].as_str().unwrap().contains("a new key would run it again"));
    assert_eq!(lab.effects(), 1);

    let lab = Lab::counting(IdempotencyLayer::new(MemoryStore::new()).scope(principal));
    assert_eq!(lab.send(with("authorization", "Bearer alice.1")).await.text(), "effect 1");
    assert!(lab.send(with("authorization", "Bearer alice.2")).await.is_replay());
    assert_eq!(lab.send(with("authorization", "Bearer bob.1")).await.text(), "effect 2");
    assert_eq!(lab.post("k", "a").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(lab.effects(), 2);
}

#[tokio::test]
async fn trap_23_without_a_scope_no_stranger_reads_another_s_answer() {
    for name in ["authorization", "cookie", "x-api-key", "proxy-authorization", "host"] {
        let lab = lab();
        assert_eq!(lab.send(with(name, "alice")).await.text(), "effect 1");
        let stranger = lab.send(with(name, "bob")).await;
        assert_eq!(stranger.status, 422, "{name}");
        assert!(!String::from_utf8_lossy(&stranger.body).contains("effect"), "{name}");
        assert!(lab.send(with(name, "alice")).await.is_replay(), "{name}");
        assert_eq!(lab.effects(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_second_host_that_says_otherwise_is_not_overlooked() {
    let lab = lab();
    let hosts = |uri: &str, hosts: [&str; 2]| {
        let mut request = keyed("POST", uri, "k").body(Body::from("a")).unwrap();
        request.headers_mut().remove("host");
        hosts.into_iter().for_each(|host| {
            request.headers_mut().append("host", host.parse().unwrap());
        });
        request
    };
    assert_eq!(lab.send(hosts("/charges", ["a.test", "b.test"])).await.text(), "effect 1");
    for other in [["a.test", "c.test"], ["a.test", "a.test"], ["b.test", "a.test"]] {
        assert_eq!(lab.send(hosts("/charges", other)).await.problem(), "key-reused");
    }
    assert_eq!(lab.send(hosts("http://b.test/charges", ["a.test", "b.test"])).await.problem(), "key-reused");
    assert!(lab.send(hosts("/charges", ["A.test", "B.test"])).await.is_replay());
}

thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes to the log of this thread.
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything that is logged, by whomever and however unimportant, while `story` goes on.
fn logged(story: impl Future<Output = ()>) -> String {
    // Global, with a log for each thread: beside a subscriber of one thread alone, `tracing` lets the threads of other
    // tests switch call sites off for all.
    let format = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let subscriber = format.with_span_events(FmtSpan::FULL).with_writer(|| Log).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(story);
    String::from_utf8(LOG.take()).unwrap()
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
        store.fail_next(Verb::Claim);
        assert_eq!(lab.post(&format!("{KEY}-2"), "private body").await.status, 503);
        (0..3).for_each(|_| store.fail_next(Verb::Complete));
        assert_eq!(lab.post(&format!("{KEY}-2"), "private body").await.text(), "private answer");
        assert_eq!(lab.post(&format!("{KEY}-3"), "private body").await.status, 500);
        assert_eq!(layer.counts().interrupted, 1);
        let _stall = store.stall(Verb::Claim);
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
async fn trap_26_a_key_on_a_safe_method_is_neither_answered_nor_stored_nor_refused() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).require_key(true));
    lab.post("k", "a").await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        for key in ["k", "not, a key"] {
            let answer = lab.send(keyed(method, "/charges", key).body(Body::empty()).unwrap()).await;
            assert_eq!((answer.status.as_u16(), answer.is_replay()), (200, false), "{method}");
        }
    }
    assert_eq!((lab.effects(), store.len()), (7, 1));
}

#[tokio::test]
async fn trap_27_another_query_is_another_request() {
    let lab = lab();
    let to = |uri| keyed("POST", uri, "k").body(Body::from("a")).unwrap();
    assert_eq!(lab.send(to("/charges?amount=1")).await.text(), "effect 1");
    for other in ["/charges?amount=100", "/charges", "/charges?amount=1&", "/charges?amount=1&amount=1"] {
        lab.send(to(other)).await.assert_refusal(422, "key-reused", false, None);
    }
    assert!(lab.send(to("/charges?amount=1")).await.is_replay());
}

#[tokio::test]
async fn trap_28_a_body_of_unknown_length_is_part_of_the_request() {
    let lab = lab();
    assert_eq!(lab.send(post("k", frames([Ok("amount="), Ok("1")]))).await.text(), "effect 1");
    lab.send(post("k", frames([Ok("amount="), Ok("2")]))).await.assert_refusal(422, "key-reused", false, None);
    lab.send(post("k", Body::empty())).await.assert_refusal(422, "key-reused", false, None);
    assert!(lab.send(post("k", frames([Ok("am"), Ok("ount=1"), Ok("")]))).await.is_replay(), "the same bytes");
    assert!(lab.post("k", "amount=1").await.is_replay(), "the same bytes, with a length");
}

#[tokio::test]
async fn trap_29_what_clients_change_between_two_tries_is_no_other_request() {
    let lab = lab();
    let names = ["x-stripe-client-telemetry", "user-agent", "traceparent", "x-request-id", "accept", "date", "x-retry"];
    for attempt in 1..=3 {
        let mut request = post("k", "a");
        for name in names {
            request.headers_mut().insert(name, HeaderValue::from_str(&format!("{attempt}")).unwrap());
        }
        assert_eq!(lab.send(request).await.is_replay(), attempt > 1);
    }
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn a_retry_over_another_version_of_http_is_the_same_request() {
    let lab = lab();
    lab.post("k", "a").await;
    let mut request = Request::post("https://Pay.Example/charges").header("idempotency-key", "k");
    request = request.version(Version::HTTP_2);
    assert!(lab.send(request.body(Body::from("a")).unwrap()).await.is_replay());
    let other = Request::post("https://other.example/charges").header("idempotency-key", "k");
    lab.send(other.body(Body::from("a")).unwrap()).await.assert_refusal(422, "key-reused", false, None);
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
async fn trap_34_the_same_request_under_another_key_is_another_intent() {
    let lab = lab();
    assert_eq!(lab.post("k1", "a").await.text(), "effect 1");
    assert_eq!(lab.post("k2", "a").await.text(), "effect 2");
    assert_eq!(lab.post("K1", "a").await.text(), "effect 3", "keys are case-sensitive");
}

#[tokio::test]
async fn trap_35_a_slow_upload_holds_no_key() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    let gate = Gate::default();
    let slow = {
        let gate = gate.clone();
        let upload = async move {
            gate.pass().await;
            Ok::<_, std::io::Error>("a")
        };
        post("k", Body::from_stream(futures_util::stream::once(upload)))
    };
    let slow = lab.spawn(slow);
    gate.arrival().await;
    assert!(store.is_empty(), "nothing is claimed while the body is read");
    let quick = lab.post("k", "a").await;
    assert_eq!((quick.text(), quick.is_replay()), ("effect 1", false));
    gate.open();
    assert!(slow.await.unwrap().is_replay());

    let aborted = lab.send(post("broken", frames([Ok("a"), Err("reset")]))).await;
    aborted.assert_refusal(400, "body-incomplete", true, None);
    assert_eq!((lab.effects(), store.len()), (1, 1));
}

#[tokio::test]
async fn trap_36_an_endless_body_is_refused_at_the_limit_before_any_claim() {
    let store = MemoryStore::new();
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()).max_request_body(10));
    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    let endless = futures_util::stream::repeat_with(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok::<_, std::io::Error>("four")
    });
    lab.send(post("k", Body::from_stream(endless))).await.assert_refusal(413, "body-too-large", false, None);
    let beyond = 64 * 1_024 / 4 + 1;
    assert_eq!(read.load(Ordering::SeqCst), 3 + beyond, "frames of four bytes: up to the limit, and then 64 KiB");
    assert_eq!((lab.effects(), store.len()), (0, 0));
}

#[tokio::test]
async fn trap_37_a_body_over_the_limit_is_refused_and_never_runs_unprotected() {
    let lab = Lab::counting(IdempotencyLayer::new(TestStore::new()).max_request_body(3).fail_open(true));
    lab.post("k", "four").await.assert_refusal(413, "body-too-large", false, None);
    lab.send(post("k", frames([Ok("fo"), Ok("ur")]))).await.assert_refusal(413, "body-too-large", false, None);
    assert_eq!(lab.effects(), 0);
}
