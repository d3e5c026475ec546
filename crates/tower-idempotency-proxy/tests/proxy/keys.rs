//! Covered requests: claimed, sent on with a key of their own, recorded and replayed.

use http::HeaderName;
use testkit::Call;
use tower_idempotency::Scope;
use tower_idempotency_proxy::Upstream;

use crate::service::{Service, layer, proxied, proxy, send, send_call};

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
async fn the_derived_key_is_in_the_header_that_the_layer_reads() {
    let service = Service::default();
    let address = service.start().await;
    let name = HeaderName::from_static("x-request-key");
    let upstream = Upstream::new(format!("http://{address}").parse().unwrap()).unwrap().key_header(name.clone());
    let proxy = proxied(layer().header_name(name), upstream).await;
    let said = send_call(proxy, &Call::post("/heads", "a").header("x-request-key", "client-s")).await;
    assert!(said.text().contains("x-request-key: ") && !said.text().contains("client-s"), "{}", said.text());
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
