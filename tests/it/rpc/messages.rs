//! Which messages have keys, and where.

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use http::Request;
use testkit::lab::{Lab, layer};
use tower_idempotency::server::{KeyFrom, Profile};
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, MemoryStore, Rejection, Scope};

use super::{META, assert_error, call, json, mcp, message, pay, result, with};

/// A service that answers with what it got, and whether that has a key.
fn echoing(layer: IdempotencyLayer<MemoryStore>) -> Lab {
    let echo = |request: Request<Body>| async move {
        let has_key = request.extensions().get::<IdempotencyContext>().is_some();
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
        format!("{has_key} {}", String::from_utf8(body.to_vec()).unwrap())
    };
    Lab::of(Router::new().fallback(any(echo)).layer(layer))
}

const UNCOVERED: [&str; 9] = [
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"_meta":{"idempotencyKey":"k"}}}"#,
    r#" {"method":"tools/list" , "jsonrpc":"2.0","id":2.0}"#,
    r#"{"jsonrpc":"2.0","id":3,"method":"TOOLS/CALL","params":{}}"#,
    r#"{"jsonrpc":"2.0","id":4,"method":"x/tools/call"}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
    r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a notification"}}"#,
    r#"{"jsonrpc":"2.0","id":5,"result":{"roots":[]}}"#,
    r#"{"jsonrpc":"2.0","id":6,"error":{"code":-1,"message":"declined"}}"#,
    r#"{"jsonrpc":"2.0","id":7,"method":null}"#,
];

#[tokio::test]
async fn other_messages_pass_untouched_with_a_key_or_without_one() {
    for lab in [echoing(mcp()), echoing(mcp().require_key(true))] {
        for body in UNCOVERED {
            for request in [message(body), with(message(body), "idempotency-key", "k")] {
                for _ in 0..2 {
                    let mut again = Request::post("/mcp");
                    *again.headers_mut().unwrap() = request.headers().clone();
                    let answer = lab.send(again.body(body.into()).unwrap()).await;
                    assert_eq!((answer.text(), answer.is_replay()), (&*format!("false {body}"), false));
                }
            }
        }
    }
}

// A server of tools may issue tokens, which clients ask for by forms.
#[tokio::test]
async fn a_request_that_is_no_json_is_passed_on() {
    let lab = echoing(mcp().require_key(true));
    for kind in [Some("application/x-www-form-urlencoded"), Some("text/plain"), None] {
        let request =
            kind.into_iter().fold(Request::post("/token"), |request, kind| request.header("content-type", kind));
        assert_eq!(lab.send(request.body(Body::from("grant_type=x")).unwrap()).await.text(), "false grant_type=x");
    }
}

// By its status, a client learns that it needs another token.
#[tokio::test]
async fn a_refusal_for_want_of_credentials_keeps_its_status() {
    for status in [401, 403] {
        let layer = mcp().scope(move |_: &http::request::Parts| {
            Err::<Scope, _>(Rejection::from(http::StatusCode::from_u16(status).unwrap()))
        });
        let refused = echoing(layer).send(pay("7")).await;
        assert_eq!((refused.status.as_u16(), refused.json()["id"].as_u64()), (status, Some(7)));
    }
}

// Seen: a client that ended its session by DELETE was refused for its body.
#[tokio::test]
async fn a_session_ends_also_where_calls_need_keys() {
    for lab in [echoing(mcp()), echoing(mcp().require_key(true))] {
        let end = Request::delete("/mcp").header("mcp-session-id", "s").body(Body::empty()).unwrap();
        assert_eq!(lab.send(end).await.text(), "false ");
    }
}

#[tokio::test]
async fn a_call_of_a_tool_has_its_key_however_its_method_is_written() {
    let escaped = r#"{"jsonrpc":"2.0","id":1,"m\u0065thod":"tools\/call","params":{"_meta":{"idempotencyKey":"k"}}}"#;
    let lab = echoing(mcp());
    assert_eq!(lab.send(message(escaped)).await.text(), format!("true {escaped}"));
    assert!(lab.send(message(escaped)).await.is_replay());
}

#[tokio::test]
async fn a_call_without_a_key_is_refused_with_its_id_where_one_is_required() {
    let lab = echoing(mcp().require_key(true));
    for (id, params) in [("1", r#""arguments":{}"#), ("\"a\"", r#""_meta":{"idempotencyKey":null}"#)] {
        let refused = lab.send(call(id, params)).await;
        let data = assert_error(&refused, id, -32602, "key-missing", "none;retry=?0");
        assert_eq!(data["status"], 400);
        let said = refused.json()["error"]["message"].to_string();
        assert!(said.contains("/params/_meta/idempotencyKey"), "{said}");
    }
    let wrong = lab.send(call("2", r#""_meta":{"idempotencyKey":7}"#)).await;
    assert_error(&wrong, "2", -32602, "key-malformed", "none;retry=?0");
    // Without that option, it is passed on.
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#;
    assert_eq!(echoing(mcp()).send(message(body)).await.text(), format!("false {body}"));
}

#[tokio::test]
async fn what_is_no_message_is_refused_with_a_key_or_without_one() {
    let lab = echoing(mcp());
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"idempotencyKey":"k"}}}]"#;
    for (body, word) in [
        (batch, "batch"),
        ("[]", "batch"),
        ("", "JSON-RPC"),
        ("7", "JSON-RPC"),
        ("null", "JSON-RPC"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call""#, "JSON"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} {}"#, "JSON"),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "JSON-RPC"),
        // Another program may read the other one.
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#, "once"),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/call"}"#, "once"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}"#, "once"),
    ] {
        for request in [message(body), with(message(body), "idempotency-key", "k")] {
            let refused = lab.send(request).await;
            assert_eq!(refused.status, 400, "{body}: {}", refused.text());
            let error = &refused.json()["error"];
            assert_eq!((&error["code"], refused.json()["id"].is_null()), (&(-32602).into(), true), "{body}");
            assert!(error["message"].as_str().unwrap().contains(word), "{body}: {error}");
            assert_eq!(super::effect(&refused), "none;retry=?0");
        }
    }
    let zipped = with(pay("1"), "content-encoding", "gzip");
    let refused = lab.send(zipped).await;
    assert!(refused.text().contains("Content-Encoding"), "{}", refused.text());
}

#[tokio::test]
async fn parameters_with_a_key_twice_are_refused_with_the_id_of_the_call() {
    for params in [
        r#""_meta":{"idempotencyKey":"a","idempotencyKey":"b"}"#,
        r#""_meta":{"idempotencyKey":"a"},"_meta":{}"#,
        r#""idempotencyKey":"\ud800""#,
    ] {
        let refused = echoing(mcp()).send(call("8", params)).await;
        assert_eq!(refused.status, 200, "{params}: {}", refused.text());
        assert_error(&refused, "8", -32602, "key-malformed", "none;retry=?0");
    }
}

/// The places of keys that protocols name.
const PLACES: [&str; 7] = [
    r#""_meta":{"idempotencyKey":KEY},"arguments":{}"#,
    r#""_meta":{"idempotency_key":KEY},"arguments":{}"#,
    r#""_meta":{"idempotency-key":KEY},"arguments":{}"#,
    r#""idempotencyKey":KEY,"arguments":{}"#,
    r#""arguments":{"meta":{"idempotency_key":KEY}}"#,
    r#""arguments":{"meta":{"idempotency-key":KEY}}"#,
    r#""arguments":{"idempotency_key":KEY}"#,
];

fn keyed(place: &str, key: &str) -> String {
    place.replace("KEY", &format!("\"{key}\""))
}

#[tokio::test]
async fn a_key_is_found_in_each_place_that_a_protocol_names() {
    for place in PLACES {
        let lab = Lab::new(mcp(), |number| async move { json(result("1", number)) });
        lab.send(call("1", &keyed(place, "k"))).await;
        let again = lab.send(call("2", &keyed(place, "k"))).await;
        assert_eq!((again.text(), again.is_replay()), (&*result("2", 1), true), "{place}");
        // The same key in the header, too, or alone.
        for params in [keyed(place, "k"), place.replace("KEY", "null")] {
            let again = lab.send(with(call("3", &params), "idempotency-key", "k")).await;
            assert_eq!((again.text(), again.is_replay()), (&*result("3", 1), true), "{params}");
        }
        let other = lab.send(call("1", &keyed(place, "other"))).await;
        assert_eq!((other.text(), lab.effects()), (&*result("1", 2), 2), "{place}");
    }
}

#[tokio::test]
async fn different_keys_in_two_places_are_refused_and_the_same_is_one() {
    let two = |one: &str, other: &str| {
        call("5", &format!(r#""_meta":{{"idempotencyKey":"{one}"}},"arguments":{{"idempotency_key":"{other}"}}"#))
    };
    let lab = Lab::new(mcp(), |number| async move { json(result("5", number)) });
    for request in [
        two("a", "b"),
        with(two("a", "b"), "idempotency-key", "a"),
        with(two("a", "a"), "idempotency-key", "b"),
        with(pay("5"), "idempotency-key", "b"),
    ] {
        let refused = lab.send(request).await;
        assert_error(&refused, "5", -32060, "key-reused", "unknown;retry=?0");
        let said = refused.json()["error"]["message"].to_string();
        assert!(said.contains("was not run"), "{said}");
    }
    assert_eq!(lab.effects(), 0);
    assert_eq!(lab.send(two("a", "a")).await.text(), result("5", 1));
    assert!(lab.send(with(two("a", "a"), "idempotency-key", "a")).await.is_replay());
}

#[tokio::test]
async fn a_place_of_the_application_s_own_replaces_those_of_the_profile() {
    let own = || KeyFrom::json_pointer("/params/arguments/order").unwrap();
    let params = r#""_meta":{"idempotencyKey":"a"},"arguments":{"order":"7"}"#;
    for layer in [mcp().key_from(own()), layer().key_from(own()).profile(Profile::mcp())] {
        let lab = Lab::new(layer, |number| async move { json(result("1", number)) });
        lab.send(call("1", params)).await;
        let again = lab.send(call("2", &params.replace("\"a\"", "\"b\""))).await;
        assert_eq!((again.text(), again.is_replay()), (&*result("2", 1), true));
    }
    // A profile that has none leaves none behind.
    let lab = echoing(mcp().profile(Profile::draft()));
    assert!(lab.send(pay("1")).await.text().starts_with("false "));
}

#[tokio::test]
async fn the_profile_json_rpc_covers_each_call_and_no_other_message() {
    let body = |id: &str, method: &str| {
        message(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{META}}}}}"#))
    };
    let rpc = || layer().profile(Profile::json_rpc()).require_key(true);
    let lab = Lab::new(rpc(), |number| async move { json(result("1", number)) });
    for id in ["1", "2"] {
        assert_eq!(lab.send(body(id, "charge")).await.text(), result(id, 1));
    }
    assert_error(&lab.send(body("3", "refund")).await, "3", -32060, "key-reused", "unknown;retry=?0");
    let missing = lab.send(message(r#"{"jsonrpc":"2.0","id":4,"method":"initialize"}"#)).await;
    assert_error(&missing, "4", -32602, "key-missing", "none;retry=?0");
    let notified = r#"{"jsonrpc":"2.0","method":"charge","params":{}}"#;
    for _ in 0..2 {
        assert_eq!(echoing(rpc()).send(message(notified)).await.text(), format!("false {notified}"));
    }
    // A list of parameters has no place for a key but the header.
    let listed = |id: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"charge","params":[1]}}"#);
        with(message(body), "idempotency-key", "listed")
    };
    lab.send(listed("1")).await;
    assert!(lab.send(listed("2")).await.is_replay());
}

#[tokio::test]
async fn a_client_that_takes_streams_alone_gets_one() {
    let lab = Lab::new(mcp(), |number| async move { json(result("1", number)) });
    lab.send(pay("1")).await;
    for (accept, is_stream) in [
        ("text/event-stream", true),
        ("Text/Event-Stream;q=0.5, application/json;q=0", true),
        ("text/*, application/json;q=0.000", true),
        ("application/json", false),
        ("application/json;q=0.1, text/event-stream", false),
        ("text/event-stream;q=0", false),
        ("*/*", false),
        ("application/*, text/event-stream", false),
        ("text/html", false),
    ] {
        let again = lab.send(with(pay("2"), "accept", accept)).await;
        let kind = if is_stream { "text/event-stream" } else { "application/json" };
        assert_eq!(again.header("content-type"), Some(kind), "{accept}");
        let body = if is_stream { super::only_event(&again) } else { again.json() };
        assert_eq!((&body["id"], &body["result"]["effect"]), (&2.into(), &1.into()), "{accept}");
        let refused = lab.send(with(call("9", META), "accept", accept)).await;
        assert_error(&refused, "9", -32060, "key-reused", "unknown;retry=?0");
        assert_eq!(refused.header("content-type"), Some(kind), "{accept}");
    }
    let mut without = pay("2");
    without.headers_mut().remove("accept");
    assert_eq!(lab.send(without).await.text(), result("2", 1));
}
