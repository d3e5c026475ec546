//! Two calls are the same if their method and their parameters are; the answer has the `id` of the call that gets it.

use axum::body::Body;
use http::{Response, StatusCode};
use testkit::lab::time::HOUR;
use testkit::lab::{Lab, settle};
use testkit::{Answer, Gate};
use tower_idempotency::server::Replay;
use tower_idempotency::{IdempotencyLayer, MemoryStore, OnInFlight, OnInterrupted, Rejection};

use super::{META, assert_error, call, error, json, mcp, message, pay, result, with};

/// A service whose answers have the `id` of the first call.
fn paying(layer: IdempotencyLayer<MemoryStore>) -> Lab {
    Lab::new(layer, |number| async move { json(result("1", number)) })
}

#[tokio::test]
async fn a_replay_has_the_id_of_the_call_that_gets_it_byte_by_byte() {
    let lab = paying(mcp());
    let first = lab.send(pay("1")).await;
    assert_eq!((first.text(), first.is_replay()), (&*result("1", 1), false));
    // A number that is read and written again may be another one.
    let numbers = ["2", "0", "-0", "1.0", "1e2", "12345678901234567890123", "0.1000000000000000055"];
    let others = ["\"1\"", "\"\"", "\"\u{e4}\"", "\"\\u00e4\\\"\"", "null"];
    for id in numbers.into_iter().chain(others) {
        let again = lab.send(pay(id)).await;
        assert_eq!((again.text(), again.is_replay()), (&*result(id, 1), true));
        assert_eq!((again.status, again.header("content-type")), (StatusCode::OK, Some("application/json")));
    }
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn a_replay_has_its_id_wherever_the_service_has_put_it() {
    for recorded in [
        r#"{"result":{"id":7,"s":"\"id\":1"},"jsonrpc":"2.0","id":1}"#,
        " {\n \"id\" : 1 , \"result\" : {\"id\":7,\"s\":\"\\\"id\\\":1\"} , \"jsonrpc\" : \"2.0\" }\n",
        r#"{"i\u0064":1,"jsonrpc":"2.0","result":{"id":7,"s":"\"id\":1"}}"#,
        r#"{"id":null,"jsonrpc":"2.0","result":{"id":7,"s":"\"id\":1"}}"#,
    ] {
        let lab = Lab::new(mcp(), move |_| async move { json(recorded.to_owned()) });
        assert_eq!(lab.send(pay("1")).await.text(), recorded, "an answer of the service's own is untouched");
        let again = lab.send(pay("\"b\"")).await.json();
        assert_eq!(again["id"], "b", "{recorded}");
        assert_eq!((&again["result"]["id"], &again["result"]["s"]), (&7.into(), &"\"id\":1".into()), "{recorded}");
    }
}

#[tokio::test]
async fn what_is_no_response_is_replayed_as_it_is() {
    for (kind, body) in [
        ("text/plain", "charged"),
        ("application/json", r#"{"id":1}"#),
        ("application/json", r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#),
        ("application/json", r#"{"jsonrpc":"2.0","id":1,"id":1,"result":{}}"#),
        ("application/json", r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#),
        ("application/json", ""),
    ] {
        let lab = Lab::new(mcp(), move |_| async move { ([("content-type", kind)], body) });
        lab.send(pay("1")).await;
        let again = lab.send(pay("2")).await;
        assert_eq!((again.text(), again.header("content-type"), again.is_replay()), (body, Some(kind), true));
    }
}

#[tokio::test]
async fn what_is_new_in_each_attempt_makes_no_other_call() {
    let meta = |more: &str| call("2", &format!(r#""_meta":{{"idempotencyKey":"k"{more}}},"arguments":{{"amount":1}}"#));
    let lab = paying(mcp());
    lab.send(with(pay("1"), "mcp-session-id", "one")).await;
    let again = [
        meta(r#","progressToken":2"#),
        meta(r#","progressToken":"p","traceparent":"00-a-b-01","tracestate":"v=1","baggage":"b=1""#),
        meta(
            r#","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/logLevel":"info",
            "io.modelcontextprotocol/clientInfo":{"name":"a","version":"2"},
            "io.modelcontextprotocol/clientCapabilities":{"x":{}}"#,
        ),
        with(pay("2"), "mcp-session-id", "another"),
        with(with(pay("2"), "mcp-protocol-version", "2026-07-28"), "mcp-method", "tools/call"),
        // The order of members and the space between them say nothing.
        message(
            "{\"params\":{\"arguments\":{\"amount\":1.0},\"_meta\":{\"idempotencyKey\":\"k\"},\"name\":\"pay\"},\n\
             \"id\":2, \"method\":\"tools/call\",\"jsonrpc\":\"2.0\"}",
        ),
    ];
    for request in again {
        let shown = format!("{request:?}");
        let again = lab.send(request).await;
        assert_eq!((again.text(), again.is_replay()), (&*result("2", 1), true), "{shown}");
    }
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn meta_that_has_nothing_to_compare_is_none() {
    let in_header = |params: &str| with(call("2", params), "idempotency-key", "k");
    let lab = paying(mcp());
    lab.send(in_header(r#""arguments":{"amount":1}"#)).await;
    for meta in ["", r#""_meta":{},"#, r#""_meta":{"progressToken":2},"#, &format!("{META},")] {
        let again = lab.send(in_header(&format!(r#"{meta}"arguments":{{"amount":1}}"#))).await;
        assert!(again.is_replay(), "{meta}: {}", again.text());
    }
}

#[tokio::test]
async fn another_tool_or_other_arguments_are_refused() {
    let lab = paying(mcp());
    lab.send(pay("1")).await;
    let renamed = message(
        r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"refund","_meta":{"idempotencyKey":"k"},"arguments":{"amount":1}}}"#,
    );
    for request in [
        call("3", &format!(r#"{META},"arguments":{{"amount":2}}"#)),
        call("3", &format!(r#"{META},"arguments":{{"amount":1,"_meta":{{"progressToken":1}}}}"#)),
        call("3", r#""_meta":{"idempotencyKey":"k","x":1},"arguments":{"amount":1}"#),
        renamed,
    ] {
        let refused = lab.send(request).await;
        let data = assert_error(&refused, "3", -32060, "key-reused", "unknown;retry=?0");
        assert_eq!(data["status"], 422);
    }
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn a_waiter_gets_its_own_id() {
    for status in [200, 503] {
        let gate = Gate::default();
        let held = gate.clone();
        let status = StatusCode::from_u16(status).unwrap();
        let lab = Lab::new(mcp().on_in_flight(OnInFlight::Wait(HOUR)), move |number| {
            let held = held.clone();
            async move {
                held.pass().await;
                (status, json(result("1", number)))
            }
        });
        let first = lab.spawn(pay("1"));
        gate.arrival().await;
        let waiters = [lab.spawn(pay("2")), lab.spawn(pay("\"three\""))];
        settle().await;
        gate.open();
        assert_eq!(first.await.unwrap().text(), result("1", 1));
        for (waiter, id) in waiters.into_iter().zip(["2", "\"three\""]) {
            let answer = waiter.await.unwrap();
            assert_eq!((answer.text(), answer.is_replay()), (&*result(id, 1), true));
        }
    }
}

#[tokio::test]
async fn a_call_that_is_in_flight_is_refused_with_its_id_and_a_pause() {
    let (lab, gate) = Lab::gated(mcp());
    let first = lab.spawn(pay("1"));
    gate.arrival().await;
    let refused = lab.send(pay("\"two\"")).await;
    let data = assert_error(&refused, "\"two\"", -32060, "in-flight", "pending;retry");
    assert_eq!((&data["retry_after"], &data["status"]), (&1.into(), &409.into()));
    let probe = lab.send(with(pay("3"), "idempotency-probe", "?1")).await;
    assert_error(&probe, "3", -32060, "in-flight", "pending;retry");
    gate.open();
    first.await.unwrap();
}

#[tokio::test]
async fn a_probe_gets_its_own_id_and_never_runs() {
    let lab = paying(mcp());
    let probe = |id| with(pay(id), "idempotency-probe", "?1");
    assert_error(&lab.send(probe("4")).await, "4", -32060, "not-found", "unknown;retry");
    lab.send(pay("1")).await;
    let found = lab.send(probe("5")).await;
    assert_eq!((found.text(), found.is_replay()), (&*result("5", 1), true));
    // What has no key has no record.
    let list = message(r#"{"jsonrpc":"2.0","id":6,"method":"tools/list"}"#);
    let unknown = lab.send(with(list, "idempotency-probe", "?1")).await;
    assert_eq!((unknown.status.as_u16(), unknown.json()["id"].is_null()), (404, true), "{}", unknown.text());
    assert_eq!(lab.effects(), 1);
}

#[tokio::test]
async fn a_run_that_panics_answers_with_the_id_of_its_call_and_names_the_operation() {
    let lab = Lab::new(mcp(), |_| async { if true { panic!("on purpose") } else { "" } });
    let first = assert_error(&lab.send(pay("1")).await, "1", -32060, "outcome-unknown", "unknown;retry=?0");
    let retry = assert_error(&lab.send(pay("2")).await, "2", -32060, "outcome-unknown", "unknown;retry=?0");
    assert!(first["record_id"].as_str().is_some_and(|id| id.len() == 8));
    assert_eq!(first["record_id"], retry["record_id"]);
    assert_eq!((&first["status"], &retry["status"]), (&500.into(), &409.into()));
    let lab = Lab::new(mcp().on_interrupted(OnInterrupted::Rerun), |number| async move {
        if number == 1 { panic!("on purpose") } else { json(result("2", number)) }
    });
    assert_error(&lab.send(pay("1")).await, "1", -32060, "outcome-unknown", "unknown;retry");
    assert_eq!(lab.send(pay("2")).await.text(), result("2", 2));
}

#[tokio::test]
async fn what_the_application_says_of_a_replay_has_the_id_and_the_length_of_the_answer() {
    let said = |body: &'static str| {
        let lab = Lab::new(
            mcp().on_replay(move |_, stored| async move {
                let length = body.len().to_string().parse().unwrap();
                let mut answer = stored.map(|_| bytes::Bytes::from_static(body.as_bytes()));
                answer.headers_mut().insert("content-length", length);
                Replay::Replace(answer)
            }),
            |number| async move { json(result("1", number)) },
        );
        async move {
            lab.send(pay("1")).await;
            lab.send(pay("12345")).await
        }
    };
    let replaced = said(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
    assert_eq!(replaced.text(), r#"{"jsonrpc":"2.0","id":12345,"result":{}}"#);
    let length = replaced.text().len().to_string();
    assert!(replaced.header("content-length").is_none_or(|declared| declared == length), "{replaced:?}");
    let lab = paying(mcp().on_replay(|_, _| async {
        Replay::Refuse(Rejection::custom(StatusCode::GONE, "The account is closed", "The account is closed."))
    }));
    lab.send(pay("1")).await;
    let refused = lab.send(pay("2")).await;
    assert_eq!((refused.status, &refused.json()["id"]), (StatusCode::OK, &2.into()));
    assert_eq!(refused.json()["error"]["message"], "The account is closed.");
    assert_eq!(super::effect(&refused), "done;status=200;retry=?0");
}

#[tokio::test]
async fn a_session_is_neither_compared_nor_replayed() {
    let lab = Lab::new(mcp(), |number| async move {
        ([("mcp-session-id", "old"), ("x-receipt", "7")], json(result("1", number)))
    });
    let first = lab.send(with(pay("1"), "mcp-session-id", "old")).await;
    assert_eq!(first.header("mcp-session-id"), Some("old"));
    let again = lab.send(with(pay("2"), "mcp-session-id", "new")).await;
    assert_eq!((again.header("mcp-session-id"), again.header("x-receipt")), (None, Some("7")));
    assert!(again.is_replay());
}

/// What a call gets that the service answers so at first, and what its retry gets, after which it has run.
async fn answered(status: u16, effect: Option<&'static str>, body: &str, id: &str) -> [Answer; 2] {
    let body = body.to_owned();
    let lab = Lab::new(mcp(), move |number| {
        let answer = Response::builder().status(if number == 1 { status } else { 200 });
        let answer = answer.header("content-length", if number == 1 { body.len() } else { result("1", 2).len() });
        let answer = effect.into_iter().fold(answer, |answer, effect| answer.header("idempotency-effect", effect));
        let body = if number == 1 { body.clone() } else { result("1", 2) };
        let kind = if body.starts_with('{') { "application/json" } else { "text/plain" };
        let answer = answer.header("content-type", kind).body(Body::from(body)).unwrap();
        async move { answer }
    });
    [lab.send(pay(id)).await, lab.send(pay("9")).await]
}

#[tokio::test]
async fn a_refusal_without_an_id_gets_that_of_the_call() {
    // As the proxy refuses, and a service that has a layer of its own.
    for (status, code) in [(503, -32060), (400, -32602), (502, -32000), (500, -32603), (409, 5)] {
        for id in ["12345", "\"b\""] {
            let [given, _] = answered(status, Some("unknown;retry"), &error("null", code), id).await;
            assert_eq!((given.status.as_u16(), given.text()), (200, &*error(id, code)), "{status}");
            let length = given.text().len().to_string();
            assert!(given.header("content-length").is_none_or(|declared| declared == length), "{given:?}");
        }
    }
}

#[tokio::test]
async fn a_service_s_own_answer_is_untouched() {
    for (status, body) in [
        (404, error("7", -32601)),
        (404, error("null", -32600)),
        (500, error("null", -32603)),
        (404, r#"{"id":null,"error":"#.to_owned()),
        (400, r#"{"id":null,"method":"ping","error":{}}"#.to_owned()),
        (200, error("null", -32602)),
        (202, result("null", 1)),
    ] {
        let [first, _] = answered(status, None, &body, "12345").await;
        assert_eq!((first.status.as_u16(), first.text()), (status, &*body));
        assert_eq!(first.header("content-length"), Some(&*body.len().to_string()));
    }
}

// Seen with the official servers: a 404 of a session that the server had forgotten was replayed to the next session.
#[tokio::test]
async fn a_call_that_the_server_does_not_take_in_this_session_or_form_runs_in_the_next() {
    for (status, body) in [
        (404, error("null", -32600)),
        (404, error("null", -32001)),
        (400, error("null", -32000)),
        (400, error("1", -32020)),
        (400, error("1", -32022)),
        (200, error("1", -32042)),
        (404, "Session not found".to_owned()),
        (406, String::new()),
        (200, r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required"}}"#.to_owned()),
    ] {
        let [first, again] = answered(status, None, &body, "1").await;
        assert_eq!((first.status.as_u16(), first.text()), (status, &*body));
        assert_eq!((again.text(), again.is_replay()), (&*result("1", 2), false), "{status} {body}");
    }
    // What says that the call has failed in itself is an outcome.
    for (status, body) in [
        (200, error("1", 7)),
        (404, error("1", 7)),
        (409, "taken".to_owned()),
        // An internal error is one under each status, also one that frees the key by itself.
        (400, error("1", -32603)),
        (404, error("1", -32603)),
        (422, error("1", -32000)),
        (429, error("1", -32603)),
        (403, error("1", -32603)),
    ] {
        let [_, again] = answered(status, None, &body, "1").await;
        assert!(again.is_replay(), "{status} {body}");
    }
}
