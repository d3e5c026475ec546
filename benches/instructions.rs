//! Checks that no way through the layer has become more expensive.
//!
//! `cargo bench --bench instructions` counts the instructions of each way with callgrind (Debian's `valgrind`), and
//! fails if a count is 3 % more than in `benches/instructions.json`. `cargo bench --bench instructions -- --save`
//! writes that file anew. Counts of another compiler or processor are shown, and not compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench reports to its terminal")]

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request, Uri};
use http_body_util::BodyExt as _;
use testkit::bench::callgrind::{MANY, compared};
use testkit::bench::exchange::{SMALL, bare, keyed, protected};
use testkit::bench::load::key;
use tower::ServiceExt as _;
use tower_idempotency::server::Profile;
use tower_idempotency::{Fingerprint, IdempotencyLayer, MemoryStore, OnInterrupted, RecordId};

const LARGE: usize = 16 << 10;
const WAYS: [&str; 9] = [
    "bare", "no-key", "first", "replay", "replay-16-KiB", "reused-key", "fingerprint-16-KiB", "tool-call-bare",
    "tool-call-replay",
];

fn main() -> ExitCode {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    compared(&WAYS, go, &file, "cargo bench --bench instructions")
}

/// Goes one way `times` times.
fn go(way: &str, times: u64) {
    if way == "fingerprint-16-KiB" {
        let body = vec![7; LARGE];
        return (0..times).for_each(|_| {
            let fingerprint = Fingerprint::builder(&RecordId::from_bytes([7; 32])).field("method", b"POST");
            black_box(fingerprint.field("body", black_box(&body)).finish());
        });
    }
    if way.starts_with("tool-call") {
        return call_tool(way, times);
    }
    let length = if way == "replay-16-KiB" { LARGE } else { SMALL };
    let app = match way {
        "bare" => bare(length).with_state(()),
        // The store sweeps with every claim: nothing expires here.
        _ => protected(length, MemoryStore::builder().build(), OnInterrupted::Rerun),
    };
    // As many keys in each count, so that making them is no part of the difference.
    let keys: Vec<_> = (0..=MANY).map(|number| HeaderValue::from_str(&key(number)).unwrap()).collect();
    // There is one thread, so that the steps come in the same order each time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        send(&app, Some(&keys[0]), "/charges", 200).await;
        for key in &keys[1..=usize::try_from(times).unwrap()] {
            match way {
                "no-key" => send(&app, None, "/charges", 200).await,
                "bare" | "first" => send(&app, Some(key), "/charges", 200).await,
                "reused-key" => send(&app, Some(&keys[0]), "/charges?another", 422).await,
                _ => send(&app, Some(&keys[0]), "/charges", 200).await,
            }
        }
    });
}

/// Calls a tool over MCP `times` times, each time with about 1 KB.
fn call_tool(way: &str, times: u64) {
    let result = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"paid"}]}}"#;
    let answer = move || async move { ([(CONTENT_TYPE, "application/json")], result) };
    let app = Router::new().route("/mcp", post(answer));
    let app = match way {
        "tool-call-bare" => app,
        _ => app.route_layer(IdempotencyLayer::new(MemoryStore::new()).profile(Profile::mcp())),
    };
    let note = "n".repeat(900);
    let calls: Vec<_> = (0..=MANY)
        .map(|number| {
            let key = key(if way == "tool-call-replay" { 0 } else { number });
            let meta = format!(r#""_meta":{{"idempotencyKey":"{key}"}}"#);
            let arguments = format!(r#""name":"pay","arguments":{{"amount":500,"note":"{note}"}}"#);
            let call = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{{meta},{arguments}}}}}"#);
            Bytes::from(call)
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for call in &calls[..=usize::try_from(times).unwrap()] {
            let request = Request::post("/mcp").header(CONTENT_TYPE, "application/json");
            let request = request.header(ACCEPT, "application/json, text/event-stream");
            let response = app.clone().oneshot(request.body(Body::from(call.clone())).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            black_box(response.into_body().collect().await.unwrap());
        }
    });
}

async fn send(app: &Router, key: Option<&HeaderValue>, uri: &'static str, status: u16) {
    let mut request = keyed(key.cloned());
    *request.uri_mut() = Uri::from_static(uri);
    let response = app.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), status);
    black_box(response.into_body().collect().await.unwrap());
}
