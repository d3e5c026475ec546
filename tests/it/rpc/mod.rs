//! Calls of JSON-RPC and of MCP's tools, and answers whose body says what they mean.

mod bodies;
mod calls;
mod messages;
mod streams;
mod streams_cut;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use testkit::Answer;
use testkit::lab::{Lab, settle};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower::ServiceExt as _;
use tower_idempotency::server::Profile;
use tower_idempotency::store::Store;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

const META: &str = r#""_meta":{"idempotencyKey":"k"}"#;

/// A layer for calls of tools.
fn mcp() -> IdempotencyLayer<MemoryStore> {
    mcp_over(MemoryStore::new())
}

fn mcp_over<St: Store>(store: St) -> IdempotencyLayer<St> {
    IdempotencyLayer::new(store).profile(Profile::mcp())
}

/// A message, as a client of MCP sends it.
fn message(body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/mcp").header(CONTENT_TYPE, "application/json");
    request.header(ACCEPT, "application/json, text/event-stream").body(body.into()).unwrap()
}

/// The call of a tool that pays, with these members of its parameters.
fn call(id: &str, params: &str) -> Request<Body> {
    message(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"pay",{params}}}}}"#))
}

/// The same call, with the key `k` and another `id`.
fn pay(id: &str) -> Request<Body> {
    call(id, &format!(r#"{META},"arguments":{{"amount":1}}"#))
}

/// Sets a header.
fn with(mut request: Request<Body>, name: &'static str, value: &'static str) -> Request<Body> {
    request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    request
}

/// A response with a result that tells effects apart.
fn result(id: &str, effect: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[],"effect":{effect}}}}}"#)
}

/// A response with an error.
fn error(id: &str, code: i32) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"no"}}}}"#)
}

/// The answer of a service that sends one JSON object.
fn json(body: String) -> ([(HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, "application/json")], body)
}

/// What the answer says in its header.
fn effect(answer: &Answer) -> &str {
    answer.header("idempotency-effect").unwrap_or_default()
}

/// Asserts that this is a refusal that a client of MCP hands to its caller: an error of JSON-RPC with this `id`, in all
/// its parts. Returns its `data`.
#[track_caller]
fn assert_error(answer: &Answer, id: &str, code: i32, slug: &str, says: &str) -> Value {
    let json = if answer.header("content-type") == Some("text/event-stream") {
        only_event(answer)
    } else {
        assert_eq!(answer.header("content-type"), Some("application/json"), "{slug}");
        answer.json()
    };
    assert_eq!(answer.status, 200, "{json}");
    assert_eq!((&json["jsonrpc"], json["id"].to_string()), (&"2.0".into(), id.to_owned()), "{json}");
    assert_eq!(json["error"]["code"], code, "{json}");
    assert!(json["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
    let data = json["error"]["data"].clone();
    assert!(data["type"].as_str().is_some_and(|uri| uri.ends_with(&format!("#{slug}"))), "{json}");
    assert_eq!(effect(answer), says, "{json}");
    let (token, retry) = says.split_once(";retry").unwrap();
    assert_eq!(data["effect"], token.split(';').next().unwrap(), "{json}");
    assert_eq!(data["retry_with_same_key"], retry.is_empty(), "{json}");
    assert_eq!(
        data["retry_after"].as_u64().map(|seconds| seconds.to_string()).as_deref(),
        answer.header("retry-after")
    );
    assert!(!answer.is_replay(), "a refusal is no replay");
    data
}

/// The data of the events of a stream, as a client reads them.
fn events(stream: &str) -> Vec<String> {
    let stream = stream.replace("\r\n", "\n").replace('\r', "\n");
    let data = |event: &str| {
        let lines: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    };
    stream.split("\n\n").filter_map(data).collect()
}

/// The message in a stream of one event.
#[track_caller]
fn only_event(answer: &Answer) -> Value {
    let events = events(answer.text());
    assert_eq!(events.len(), 1, "{}", answer.text());
    serde_json::from_str(&events[0]).unwrap()
}

/// By which a test says what comes on a stream. Dropped, the stream ends.
struct Feed(mpsc::UnboundedSender<io::Result<Bytes>>);

impl Feed {
    fn new() -> (Self, Body) {
        let (sender, mut said) = mpsc::unbounded_channel();
        (Self(sender), Body::from_stream(futures_util::stream::poll_fn(move |cx| said.poll_recv(cx))))
    }

    fn say(&self, text: &str) {
        self.0.send(Ok(Bytes::copy_from_slice(text.as_bytes()))).expect("the stream is read");
    }

    fn break_off(self) {
        self.0.send(Err(io::Error::other("broken off"))).expect("the stream is read");
    }
}

/// A service that answers first with this stream, and then with results.
fn streaming<St: Store>(layer: IdempotencyLayer<St>, body: Body) -> Lab {
    let first = Arc::new(Mutex::new(Some(body)));
    Lab::new(layer, move |number| {
        let first = first.lock().unwrap().take();
        async move { first.map_or_else(|| json(result("1", number)).into_response(), stream) }
    })
}

fn stream(body: Body) -> Response {
    ([(CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("mcp-session-id"), "old")], body).into_response()
}

/// An event as servers write it.
fn event(data: &str) -> String {
    format!("event: message\ndata: {data}\n\n")
}

/// Progress that an MCP server tells.
const PROGRESS: &str =
    "event: message\nid: 7\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{}}\n\n";

/// After how long a test fails for which nothing comes.
const GIVE_UP: Duration = Duration::from_secs(30);

/// A client that reads a stream as it comes.
struct Reader {
    head: http::response::Parts,
    body: Body,
}

impl Reader {
    async fn open(lab: &Lab, request: Request<Body>) -> Self {
        let (head, body) = lab.app.clone().oneshot(request).await.unwrap().into_parts();
        Self { head, body }
    }

    /// The next bytes, which have to come soon; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        timeout(GIVE_UP, self.late()).await.expect("something comes, or the stream ends")
    }

    /// The next bytes, however late they are.
    async fn late(&mut self) -> Option<String> {
        let data = self.body.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(data.to_vec()).unwrap())
    }

    /// Whether nothing comes, also after all that can go on has gone on.
    async fn waits(&mut self) -> bool {
        settle().await;
        self.body.frame().now_or_never().is_none()
    }

    /// All that comes until the end.
    async fn rest(mut self) -> String {
        let mut rest = String::new();
        while let Some(next) = self.next().await {
            rest.push_str(&next);
        }
        rest
    }
}
