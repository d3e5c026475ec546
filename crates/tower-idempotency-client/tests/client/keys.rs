//! Whose key a call has, and what it was used for.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower_idempotency_client::{Delivery, InvalidKey, Key, KeyedRetryLayer, Known, Reason};

use crate::script::{Script, post};

fn keyed(key: &str, body: &'static str) -> Request<Full<Bytes>> {
    let mut request = post(body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_key_is_sent_in_the_form_that_the_api_expects() {
    for written in ["order-17", "\"order-17\""] {
        for (is_quoted, sent) in [(false, "order-17"), (true, "\"order-17\"")] {
            let script = Script::default().answers(503, &[], "").answers(200, &[], "");
            let answer = script.call(&KeyedRetryLayer::new().quoted(is_quoted), keyed(written, "")).await.unwrap();
            assert_eq!(script.keys(), [sent, sent]);
            assert_eq!(Delivery::of(&answer).unwrap().key().as_str(), "order-17");
            assert!(!format!("{:?}", script.sent()[0].headers()).contains("order-17"), "a log has the key");
        }
    }
    let script = Script::default().answers(503, &[], "").answers(200, &[], "");
    let mut request = post("");
    request.extensions_mut().insert(Key::new("order-17").unwrap());
    script.call(&KeyedRetryLayer::new().quoted(true), request).await.unwrap();
    assert_eq!(script.keys(), ["\"order-17\"", "\"order-17\""]);
}

#[tokio::test(start_paused = true)]
async fn a_function_chooses_one_key_for_all_attempts() {
    #[derive(Clone)]
    struct Order(u64);
    let layer = KeyedRetryLayer::new().keys(|extensions| match extensions.get::<Order>() {
        Some(Order(id)) => Key::new(format!("order-{id}")),
        None => Ok(Key::random()),
    });
    let script = Script::default().answers(503, &[], "").answers(200, &[], "");
    let mut request = post("");
    request.extensions_mut().insert(Order(17));
    script.call(&layer, request).await.unwrap();
    assert_eq!(script.keys(), ["order-17", "order-17"]);
    let error = Script::default().call(&KeyedRetryLayer::new().keys(|_| Key::new("")), post("")).await.unwrap_err();
    assert_eq!((error.known(), error.reason()), (Known::NotSent, Reason::InvalidKey));
}

#[tokio::test(start_paused = true)]
async fn the_header_of_the_key_may_have_another_name() {
    let layer = KeyedRetryLayer::new().header_name(http::HeaderName::from_static("x-request-key"));
    let script = Script::default().answers(200, &[], "");
    let mut request = post("");
    request.headers_mut().insert("x-request-key", "order-17".parse().unwrap());
    let answer = script.call(&layer, request).await.unwrap();
    assert_eq!(Delivery::of(&answer).unwrap().key().as_str(), "order-17");
    assert!(!script.sent()[0].headers().contains_key("idempotency-key"));
}

#[tokio::test(start_paused = true)]
async fn the_last_ten_thousand_keys_are_remembered() {
    let layer = KeyedRetryLayer::new();
    for number in 0..10_001 {
        let script = Script::default().answers(200, &[], "");
        script.call(&layer, keyed(&format!("order-{number}"), "amount=5")).await.unwrap();
    }
    for number in [1, 5_000, 10_000] {
        let error = Script::default().call(&layer, keyed(&format!("order-{number}"), "amount=6")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::KeyReused, "{number}");
    }
    Script::default().answers(200, &[], "").call(&layer, keyed("order-0", "amount=6")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_none_is_not_sent() {
    for key in ["", "two words", "a,b", "\"open", "caf\u{e9}"] {
        let mut request = post("");
        let value = http::HeaderValue::from_bytes(key.as_bytes()).unwrap();
        request.headers_mut().insert("idempotency-key", value);
        let error = Script::default().call(&KeyedRetryLayer::new(), request).await.unwrap_err();
        assert_eq!((error.known(), error.reason()), (Known::NotSent, Reason::InvalidKey), "{key}");
    }
    let mut request = keyed("one", "");
    request.headers_mut().append("idempotency-key", "one".parse().unwrap());
    let error = Script::default().call(&KeyedRetryLayer::new(), request).await.unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidKey);
    assert_eq!(Key::new("a".repeat(255)).unwrap().as_str().len(), 255);
    assert!(matches!(Key::new("a".repeat(256)), Err(InvalidKey::TooLong { length: 256, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_used_for_another_request_is_not_sent() {
    let layer = KeyedRetryLayer::new();
    let first = Script::default().answers(200, &[], "").answers(200, &[], "");
    first.call(&layer, keyed("order-17", "amount=5")).await.unwrap();
    first.call(&layer, keyed("order-17", "amount=5")).await.unwrap();
    let mut others =
        vec![keyed("order-17", "amount=6"), keyed("\"order-17\"", "amount=6"), keyed("order-17", "amount=5")];
    *others[2].uri_mut() = "http://api.example.com/refunds".parse().unwrap();
    for other in others {
        let error = Script::default().call(&layer, other).await.unwrap_err();
        assert_eq!((error.known(), error.reason(), error.attempts()), (Known::NotSent, Reason::KeyReused, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_another_one_for_another_account_and_another_server() {
    let layer = KeyedRetryLayer::new();
    let script = Script::default().answers(200, &[], "").answers(200, &[], "").answers(200, &[], "");
    script.call(&layer, keyed("order-17", "amount=5")).await.unwrap();
    let mut account = keyed("order-17", "amount=6");
    account.headers_mut().insert("authorization", "Bearer 2".parse().unwrap());
    script.call(&layer, account).await.unwrap();
    let mut server = keyed("order-17", "amount=6");
    *server.uri_mut() = "http://other.example.com/charges".parse().unwrap();
    script.call(&layer, server).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_of_which_nothing_has_come_is_free_for_a_corrected_request() {
    let layer = KeyedRetryLayer::new();
    let script = Script::default().answers(400, &[], "").answers(200, &[], "");
    script.call(&layer, keyed("order-17", "amount=-5")).await.unwrap();
    script.call(&layer, keyed("order-17", "amount=5")).await.unwrap();
    // What an earlier call has done is not undone by one that is refused.
    let script = Script::default().answers(200, &[], "").answers(401, &[], "");
    script.call(&layer, keyed("order-16", "amount=5")).await.unwrap();
    script.call(&layer, keyed("order-16", "amount=5")).await.unwrap();
    let error = Script::default().call(&layer, keyed("order-16", "amount=6")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::KeyReused);
    // A server's error may come after the effect, and so may a 401 after an attempt that was lost.
    for (number, script) in
        [Script::default().answers(500, &[], ""), Script::default().fails("reset").answers(401, &[], "")]
            .into_iter()
            .enumerate()
    {
        let key = format!("order-2{number}");
        script.call(&layer, keyed(&key, "amount=5")).await.unwrap();
        let error = Script::default().call(&layer, keyed(&key, "amount=6")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::KeyReused, "{key}");
    }
    // Where it is not known what has come of it, it is not free.
    let script = Script::default().problem(409, "outcome-unknown", false);
    script.call(&layer, keyed("order-18", "amount=5")).await.unwrap_err();
    let error = Script::default().call(&layer, keyed("order-18", "amount=6")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::KeyReused);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_an_error_gives_back_is_for_the_same_request() {
    let layer = KeyedRetryLayer::new();
    let error = Script::default().problem(409, "outcome-unknown", false).post(&layer).await.unwrap_err();
    let key = error.key().unwrap().as_str();
    let other = Script::default().call(&layer, keyed(key, "amount=6")).await.unwrap_err();
    assert_eq!((other.known(), other.reason()), (Known::NotSent, Reason::KeyReused));
    let again = Script::default().answers(200, &[("idempotent-replayed", "true")], "");
    assert!(Delivery::of(&again.call(&layer, keyed(key, "amount=5")).await.unwrap()).unwrap().is_replay());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_succeeded_keeps_its_key_though_another_one_gave_it_back() {
    let layer = KeyedRetryLayer::new();
    let first = Script::default().answers(429, &[("retry-after", "1")], "").answers(400, &[], "");
    let second = Script::default().answers(429, &[("retry-after", "5")], "").answers(200, &[], "");
    let calls = (first.call(&layer, keyed("order-17", "1")), second.call(&layer, keyed("order-17", "1")));
    let (first, second) = tokio::join!(calls.0, calls.1);
    assert_eq!((first.unwrap().status().as_u16(), second.unwrap().status().as_u16()), (400, 200));
    let error = Script::default().call(&layer, keyed("order-17", "2")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::KeyReused);
}
