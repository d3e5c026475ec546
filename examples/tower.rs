//! Puts the layer into a Tower stack without axum, among other layers: `cargo run -p examples --example tower`.
//!
//! `.any_body()` lets every body type through, here those of tower-http's limit and compression. In a `ServiceBuilder`
//! the first layer is the outermost: the answer is recorded first and compressed after that, and each retry is
//! compressed as its own client asks.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

async fn charge<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible>
where
    B: Body<Error: std::fmt::Debug>,
{
    let amount = request.into_body().collect().await.map(|body| body.to_bytes());
    Ok(Response::new(Full::from(format!("charged {amount:?}"))))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let service = ServiceBuilder::new()
        .layer(CompressionLayer::new())
        .layer(RequestBodyLimitLayer::new(64 * 1024))
        .layer(IdempotencyLayer::new(MemoryStore::new()).any_body())
        .service(service_fn(charge));

    for attempt in ["the first try", "its retry"] {
        let request = Request::post("/charges").header("idempotency-key", "order-17");
        let request = request.body(Full::<Bytes>::from("5 EUR"))?;
        let response = service.clone().oneshot(request).await.map_err(|error| -> BoxError { error.into() })?;
        let is_replay = response.headers().contains_key("idempotent-replayed");
        let body = response.into_body().collect().await?.to_bytes();
        println!("{attempt}: {} (replayed: {is_replay})", String::from_utf8_lossy(&body));
    }
    Ok(())
}
