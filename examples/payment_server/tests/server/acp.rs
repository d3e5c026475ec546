//! An agent that speaks the Agentic Commerce Protocol, and the server in its profile.

use std::ffi::OsString;

use http::Method;
use serde_json::json;
use tempfile::{TempDir, tempdir};
use testkit::payment_server::{Server, Setup};
use testkit::process::until;
use testkit::{Answer, Call, Connection};

use super::clients::losing_the_first_answer;

fn setup(directory: &TempDir) -> Setup {
    let in_its_profile = ["env", "PAYMENTS_LAYER__PROFILE=acp"].map(OsString::from);
    Setup::new(directory).under(in_its_profile)
}

/// A POST of JSON, as an agent sends it.
fn post(path: &str, key: &str, body: &str) -> Call {
    let call = Call { method: Method::POST, body: body.to_owned(), ..Call::get(path) };
    let call = call.header("content-type", "application/json").header("api-version", "2026-01-30");
    call.header("authorization", "Bearer agent").header("idempotency-key", key)
}

fn charge(key: &str, source: &str) -> Call {
    post("/v1/charges", key, &json!({ "amount": 1000, "currency": "eur", "source": source }).to_string())
}

async fn charges(server: &Server) -> usize {
    let list = Call::get("/v1/charges").header("authorization", "Bearer agent");
    server.send(&list).await.json()["data"].as_array().unwrap().len()
}

/// Status and code of an error of the protocol.
fn error(answer: &Answer) -> (u16, String) {
    let error = answer.json();
    assert_eq!(error["type"], "invalid_request");
    assert!(error["message"].is_string());
    (answer.status.as_u16(), error["code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_gets_no_answer_has_bought_once() {
    let directory = tempdir().unwrap();
    let server = setup(&directory).start();
    let (losing, _) = losing_the_first_answer(&server).await;
    let lost = Connection::http1(losing.address()).await.unwrap().send(&charge("order-17", "tok_visa")).await;
    assert!(lost.is_err(), "no answer was lost: {lost:?}");
    let again = Connection::http1(losing.address()).await.unwrap().send(&charge("order-17", "tok_visa")).await.unwrap();
    assert_eq!((again.status.as_u16(), again.is_replay()), (200, true));
    assert_eq!(again.headers["idempotency-key"], "order-17");

    // The same JSON, written in another way, by another release of the agent.
    let same = r#"{ "source": "tok_visa", "currency": "eur", "amount": 1000.0 }"#;
    let same = post("/v1/charges", "order-17", same).header("api-version", "2026-04-17");
    let same = server.send(&same).await;
    assert_eq!((same.is_replay(), same.json()), (true, again.json()));
    for other in [
        r#"{"amount":2000,"currency":"eur","source":"tok_visa"}"#,
        r#"{"amount":1000,"currency":"eur","source":"tok_visa","description":null}"#,
    ] {
        let conflict = server.send(&post("/v1/charges", "order-17", other)).await;
        assert_eq!(error(&conflict), (422, "idempotency_conflict".to_owned()));
        assert_eq!(conflict.headers["idempotency-key"], "order-17");
    }

    // The same key elsewhere is another operation.
    let refund = post("/v1/refunds", "order-17", &json!({ "charge": again.json()["id"] }).to_string());
    for is_replay in [false, true] {
        let refunded = server.send(&refund).await;
        assert_eq!((refunded.status.as_u16(), refunded.is_replay()), (200, is_replay));
    }
    let mut missing = charge("", "tok_visa");
    missing.headers.retain(|(name, _)| *name != "idempotency-key");
    assert_eq!(error(&server.send(&missing).await), (400, "idempotency_key_required".to_owned()));
    assert_eq!(charges(&server).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_asks_too_soon_is_given_the_seconds_to_wait() {
    let directory = tempdir().unwrap();
    let server = setup(&directory).with("--on-in-flight reject").start();
    let first = server.charging_slowly(&charge("slow", "tok_slow")).await;
    let too_soon = server.send(&charge("slow", "tok_slow")).await;
    assert_eq!(error(&too_soon), (409, "idempotency_in_flight".to_owned()));
    assert_eq!(too_soon.headers["retry-after"], "1");
    drop(first);
    until("the charge ends", async || server.send(&charge("slow", "tok_slow")).await.is_replay()).await;
    assert_eq!(charges(&server).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_5xx_is_never_replayed_and_runs_afresh_only_where_nothing_has_happened() {
    let directory = tempdir().unwrap();
    let server = setup(&directory).start();
    for _ in 0..2 {
        let busy = server.send(&charge("busy", "tok_unavailable")).await;
        assert_eq!((busy.status.as_u16(), busy.is_replay()), (503, false));
    }
    for (key, source, status) in [("failed", "tok_error", 500), ("late", "tok_timeout", 504)] {
        assert_eq!(server.send(&charge(key, source)).await.status, status);
        assert_eq!(error(&server.send(&charge(key, source)).await), (409, "outcome_unknown".to_owned()));
    }
    assert_eq!(charges(&server).await, 2);
}
