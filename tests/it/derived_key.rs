//! The keys that a run derives for its downstream calls: the same in every attempt of one operation, and another for
//! every other operation, even under the same idempotency key.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::Full;
use testkit::Gate;
use testkit::lab::asked::{Asked, asking};
use testkit::lab::time::{DAY, clock};
use testkit::lab::{Lab, keyed, layer, post, with};
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{
    FingerprintBody, IdempotencyContext, IdempotencyLayer, MemoryStore, OnInterrupted, Scope, Unsure,
};

/// A service that removes duplicates: it makes one charge for each key.
#[derive(Clone, Default)]
struct Provider(Arc<Mutex<Vec<(String, Bytes)>>>);

impl Provider {
    /// Charges, or finds the charge that exists.
    fn charge(&self, key: String, order: &Bytes) -> Bytes {
        let mut charges = self.0.lock().unwrap();
        if let Some((_, earlier)) = charges.iter().find(|(charged, _)| *charged == key) {
            return earlier.clone();
        }
        charges.push((key, order.clone()));
        order.clone()
    }

    fn find(&self, key: &str) -> Option<Bytes> {
        let charges = self.0.lock().unwrap();
        charges.iter().find(|(charged, _)| charged == key).map(|(_, order)| order.clone())
    }

    fn orders(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().iter().map(|(_, order)| order.clone()).collect()
    }

    /// An application that charges each request, and then waits at `gate`.
    fn behind<St: Store>(&self, layer: IdempotencyLayer<St>, gate: &Gate) -> Lab {
        let (provider, gate) = (self.clone(), gate.clone());
        let handler = move |context: IdempotencyContext, order: Bytes| async move {
            let charged = provider.charge(context.derived_key("charge"), &order);
            gate.pass().await;
            charged
        };
        Lab::of(Router::new().fallback(any(handler)).layer(layer))
    }

    /// A reconciler that answers with its knowledge of an interrupted run.
    fn asked(&self) -> Reconciler<Response<Full<Bytes>>> {
        let provider = self.clone();
        Reconciler::new(move |run: InterruptedRun| {
            let found = provider.find(&run.derived_key("charge").unwrap());
            async move { found.map_or(Reconciled::RunAgain, |order| Reconciled::Outcome(Response::new(order.into()))) }
        })
    }
}

fn open() -> Gate {
    let gate = Gate::default();
    gate.open();
    gate
}

#[tokio::test]
async fn another_order_under_the_same_key_after_the_retention_is_charged_and_never_gets_the_first_one_s_answer() {
    let (clock, provider) = (clock(), Provider::default());
    let store = TestStore::with_clock(clock.clone());
    let lab = provider.behind(asking(store.clone(), provider.asked()), &open());
    assert_eq!(lab.post("k", "order A").await.text(), "order A");
    clock.advance(DAY);
    // The next run is cut off before it charges.
    let cut = Lab::new(asking(store, provider.asked()), |_| async { (Unsure, "no answer") });
    assert_eq!(cut.post("k", "order B").await.text(), "no answer");
    assert_eq!(lab.post("k", "order B").await.text(), "order B");
    assert_eq!(provider.orders(), ["order A", "order B"]);
}

#[tokio::test]
async fn under_rerun_a_crash_a_refreshed_token_another_host_and_other_options_leave_one_charge_downstream() {
    let (store, provider, gate) = (TestStore::new(), Provider::default(), Gate::default());
    let rerun = |store: &TestStore| IdempotencyLayer::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
    let first = provider.behind(rerun(&store), &gate).spawn(with("authorization", "Bearer old"));
    gate.arrival().await;
    // The claim leaves no trace: the derived key is all that protects the retry.
    let store = store.reopen();
    first.abort();
    let options = [HeaderName::from_static("x-tenant"), HeaderName::from_static("host")];
    let retried = provider.behind(rerun(&store).fingerprint_headers(options), &open());
    let mut retry = with("authorization", "Bearer refreshed");
    retry.headers_mut().insert("host", "eu.pay.example".parse().unwrap());
    retry.headers_mut().insert("x-tenant", "t".parse().unwrap());
    let answer = retried.send(retry).await;
    assert_eq!((answer.text(), answer.is_replay()), ("a", false), "it runs again");
    assert_eq!(provider.orders(), ["a"]);
}

/// The key that a handler derives for its charge.
async fn derived(layer: IdempotencyLayer<MemoryStore>, request: Request<Body>) -> String {
    let handler = |context: IdempotencyContext| async move { context.derived_key("charge") };
    let answer = Lab::of(Router::new().fallback(any(handler)).layer(layer)).send(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.text().to_owned()
}

fn typed(content_type: &str, body: &str) -> Request<Body> {
    keyed("POST", "/charges", "k").header("content-type", content_type).body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn a_derived_key_depends_on_method_path_query_and_body_and_on_nothing_that_changes_between_attempts() {
    let charge = derived(layer(), post("k", "a")).await;
    let send = |method: &str, uri: &str, body: &'static str| keyed(method, uri, "k").body(Body::from(body)).unwrap();
    let others = [
        ("key", derived(layer(), post("other", "a"))),
        ("scope", derived(layer().scope(|_| Ok(Scope::new("alice")?)), post("k", "a"))),
        ("method", derived(layer(), send("PATCH", "/charges", "a"))),
        ("path", derived(layer(), send("POST", "/refunds", "a"))),
        ("query", derived(layer(), send("POST", "/charges?a=1", "a"))),
        ("body", derived(layer(), post("k", "b"))),
    ];
    for (what, other) in others {
        assert_ne!(other.await, charge, "{what}");
    }
    let headers = [HeaderName::from_static("stripe-account")];
    let same = [
        ("another attempt", derived(layer(), post("k", "a"))),
        ("host", derived(layer(), with("host", "eu.pay.example"))),
        ("token", derived(layer(), with("authorization", "Bearer refreshed"))),
        ("cookie", derived(layer(), with("cookie", "a=b"))),
        ("header", derived(layer(), with("x-request-id", "17"))),
        ("content type", derived(layer(), with("content-type", "text/plain"))),
        ("options", derived(layer().fingerprint_headers(headers), with("stripe-account", "acct_1"))),
        ("policy", derived(layer().on_interrupted(OnInterrupted::Rerun), post("k", "a"))),
    ];
    for (what, same) in same {
        assert_eq!(same.await, charge, "{what}");
    }
}

#[tokio::test]
async fn a_derived_key_depends_on_a_body_in_its_compared_form() {
    let form = |boundary: &str| {
        typed(&format!("multipart/form-data; boundary={boundary}"), &format!("--{boundary}\r\n\r\n1\r\n--{boundary}--"))
    };
    assert_eq!(derived(layer(), form("A")).await, derived(layer(), form("B")).await);
    let json = |body: &str| typed("application/json", body);
    let canonical = || layer().fingerprint_body(FingerprintBody::CanonicalJson);
    let [one, other] = [r#"{"a":1,"b":2}"#, r#"{"b":2, "a":1.0}"#];
    assert_eq!(derived(canonical(), json(one)).await, derived(canonical(), json(other)).await);
    assert_ne!(derived(layer(), json(one)).await, derived(layer(), json(other)).await);
    let first_byte = |version: &str| {
        let digest = |_: &http::request::Parts, body: &Bytes| body.slice(..1);
        layer().fingerprint_body(FingerprintBody::custom(version, digest))
    };
    assert_eq!(derived(first_byte("1"), post("k", "ab")).await, derived(first_byte("2"), post("k", "ac")).await);
    assert_ne!(derived(first_byte("1"), post("k", "ab")).await, derived(first_byte("1"), post("k", "bb")).await);
}

#[tokio::test]
async fn trap_115_the_same_key_and_the_same_request_after_the_retention_derive_the_same_key() {
    let clock = clock();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&seen);
    let handler =
        move |context: IdempotencyContext| async move { log.lock().unwrap().push(context.derived_key("charge")) };
    let layer = IdempotencyLayer::new(MemoryStore::builder().clock(clock.clone()).build());
    let lab = Lab::of(Router::new().fallback(any(handler)).layer(layer));
    lab.post("k", "a").await;
    clock.advance(DAY);
    assert!(!lab.post("k", "a").await.is_replay());
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 2 && seen[0] == seen[1], "{seen:?}");
}

#[tokio::test]
async fn a_second_attempt_derives_the_first_one_s_keys_though_the_members_come_in_another_order() {
    let store = TestStore::new();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let asked = Asked::default();
    let lab = |layer: IdempotencyLayer<TestStore>| {
        let log = Arc::clone(&seen);
        let handler = move |context: IdempotencyContext| async move {
            log.lock().unwrap().push(context.derived_key("charge"));
            if context.attempt() == 1 { (Unsure, "perhaps").into_response() } else { "done".into_response() }
        };
        Lab::of(Router::new().fallback(any(handler)).layer(layer.fingerprint_body(FingerprintBody::CanonicalJson)))
    };
    let again = || asking(store.clone(), asked.says([Reconciled::RunAgain]));
    lab(again()).send(typed("application/json", r#"{"a":1,"b":2}"#)).await;
    let second = lab(again()).send(typed("application/json", r#"{"b":2,"a":1}"#)).await;
    assert_eq!(second.text(), "done");
    let seen = seen.lock().unwrap();
    assert!(seen.len() == 2 && seen[0] == seen[1], "{seen:?}");
    assert_eq!(asked.questions()[0].derived_key("charge").as_ref(), Some(&seen[0]));
}

#[tokio::test]
async fn a_run_without_protection_derives_the_same_key_as_one_with() {
    let protected = derived(layer(), post("k", "a")).await;
    let store = TestStore::new();
    store.crash();
    let handler = |context: IdempotencyContext| async move {
        assert!(!context.is_protected());
        context.derived_key("charge")
    };
    let layer = IdempotencyLayer::new(store).fail_open(true);
    let lab = Lab::of(Router::new().fallback(any(handler)).layer(layer));
    let answer = tokio::time::timeout(Duration::from_secs(60), lab.post("k", "a")).await.unwrap();
    assert_eq!(answer.text(), protected);
}
