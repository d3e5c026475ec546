//! A client of JSON-RPC whose key is in the body: `cargo run -p examples --example json_rpc_call`.
//!
//! The key is chosen once for a call, and each attempt has a new `id`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_idempotency_client::{BodyJudge, Delivery, Key, KeyedRetryLayer, RetryBody};

static IDS: AtomicU32 = AtomicU32::new(1);

/// A JSON-RPC call, each of whose clones has an `id` of its own.
struct Message {
    params: String,
    sent: Full<Bytes>,
}

impl Message {
    fn new(params: String, id: u32) -> Self {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"charge","params":{params}}}"#);
        Self { sent: Full::from(text), params }
    }
}

impl RetryBody for Message {
    fn try_clone(&self) -> Option<Self> {
        Some(Self::new(self.params.clone(), IDS.fetch_add(1, Ordering::Relaxed)))
    }

    fn compared(&self) -> Option<Self> {
        Some(Self::new(self.params.clone(), 0))
    }
}

impl Body for Message {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.sent).poll_frame(cx)
    }
}

/// A service whose first answer is lost.
async fn answer(request: Request<Message>) -> Result<Response<Full<Bytes>>, BoxError> {
    let sent = request.into_body().collect().await?.to_bytes();
    let sent = String::from_utf8_lossy(&sent);
    println!("-> {sent}");
    let id = sent.split(['{', ':', ',']).nth(4).unwrap_or_default();
    if id == "1" {
        return Err("the connection broke".into());
    }
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"charged"}}"#);
    println!("<- {answer}");
    Ok(Response::builder().header("content-type", "application/json").body(Full::from(answer))?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Save it with the order before the first call. The layer writes it into the header, too.
    let key = Key::random();
    let params = format!(r#"{{"amount":500,"_meta":{{"idempotencyKey":"{}"}}}}"#, key.as_str());
    let client = KeyedRetryLayer::new().judge(BodyJudge::json_rpc()).layer(service_fn(answer));
    let request = Request::post("http://localhost/").header("content-type", "application/json").extension(key);
    let got = client.oneshot(request.body(Message::new(params, 0))?).await?;
    assert!(Delivery::is_success(&got) && Delivery::of(&got).is_some_and(|delivery| delivery.attempts() == 2));
    Ok(())
}
