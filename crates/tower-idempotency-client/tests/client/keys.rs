//! Whose key a call has, and what it was used for.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, Method, Request};
use http_body::{Body, Frame};
use http_body_util::{Either, Full};
use retry_policies::policies::ExponentialBackoff;
use tower_idempotency_client::{Delivery, InvalidKey, Key, KeyedRetryLayer, Known, Reason, RetryBody, SentOnce};

use crate::script::{Script, post};

fn keyed(key: &str, body: &'static str) -> Request<Full<Bytes>> {
    let mut request = post(body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_key_is_sent_in_the_form_that_the_api_expects() {
    for written in ["order-17", "\"order-17\"", " order-17\t", " \"order-17\" "] {
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
async fn a_call_has_one_key_wherever_it_comes_from() {
    for places in 0..8 {
        let [in_header, in_extension, is_chosen] = [1, 2, 4].map(|place| places & place != 0);
        let mut request = if in_header { keyed("of-header", "") } else { post("") };
        if in_extension {
            request.extensions_mut().insert(Key::new("of-extension").unwrap());
        }
        let layer = KeyedRetryLayer::new();
        let layer = if is_chosen { layer.keys(|_| Key::new("chosen")) } else { layer };
        let script = Script::default().answers(200, &[], "");
        let sent = script.call(&layer, request).await.map(|_| script.keys().remove(0));
        match (in_header, in_extension, is_chosen) {
            // Two of the caller's are one too many.
            (true, true, _) => assert_eq!(sent.unwrap_err().reason(), Reason::InvalidKey),
            (true, false, _) => assert_eq!(sent.unwrap(), "of-header"),
            (false, true, _) => assert_eq!(sent.unwrap(), "of-extension"),
            (false, false, true) => assert_eq!(sent.unwrap(), "chosen"),
            (false, false, false) => assert_eq!(sent.unwrap().len(), 36),
        }
    }
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
    let latin = http::HeaderValue::from_bytes(b"caf\xe9").unwrap();
    assert!(matches!(Key::try_from(&latin), Err(InvalidKey::Character { at: 3, .. })), "where it is wrong");
    let mut request = keyed("one", "");
    request.headers_mut().append("idempotency-key", "one".parse().unwrap());
    let error = Script::default().call(&KeyedRetryLayer::new(), request).await.unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidKey);
    assert_eq!(Key::new(""), Err(InvalidKey::Empty));
    assert_eq!(Key::new("a".repeat(255)).unwrap().as_str().len(), 255);
    assert!(matches!(Key::new("a".repeat(256)), Err(InvalidKey::TooLong { length: 256, .. })));
}

/// The request with a change to it. If the change is one of server or account, the body is another one, too.
fn changed(change: &str) -> Request<Full<Bytes>> {
    let has_same_body = ["nothing", "path", "query", "method", "content-type", "x-trace"].contains(&change);
    let mut request = keyed("order-17", if has_same_body { "amount=5" } else { "amount=6" });
    match change {
        "path" => *request.uri_mut() = "http://api.example.com/refunds".parse().unwrap(),
        "query" => *request.uri_mut() = "http://api.example.com/charges?a=1".parse().unwrap(),
        "scheme" => *request.uri_mut() = "https://api.example.com/charges".parse().unwrap(),
        "server" => *request.uri_mut() = "http://other.example.com/charges".parse().unwrap(),
        "method" => *request.method_mut() = Method::PUT,
        "quotes" => _ = request.headers_mut().insert("idempotency-key", "\"order-17\"".parse().unwrap()),
        "nothing" | "body" => {}
        header => _ = request.headers_mut().insert(HeaderName::try_from(header).unwrap(), "2".parse().unwrap()),
    }
    request
}

#[tokio::test(start_paused = true)]
async fn a_key_is_for_one_request_to_one_server_by_one_account() {
    for (change, is_reused, is_reused_by_a_stream) in [
        ("nothing", false, false),
        // What can't be read before it is sent is not compared.
        ("body", true, false),
        ("quotes", true, false),
        ("path", true, true),
        ("query", true, true),
        ("method", true, true),
        ("content-type", true, true),
        ("x-trace", false, false),
        ("scheme", false, false),
        ("server", false, false),
        ("host", false, false),
        ("authorization", false, false),
        ("cookie", false, false),
        ("x-api-key", false, false),
        ("stripe-account", false, false),
    ] {
        for (is_stream, is_reused) in [(false, is_reused), (true, is_reused_by_a_stream)] {
            let layer = KeyedRetryLayer::new();
            Script::default().answers(200, &[], "").call(&layer, changed("nothing")).await.unwrap();
            let script = Script::default().answers(200, &[], "");
            let result = match is_stream {
                true => script.call(&layer, changed(change).map(SentOnce::new)).await,
                false => script.call(&layer, changed(change)).await,
            };
            let found = result.err().map(|error| (error.known(), error.reason(), error.attempts()));
            let expected = is_reused.then_some((Known::NotSent, Reason::KeyReused, 0));
            assert_eq!(found, expected, "another {change}, a stream: {is_stream}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_which_nothing_has_come_is_free_for_a_corrected_request() {
    let once = || ExponentialBackoff::builder().build_with_max_retries(1);
    let script = |result| match result {
        "200" => Script::default().answers(200, &[], ""),
        "400" => Script::default().answers(400, &[], ""),
        "500" => Script::default().answers(500, &[], ""),
        "402 replayed" => Script::default().answers(402, &[("idempotent-replayed", "true")], ""),
        "lost, 401" => Script::default().fails("reset").answers(401, &[], ""),
        "lost, lost" => Script::default().fails("reset").fails("reset"),
        "ended" => Script::default().answers(409, &[("idempotency-effect", "done;status=402;retry=?0")], ""),
        "refused" => Script::default().problem(413, "body-too-large", false),
        // The server may know the key from an earlier attempt, of another process.
        "reused" => Script::default().problem(422, "key-reused", false),
        _ => Script::default().problem(409, "outcome-unknown", false),
    };
    for (result, is_free) in [
        ("200", false),
        ("400", true),
        // A server's error may come after the effect, and so may a 401 after an attempt that was lost.
        ("500", false),
        ("402 replayed", false),
        ("lost, 401", false),
        ("lost, lost", false),
        ("ended", true),
        ("refused", true),
        ("reused", false),
        ("unknown", false),
    ] {
        // What an earlier call has done is not undone by one that is refused.
        for (is_first, is_own) in [(true, true), (false, true), (true, false)] {
            let layer = KeyedRetryLayer::new().backoff(once());
            if !is_first {
                script("200").call(&layer, keyed("order-17", "amount=5")).await.unwrap();
            }
            let request = if is_own { keyed("order-17", "amount=5") } else { post("amount=5") };
            let key = match script(result).call(&layer, request).await {
                Ok(answer) => Delivery::of(&answer).unwrap().key().clone(),
                Err(error) => error.key().unwrap().clone(),
            };
            // A call with a key of the layer's own that has succeeded is not made again.
            let is_free = is_first && (is_free || !is_own && result == "200");
            let other = script("200").call(&layer, keyed(key.as_str(), "amount=6")).await;
            let reason = other.err().map(|error| error.reason());
            let name = format!("{result}, the first call: {is_first}, the caller's key: {is_own}");
            assert_eq!(reason, (!is_free).then_some(Reason::KeyReused), "{name}");
        }
    }
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

/// A body whose clones are numbered, and whose calls are compared without the number.
struct Numbered(u8, Full<Bytes>);

impl Numbered {
    fn new(what: u8, number: u32) -> Self {
        Self(what, Full::from(format!("{number}:{what}")))
    }
}

static NUMBERS: AtomicU32 = AtomicU32::new(1);

impl RetryBody for Numbered {
    fn try_clone(&self) -> Option<Self> {
        Some(Self::new(self.0, NUMBERS.fetch_add(1, Ordering::Relaxed)))
    }

    fn compared(&self) -> Option<Self> {
        Some(Self::new(self.0, 0))
    }
}

impl Body for Numbered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.1).poll_frame(cx)
    }
}

// Such as the `id` of a JSON-RPC call. Seeded fault: a second call with the key is another request.
#[tokio::test(start_paused = true)]
async fn each_attempt_may_have_a_body_of_its_own_and_a_key_is_for_one_call_all_the_same() {
    let layer = KeyedRetryLayer::new();
    let script = Script::default().answers(503, &[], "").answers(500, &[], "").answers(200, &[], "");
    let call = async |what| {
        let request = Request::post("http://api.example/").extension(Key::new("order-17").unwrap());
        script.call(&layer, request.body(either(what)).unwrap()).await
    };
    call(7).await.unwrap();
    call(7).await.unwrap();
    assert_eq!(call(8).await.unwrap_err().reason(), Reason::KeyReused);
    let mut sent: Vec<_> = script.sent().iter().map(|request| request.body().clone()).collect();
    assert!(sent.iter().all(|body| body.ends_with(b":7")), "{sent:?}");
    sent.dedup();
    assert_eq!(sent.len(), 3, "{sent:?}");
}

/// So it is where a client has bodies of two kinds.
fn either(what: u8) -> Either<Numbered, Full<Bytes>> {
    Either::Left(Numbered::new(what, 0))
}
