//! The meaning of "the same request": the parts that make no difference, those that the application adds, and those
//! that are never compared.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Version};
use testkit::lab::{Lab, keyed, layer, post};
use tower_idempotency::{FingerprintBody, IdempotencyLayer, MemoryStore};

const ACCOUNT: HeaderName = HeaderName::from_static("stripe-account");
const STORE: HeaderName = HeaderName::from_static("x-store-id");

fn canonical() -> IdempotencyLayer<MemoryStore> {
    layer().fingerprint_body(FingerprintBody::CanonicalJson)
}

/// A charge with this content type and body.
fn typed(content_type: &str, body: &str) -> Request<Body> {
    keyed("POST", "/charges", "k").header("content-type", content_type).body(Body::from(body.to_owned())).unwrap()
}

/// The answer to the second of two requests: `replayed`, or the refusal's name.
async fn second(layer: IdempotencyLayer<MemoryStore>, requests: [Request<Body>; 2]) -> String {
    let lab = Lab::counting(layer);
    let [first, second] = requests;
    assert_eq!(lab.send(first).await.text(), "effect 1");
    let answer = lab.send(second).await;
    assert_eq!(lab.effects(), 1);
    if answer.is_replay() { "replayed".to_owned() } else { answer.problem() }
}

#[tokio::test]
async fn trap_89_a_content_type_written_otherwise_is_the_same() {
    let same = [
        ("application/json", "application/json; charset=utf-8"),
        ("application/json;charset=UTF-8", "Application/JSON"),
        ("application/json", "application/json;CHARSET=\"UTF-8\""),
        ("application/json", "application/json; "),
        ("application/vnd.api+json", "application/vnd.api+json;charset=utf-8"),
        ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded;charset=utf-8"),
        ("text/plain; charset=utf-8; format=flowed", "text/plain;Format=\"Flowed\" ; Charset=UTF-8"),
        ("multipart/form-data; boundary=AbC", "multipart/form-data; charset=utf-8; Boundary=\"AbC\""),
    ];
    for (one, other) in same {
        assert_eq!(second(layer(), [typed(one, "a"), typed(other, "a")]).await, "replayed", "{one} {other}");
    }
    let others = [
        ("application/json", "application/json; charset=utf-16"),
        ("application/json", "text/plain"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("text/plain; a=1; a=2", "text/plain; a=2; a=1"),
        ("application/json; version=1", "application/json; version=2"),
        ("multipart/form-data; boundary=a", "multipart/form-data; boundary=A"),
        ("text/plain; a=\"b; c=d\"", "text/plain; a=b; c=d"),
        ("text/plain; a=\"\\\"\"", "text/plain; a=\"\\\\\""),
    ];
    for (one, other) in others {
        assert_eq!(second(layer(), [typed(one, "a"), typed(other, "a")]).await, "key-reused", "{one} {other}");
    }
}

/// A form as a browser sends it.
fn form(boundary: &str, amount: &str) -> Request<Body> {
    let body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"amount\"\r\n\r\n{amount}\r\n--{boundary}\r\n\
         Content-Disposition: form-data; name=\"receipt\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nfile\r\n\
         --{boundary}--\r\n"
    );
    typed(&format!("multipart/form-data; boundary={boundary}"), &body)
}

#[tokio::test]
async fn trap_89_a_form_with_another_boundary_is_the_same_and_with_another_part_it_is_not() {
    for layer in [layer, canonical] {
        let forms = [form("----WebKitFormBoundaryA", "10"), form("----WebKitFormBoundaryB", "10")];
        assert_eq!(second(layer(), forms).await, "replayed");
        assert_eq!(second(layer(), [form("A", "10"), form("A", "1000")]).await, "key-reused");
        assert_eq!(second(layer(), [form("A", "10"), form("B", "1000")]).await, "key-reused");
        // The body has another boundary: it is no form.
        let strange =
            |boundary| typed(&format!("multipart/form-data; boundary={boundary}"), "--A\r\n\r\n10\r\n--A--\r\n");
        assert_eq!(second(layer(), [strange("A"), strange("B")]).await, "key-reused");
        assert_eq!(second(layer(), [strange("B"), strange("B")]).await, "replayed");
        assert_eq!(second(layer(), [strange("B"), strange("C")]).await, "key-reused");
    }
}

#[tokio::test]
async fn trap_89_a_header_that_selects_whose_data_is_part_of_the_request_where_the_application_says_so() {
    let of = |account: Option<&str>| {
        let request = keyed("POST", "/charges", "k").header("authorization", "Bearer platform");
        let request = match account {
            Some(account) => request.header(ACCOUNT, account),
            None => request,
        };
        request.body(Body::from("a")).unwrap()
    };
    let adding = || layer().fingerprint_headers([STORE, ACCOUNT]);
    assert_eq!(second(adding(), [of(Some("acct_a")), of(Some("acct_a"))]).await, "replayed");
    assert_eq!(second(adding(), [of(Some("acct_a")), of(Some("acct_b"))]).await, "key-reused");
    assert_eq!(second(adding(), [of(Some("acct_a")), of(None)]).await, "key-reused");
    assert_eq!(second(adding(), [of(None), of(Some(""))]).await, "key-reused");
    assert_eq!(second(layer(), [of(Some("acct_a")), of(Some("acct_b"))]).await, "replayed", "not unless it is said");
}

#[tokio::test]
async fn the_values_of_two_headers_are_not_taken_for_one_another_s() {
    let of = |name: HeaderName| keyed("POST", "/charges", "k").header(name, "x").body(Body::from("a")).unwrap();
    let adding = layer().fingerprint_headers([STORE, ACCOUNT]);
    assert_eq!(second(adding, [of(STORE), of(ACCOUNT)]).await, "key-reused");
}

#[tokio::test]
async fn trap_30_json_is_compared_by_its_canonical_form_where_the_application_says_so() {
    let json = |body| typed("application/json", body);
    let one = r#"{"amount":10.50,"to":{"iban":"DE1","name":"Zoë"}}"#;
    let other = "{ \"to\": {\"name\": \"Zo\\u00eb\", \"iban\": \"DE1\"},\n \"amount\": 1.05e1 }";
    assert_eq!(second(canonical(), [json(one), json(other)]).await, "replayed");
    assert_eq!(second(layer(), [json(one), json(other)]).await, "key-reused", "not unless it is said");
    let api = |body| typed("application/vnd.bank+json; charset=utf-8", body);
    assert_eq!(second(canonical(), [api(one), api(other)]).await, "replayed");
    for (one, other) in [
        (r#"{"amount":10}"#, r#"{"amount":100}"#),
        (r#"{"amount":10}"#, r#"{"amount":"10"}"#),
        // A body that JSON with doubles can't represent exactly is compared by its bytes.
        (r#"{"amount":1,"amount":2}"#, r#"{"amount":2}"#),
        (r#"{"amount":1,"amount":2}"#, r#"{"amount":1, "amount":2}"#),
        (r#"{"id":9007199254740993}"#, r#"{"id":9007199254740992}"#),
        (r#"{"id":9007199254740993}"#, r#"{"id": 9007199254740993}"#),
        ("{\"a\":1", "{ \"a\":1"),
    ] {
        assert_eq!(second(canonical(), [json(one), json(other)]).await, "key-reused", "{one} {other}");
        assert_eq!(second(canonical(), [json(one), json(one)]).await, "replayed", "{one}");
    }
    // Not JSON by its type.
    let text = |body| typed("text/plain", body);
    assert_eq!(second(canonical(), [text("1.0"), text("1")]).await, "key-reused");
}

/// Compares the first number in a text.
fn first_number(version: &str) -> IdempotencyLayer<MemoryStore> {
    layer().fingerprint_body(FingerprintBody::custom(version, |parts, body| {
        assert!(parts.headers.contains_key("idempotency-key"));
        let number = body.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
        Bytes::from_iter(number.copied())
    }))
}

#[tokio::test]
async fn the_application_can_compare_by_a_function_of_its_own() {
    let text = |body| typed("text/plain", body);
    assert_eq!(second(first_number("1"), [text("pay 10 euros"), text("please pay 10")]).await, "replayed");
    assert_eq!(second(first_number("1"), [text("pay 10 euros"), text("pay 100 euros")]).await, "key-reused");
    assert_eq!(
        second(first_number("1"), [form("A", "10"), form("B", "10")]).await,
        "replayed",
        "its boundary is not asked"
    );
}

#[tokio::test]
async fn what_the_application_s_function_does_not_compare_is_compared_byte_for_byte_and_forms_without_their_boundary() {
    let only_json = || {
        layer().fingerprint_body(FingerprintBody::custom("1", |parts, _| {
            let is_json = parts.headers.get("content-type").is_some_and(|value| value == "application/json");
            is_json.then(|| Bytes::from("all alike"))
        }))
    };
    let (json, text) = (|body| typed("application/json", body), |body| typed("text/plain", body));
    assert_eq!(second(only_json(), [json("1"), json("2")]).await, "replayed");
    assert_eq!(second(only_json(), [text("1"), text("1")]).await, "replayed");
    assert_eq!(second(only_json(), [text("1"), text("2")]).await, "key-reused");
    assert_eq!(second(only_json(), [form("A", "10"), form("B", "10")]).await, "replayed");
    assert_eq!(second(only_json(), [form("A", "10"), form("B", "20")]).await, "key-reused");
}

#[tokio::test]
async fn trap_79_options_that_change_never_compare_what_can_not_be_compared() {
    let store = MemoryStore::new();
    let plain = || IdempotencyLayer::new(store.clone());
    let custom =
        |version: &'static str| plain().fingerprint_body(FingerprintBody::custom(version, |_, body| body.clone()));
    let options = [
        plain(),
        plain().fingerprint_headers([ACCOUNT]),
        plain().fingerprint_headers([ACCOUNT, STORE]),
        plain().fingerprint_body(FingerprintBody::CanonicalJson),
        plain().fingerprint_headers([ACCOUNT]).fingerprint_body(FingerprintBody::CanonicalJson),
        custom("1"),
        custom("2"),
    ];
    for (number, recorded) in options.iter().enumerate() {
        let key = format!("k{number}");
        assert!(!Lab::counting(recorded.clone()).post(&key, "a").await.is_replay());
        for (other, presented) in options.iter().enumerate() {
            let lab = Lab::counting(presented.clone());
            let answer = lab.post(&key, "a").await;
            assert_eq!((answer.is_replay(), lab.effects()), (number == other, 0), "{number} {other}");
            if number != other {
                answer.assert_refusal(409, "not-verifiable", false, None);
            }
        }
    }
    // These are the same options in another form.
    let turned = plain().fingerprint_body(FingerprintBody::Bytes).fingerprint_headers([STORE, ACCOUNT, STORE]);
    assert!(Lab::counting(turned).post("k2", "a").await.is_replay());
    let none = plain().fingerprint_headers([ACCOUNT]).fingerprint_headers([]);
    assert!(Lab::counting(none).post("k0", "a").await.is_replay());
}

#[tokio::test]
async fn cookies_that_http_2_has_split_are_the_same_cookies() {
    let cookies = |fields: &[&str]| {
        let request = keyed("POST", "/charges", "k").version(Version::HTTP_2);
        let request = fields.iter().fold(request, |request, field| request.header("cookie", *field));
        request.body(Body::from("a")).unwrap()
    };
    assert_eq!(second(layer(), [cookies(&["a=1; b=2"]), cookies(&["a=1", "b=2"])]).await, "replayed");
    assert_eq!(second(layer(), [cookies(&["a=1", "b=2", "c=3"]), cookies(&["a=1; b=2", "c=3"])]).await, "replayed");
    let named = || layer().fingerprint_headers([http::header::COOKIE]);
    assert_eq!(second(named(), [cookies(&["a=1; b=2"]), cookies(&["a=1", "b=2"])]).await, "replayed");
    for other in [&["a=1"][..], &["a=1", "b=3"], &[]] {
        assert_eq!(second(layer(), [cookies(&["a=1; b=2"]), cookies(other)]).await, "credentials-changed");
    }
}

#[tokio::test]
async fn a_host_is_compared_without_case_final_dot_and_default_port() {
    let to = |host: &str| {
        let mut request = post("k", "a");
        request.headers_mut().insert("host", host.parse().unwrap());
        request
    };
    for host in ["PAY.example", "pay.example.", "pay.example:443", "pay.example:80", "Pay.Example.:443", "pay.example:"]
    {
        assert_eq!(second(layer(), [to("pay.example"), to(host)]).await, "replayed", "{host}");
    }
    for host in ["pay.example:8443", "pay.example:0443", "shop.example", "example", "pay.example..evil"] {
        assert_eq!(second(layer(), [to("pay.example"), to(host)]).await, "key-reused", "{host}");
    }
    assert_eq!(second(layer(), [to("[::1]"), to("[::1]:443")]).await, "replayed");
    assert_eq!(second(layer(), [to("[2001:db8::443]"), to("[2001:db8:]")]).await, "key-reused");
    // Over HTTP/2 it is in the URI, with its scheme.
    let over_2 = |uri: &str| {
        let request = Request::post(uri).version(Version::HTTP_2).header("idempotency-key", "k");
        request.body(Body::from("a")).unwrap()
    };
    assert_eq!(second(layer(), [to("pay.example"), over_2("https://pay.example:443/charges")]).await, "replayed");
    assert_eq!(second(layer(), [to("pay.example"), over_2("https://pay.example:80/charges")]).await, "key-reused");
    assert_eq!(second(layer(), [to("pay.example"), over_2("http://pay.example:80/charges")]).await, "replayed");
    // It counts once if the request also has it in a header, and twice if the header has another one.
    let with_header = |host: &str| {
        let mut request = over_2("https://pay.example/charges");
        request.headers_mut().insert("host", host.parse().unwrap());
        request
    };
    assert_eq!(second(layer(), [to("pay.example"), with_header("Pay.Example")]).await, "replayed");
    assert_eq!(second(layer(), [to("pay.example"), with_header("shop.example")]).await, "key-reused");
}

#[tokio::test]
async fn trap_29_what_clients_change_between_two_tries_is_no_other_request() {
    let lab = Lab::counting(layer());
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
    let lab = Lab::counting(layer());
    lab.post("k", "a").await;
    let mut request = Request::post("https://Pay.Example/charges").header("idempotency-key", "k");
    request = request.version(Version::HTTP_2);
    assert!(lab.send(request.body(Body::from("a")).unwrap()).await.is_replay());
    let other = Request::post("https://other.example/charges").header("idempotency-key", "k");
    lab.send(other.body(Body::from("a")).unwrap()).await.assert_refusal(422, "key-reused", false, None);
}
