//! A server of tools over MCP that keeps keys, and may do one thing wrong: `pay`, and `payments` to count.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    None,
    IgnoresKeys,
    /// A replay has the `id` of the first call.
    FirstId,
    /// The `id` is compared as the arguments are.
    ComparesId,
    /// A replay is given for other arguments.
    AnyArguments,
    /// Calls at once don't see each other.
    Race,
    /// Each session has keys of its own.
    PerSession,
    /// A tool whose client has gone is stopped after its effect, and nothing is recorded.
    StopsWhenCut,
    /// The same, and no key is looked at.
    StopsAndIgnoresKeys,
}

impl Fault {
    pub(super) fn without_keys(self) -> Self {
        if self == Self::StopsWhenCut { Self::StopsAndIgnoresKeys } else { Self::IgnoresKeys }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// As before revision 2026-07-28; without them as in that.
    pub(super) has_sessions: bool,
    pub(super) streams: bool,
}

/// What was called with a key: the arguments, and what came of it. The lock is held while the tool runs.
type Kept = Arc<tokio::sync::Mutex<Option<(Value, Value)>>>;

#[derive(Clone)]
struct Shop {
    fault: Fault,
    shape: Shape,
    payments: Arc<Mutex<Vec<String>>>,
    keys: Arc<Mutex<HashMap<String, Kept>>>,
    sessions: Arc<Mutex<Vec<String>>>,
    /// How often the payments were counted.
    counted: Arc<AtomicUsize>,
}

/// The revision of its sessions: not the one that a client offers.
const AGREED: &str = "2025-11-25";
/// The server forgets its sessions after so many counts.
const FORGOTTEN_AFTER: usize = 3;

pub(super) fn routes(fault: Fault, shape: Shape) -> Router {
    let (payments, keys, sessions, counted) = Default::default();
    let shop = Shop { fault, shape, payments, keys, sessions, counted };
    Router::new().route("/mcp", post(message)).with_state(shop)
}

fn answer(id: &Value, member: &str, value: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, member: value})
}

fn refused(status: u16, id: &Value, code: i32) -> Response {
    let error = answer(id, "error", json!({"code": code, "message": "no"}));
    (StatusCode::from_u16(status).unwrap(), axum::Json(error)).into_response()
}

async fn message(State(shop): State<Shop>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(call) = serde_json::from_slice::<Value>(&body) else { return refused(400, &Value::Null, -32700) };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let accept = header("accept");
    if !accept.contains("application/json") || !accept.contains("text/event-stream") {
        return refused(406, &Value::Null, -32600);
    }
    let (id, session) = (&call["id"], header("mcp-session-id").to_owned());
    if call["method"] == "initialize" {
        if !shop.shape.has_sessions {
            return refused(404, id, -32601);
        }
        let session = format!("session-{}", shop.sessions.lock().unwrap().len());
        shop.sessions.lock().unwrap().push(session.clone());
        let agreed = json!({"protocolVersion": AGREED, "capabilities": {"tools": {}}, "serverInfo": {}});
        return ([("mcp-session-id", session)], axum::Json(answer(id, "result", agreed))).into_response();
    }
    if shop.shape.has_sessions {
        if !shop.sessions.lock().unwrap().contains(&session) {
            return refused(404, &Value::Null, -32600);
        }
        if header("mcp-protocol-version") != AGREED {
            return refused(400, &Value::Null, -32600);
        }
    } else if header("mcp-method") != "tools/call"
        || header("mcp-name") != call["params"]["name"]
        || call["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] != "2026-07-28"
    {
        return refused(400, id, -32020);
    }
    if id.is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    if call["params"]["name"] == "payments" {
        // As after a restart.
        if shop.counted.fetch_add(1, Ordering::Relaxed) == FORGOTTEN_AFTER {
            shop.sessions.lock().unwrap().clear();
        }
        let payments = json!(*shop.payments.lock().unwrap()).to_string();
        let result = json!({"content": [{"type": "text", "text": payments}]});
        return axum::Json(answer(id, "result", result)).into_response();
    }
    let paying = shop.clone().pay(call.clone(), session);
    let stops = matches!(shop.fault, Fault::StopsWhenCut | Fault::StopsAndIgnoresKeys);
    // A task goes on without its client.
    let paying = if stops { paying } else { Box::pin(async { tokio::spawn(paying).await.unwrap() }) };
    if !shop.shape.streams {
        return axum::Json(paying.await).into_response();
    }
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}});
    let event = |message: Value| Ok::<_, Infallible>(format!("event: message\ndata: {message}\n\n"));
    let events = stream::once(async move { event(progress) });
    let events = events.chain(stream::once(async move { event(paying.await) }));
    // A client takes the answer, and does not wait for the end.
    let events = events.chain(stream::pending());
    ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
}

impl Shop {
    fn pay(self, call: Value, session: String) -> futures_util::future::BoxFuture<'static, Value> {
        Box::pin(async move {
            let (id, params) = (&call["id"], &call["params"]);
            let Some(key) = params["_meta"]["idempotencyKey"].as_str().filter(|_| self.keeps()) else {
                return answer(id, "result", self.run(params).await);
            };
            if key.is_empty() || key.len() > 255 {
                return answer(id, "error", json!({"code": -32602, "message": "not a key"}));
            }
            let of = if self.fault == Fault::PerSession { format!("{session} {key}") } else { key.to_owned() };
            let kept = Arc::clone(self.keys.lock().unwrap().entry(of).or_default());
            let compared = match self.fault {
                Fault::ComparesId => json!([params["arguments"], id]),
                Fault::AnyArguments => Value::Null,
                _ => params["arguments"].clone(),
            };
            let mut held = kept.lock().await;
            if let Some((first, answered)) = &*held {
                let mut replay = answered.clone();
                if *first != compared {
                    return answer(id, "error", json!({"code": -32000, "message": "the key is of another call"}));
                }
                if self.fault != Fault::FirstId {
                    replay["id"] = id.clone();
                }
                return replay;
            }
            if self.fault == Fault::Race {
                drop(held);
                let answered = answer(id, "result", self.run(params).await);
                *kept.lock().await = Some((compared, answered.clone()));
                return answered;
            }
            let answered = answer(id, "result", self.run(params).await);
            *held = Some((compared, answered.clone()));
            answered
        })
    }

    fn keeps(&self) -> bool {
        !matches!(self.fault, Fault::IgnoresKeys | Fault::StopsAndIgnoresKeys)
    }

    /// The tool: it pays, and takes a while before it says so.
    async fn run(&self, params: &Value) -> Value {
        if params["arguments"]["amount"] == 0 {
            return json!({"content": [{"type": "text", "text": "no amount"}], "isError": true});
        }
        let payment = {
            let mut payments = self.payments.lock().unwrap();
            let payment = format!("payment {}", payments.len());
            payments.push(payment.clone());
            payment
        };
        let takes = if params["arguments"]["kind"] == "slow" { 1_500 } else { 20 };
        tokio::time::sleep(Duration::from_millis(takes)).await;
        json!({"content": [{"type": "text", "text": payment}]})
    }
}
