//! Covered requests: claimed, sent on with a key of their own, recorded and replayed.

use std::sync::atomic::Ordering;

use http::{HeaderName, Method};
use testkit::Call;
use tower_idempotency::server::Profile;
use tower_idempotency::{OnInterrupted, Scope};
use tower_idempotency_proxy::Upstream;

use crate::service::{Service, layer, proxied, proxy, says, send, send_call};

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_first_answer_and_the_service_one_request() {
    let service = Service::default();
    let proxy = proxy(layer(), service.start().await).await;
    let first = send(proxy, "k", "book").await;
    let again = send(proxy, "k", "book").await;
    assert_eq!((first.status.as_u16(), first.text()), (201, "order 1"));
    assert_eq!((again.status, again.text(), again.is_replay()), (first.status, "order 1", true));
    assert_eq!(send(proxy, "k", "pen").await.problem(), "key-reused");
    assert_eq!(service.keys().len(), 1);
}

// Services over WSGI read a method without its case. Seeded fault: a method in other letters passes.
#[tokio::test(flavor = "multi_thread")]
async fn a_method_in_other_letters_does_not_reach_the_service_nor_one_without_a_key_that_is_required() {
    let service = Service::default();
    let there = service.start().await;
    for (layer, method, key, status) in [
        (layer(), "patch", Some("k"), 501),
        (layer(), "post", None, 501),
        (layer().require_key(true), "patch", Some("k"), 501),
        (layer().require_key(true), "PUT", None, 400),
    ] {
        let call = Call { method: method.parse().unwrap(), ..Call::post("/orders", "book") };
        let call = key.into_iter().fold(call, |call, key| call.header("idempotency-key", key));
        let answer = send_call(proxy(layer, there).await, &call).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {key:?}");
    }
    assert!(service.noted().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_of_a_request_under_way_is_refused_and_the_run_goes_on_without_its_client() {
    let service = Service::default();
    let proxy = proxy(layer(), service.start().await).await;
    let client = tokio::spawn(async move { send(proxy, "k", "waits").await });
    service.gate.arrival().await;
    assert_eq!(send(proxy, "k", "waits").await.problem(), "in-flight");
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    service.gate.open();
    testkit::process::until("the run is recorded", async || send(proxy, "k", "waits").await.is_replay()).await;
    assert_eq!(service.keys().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_gets_a_derived_key_the_same_in_each_attempt_and_another_for_each_client() {
    let service = Service::default();
    let by_account = layer().scope(|parts: &http::request::Parts| Scope::new(parts.headers["account"].as_bytes()).ok());
    let proxy = proxy(by_account, service.start().await).await;
    let order =
        |account: &str| Call::post("/orders", "503 release").header("idempotency-key", "k").header("account", account);
    for account in ["a", "a", "b"] {
        send_call(proxy, &order(account)).await;
    }
    let keys = service.keys();
    assert_eq!(keys[0], keys[1], "the second attempt of one operation");
    assert_ne!(keys[1], keys[2], "another client's operation with the same key");
    for key in keys {
        assert!(key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_that_the_layer_reads_has_the_derived_key_or_none_and_no_other_header_is_touched() {
    let address = Service::default().start().await;
    let origin: http::Uri = format!("http://{address}").parse().unwrap();
    for upstream in [Upstream::new, Upstream::http2] {
        for name in ["idempotency-key", "x-request-key"] {
            let name = HeaderName::from_static(name);
            let upstream = upstream(origin.clone()).unwrap().key_header(name.clone());
            let proxy = proxied(layer().header_name(name.clone()), upstream).await;
            for (method, header, is_covered) in [
                (Method::POST, "idempotency-key", name == "idempotency-key"),
                (Method::POST, "x-request-key", name == "x-request-key"),
                (Method::GET, "idempotency-key", false),
                (Method::GET, "x-request-key", false),
            ] {
                let call = Call { method, ..Call::post("/heads", "a") }.header(header, "client-s");
                let said = send_call(proxy, &call).await;
                let of = |header: &str| {
                    said.text()
                        .lines()
                        .find_map(|line| line.strip_prefix(header)?.strip_prefix(": ").map(str::to_owned))
                };
                let keeps = (header != name).then(|| "client-s".to_owned());
                assert_eq!(of(header).filter(|key| key.len() != 32), keeps, "{name} {call:?}");
                assert_eq!(of(name.as_str()).is_some_and(|key| key.len() == 32), is_covered, "{name} {call:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_derived_key_that_a_service_repeats_does_not_get_to_the_client() {
    let says = says("HTTP/1.1 201 Created\r\nidempotency-key: derived\r\ncontent-length: 0\r\n\r\n").await.0;
    for (profile, key) in [(Profile::draft(), None), (Profile::stripe(), Some("k")), (Profile::acp(), Some("k"))] {
        let name = profile.name;
        let proxy = proxy(layer().profile(profile), says).await;
        for is_replay in [false, true] {
            let answer = send(proxy, "k", "book").await;
            let keys: Vec<_> = answer.headers.get_all("idempotency-key").iter().collect();
            assert_eq!(keys, Vec::from_iter(key), "{name} {is_replay}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_covered_gets_no_key_whatever_its_client_says() {
    let service = Service::default();
    let proxy = proxy(layer(), service.start().await).await;
    for _ in 0..2 {
        assert_eq!(send_call(proxy, &Call::post("/orders", "book")).await.status.as_u16(), 201);
    }
    assert_eq!(service.keys(), ["", ""]);
    let said = send_call(proxy, &Call::get("/heads").header("idempotency-key", "client-s")).await;
    assert!(!said.text().contains("idempotency-key"), "{}", said.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_asks_for_the_request_elsewhere_or_with_other_credentials_gets_it_under_the_same_key() {
    for status in ["307", "308", "401", "403", "407", "421", "425"] {
        let service = Service::default();
        let proxy = proxy(layer(), service.start().await).await;
        let order = |path: &str, body: &str| Call::post(path, body).header("idempotency-key", "k");
        let refused = send_call(proxy, &order("/refunds", status)).await;
        assert_eq!((refused.status.as_str(), refused.header("idempotency-effect")), (status, Some("none")));
        let done = send_call(proxy, &order("/orders", "book").header("authorization", "Bearer b")).await;
        assert_eq!((done.status.as_u16(), done.is_replay()), (201, false), "{status}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_without_an_end_is_one_all_the_same_and_its_body_s_end_does_not_matter() {
    let (service, seen) = says("HTTP/1.0 401 Unauthorized\r\n\r\nsign in").await;
    let proxy = proxy(layer(), service).await;
    for runs in 1..=2 {
        assert_eq!(send(proxy, "k", "book").await.status.as_u16(), 401);
        assert_eq!(seen.load(Ordering::SeqCst), runs);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_layer_of_the_service_s_own_refuses_means_here_what_it_means_there() {
    // What the service says, and the proxy under `Refuse` and `Rerun`. A retry is of no use here if it is of none
    // there.
    for (says_there, refuse, rerun) in [
        ("none", "none", "none"),
        ("none;retry", "none;retry", "none;retry"),
        ("none;retry=?0", "none;retry=?0", "none;retry=?0"),
        ("pending;retry", "unknown;retry=?0", "unknown;retry"),
        ("unknown; retry=?0", "unknown;retry=?0", "unknown;retry=?0"),
        ("unknown;retry", "unknown;retry=?0", "unknown;retry"),
        ("unknown;retry=?0", "unknown;retry=?0", "unknown;retry=?0"),
        ("done;status=201;retry=?0", "unknown;retry=?0", "unknown;retry=?0"),
    ] {
        for status in ["503 Busy", "409 Conflict", "422 Reused", "400 Bad Request"] {
            for (policy, expected) in [(OnInterrupted::Refuse, refuse), (OnInterrupted::Rerun, rerun)] {
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: 0\r\nidempotent-replayed: true\r\nidempotency-effect: {says_there}\r\n\r\n"
                );
                let (service, seen) = says(head.clone().leak()).await;
                let proxy = proxy(layer().on_interrupted(policy), service).await;
                let first = send(proxy, "k", "book").await;
                assert_eq!(first.header("idempotency-effect"), Some(expected), "{policy:?} {head}");
                assert!(!first.is_replay(), "what the service has replayed is final for it alone: {policy:?} {head}");
                let (is_free, retry) = (says_there.starts_with("none"), send(proxy, "k", "book").await.problem());
                let is_refused = !is_free && policy == OnInterrupted::Refuse;
                assert_eq!(retry, if is_refused { "outcome-unknown" } else { "" }, "{policy:?} {head}");
                assert_eq!(seen.load(Ordering::SeqCst), if is_refused { 1 } else { 2 }, "{policy:?} {head}");
            }
        }
    }
}
