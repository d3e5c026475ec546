//! A client of GraphQL whose key is in the body: `cargo run -p examples --example graphql_call`.
//!
//! The server says behind a 200 that it is busy, and the call is sent again with its key.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_idempotency_client::{BodyJudge, Delivery, Key, KeyedRetryLayer};

static ATTEMPTS: AtomicU32 = AtomicU32::new(0);

/// A service that is busy at first.
async fn answer(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
    let sent = request.into_body().collect().await?.to_bytes();
    println!("-> {}", String::from_utf8_lossy(&sent));
    let answer = match ATTEMPTS.fetch_add(1, Ordering::Relaxed) {
        0 => r#"{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}]}"#,
        _ => r#"{"data":{"refundCreate":{"refund":{"id":"1"}}}}"#,
    };
    println!("<- {answer}");
    Ok(Response::builder().header("content-type", "application/json").body(Full::from(answer))?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Save it with the refund before the first call. The layer writes it into the header, too.
    let key = Key::random();
    let mutation = "mutation($key: String!) { refundCreate(order: 7) @idempotent(key: $key) { refund { id } } }";
    let call = format!(r#"{{"query":"{mutation}","variables":{{"key":"{}"}}}}"#, key.as_str());
    let client = KeyedRetryLayer::new().judge(BodyJudge::graphql()).layer(service_fn(answer));
    let request = Request::post("http://localhost/").header("content-type", "application/json").extension(key);
    let got = client.oneshot(request.body(Full::from(call))?).await?;
    assert!(Delivery::is_success(&got) && Delivery::of(&got).is_some_and(|delivery| delivery.attempts() == 2));
    Ok(())
}
