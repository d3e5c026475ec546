//! An error behind a 200 is no success to a plan that names a judge.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use testkit::meanings::bodies;
use tower_idempotency_check::{Outcome, Plan};

/// A service that answers each request with what it gets, and counts keys.
fn echo() -> Router {
    let keys = Arc::new(Mutex::new(HashSet::new()));
    let noted = keys.clone();
    let answer = async move |headers: HeaderMap, body: String| {
        noted.lock().unwrap().insert(headers.get("idempotency-key").cloned());
        ([(CONTENT_TYPE, "application/json")], body)
    };
    Router::new().route("/", post(answer).get(async move || keys.lock().unwrap().len().to_string()))
}

/// The outcomes of these checks, with these lines in the plan.
async fn outcomes(only: &str, data: &str, lines: &str) -> Vec<Outcome> {
    let listener = tokio::net::TcpListener::bind((testkit::dice::loopback(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, echo()).await.unwrap() });
    let plan = format!("url = \"http://{address}/\"\ncount = \"GET /\"\nonly = [\"{only}\"]\ndata = '{data}'\n{lines}");
    let report = Plan::from_toml(&plan).unwrap().run(|_| {}).await;
    report.checks.into_iter().map(|check| check.outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_works_if_its_body_says_so() {
    for said in bodies().into_iter().filter(|said| said.judge != "grpc") {
        let judge = format!("judge = \"{}\"", said.judge);
        let found = outcomes("works", &said.body, &judge).await;
        let is_kept = matches!(found[..], [Outcome::Kept]);
        assert_eq!(is_kept, said.row.get("outbox") == "delivered", "{said:?}: {found:?}");
        // By its status alone, each one does.
        assert_eq!(outcomes("works", &said.body, "").await, [Outcome::Kept], "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_declined_or_fails_by_its_body() {
    let done = r#"{"jsonrpc":"2.0","id":1,"result":1}"#;
    let error = |code| format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"no"}}}}"#);
    let judge = "judge = \"json-rpc\"";
    for (check, field, code, is_made) in [
        ("declined", "declined", 7, true),
        ("declined", "declined", -32602, true),
        ("declined", "declined", -32603, false),
        ("server-error", "server_error", -32603, true),
        ("server-error", "server_error", 7, false),
    ] {
        let found = outcomes(check, done, &format!("{judge}\n{field} = '{}'", error(code))).await;
        assert_eq!(matches!(found[1], Outcome::Failed(_)), !is_made, "{check} {code}: {found:?}");
        let found = outcomes(check, done, &format!("{field} = '{}'", error(code))).await;
        assert!(matches!(found[1], Outcome::Failed(_)), "{check} {code}, not judged: {found:?}");
    }
}

#[test]
fn a_plan_names_a_judge_that_there_is() {
    let error = Plan::from_toml("url = \"http://127.0.0.1:1/\"\njudge = \"soap\"").unwrap_err().to_string();
    assert_eq!(error, "judge: \"soap\" is not json-rpc, graphql or grpc");
}
