//! The layer on a hyper server, without axum: `cargo run -p examples --example hyper`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::convert::Infallible;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_idempotency::server::ReplayBody;
use tower_idempotency::{IdempotencyLayer, MemoryStore};

async fn charge(request: Request<ReplayBody<Incoming>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = match request.into_body().collect().await {
        Ok(amount) => format!("charged {}", String::from_utf8_lossy(&amount.to_bytes())),
        Err(error) => format!("not charged: {error}"),
    };
    Ok(Response::new(Full::from(answer)))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let layer = IdempotencyLayer::new(MemoryStore::new()).any_body();
    let service = ServiceBuilder::new().layer(layer).service(service_fn(charge));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let connection = auto::Builder::new(TokioExecutor::new());
                if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                    eprintln!("{error}");
                }
            });
        }
    });

    // This client sends the same charge twice.
    let stream = TcpStream::connect(address).await?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    for attempt in ["the first try", "its retry"] {
        client.ready().await?;
        let request = Request::post("/charges").header(HOST, address.to_string()).header("idempotency-key", "order-17");
        let response = client.send_request(request.body(Full::<Bytes>::from("5 EUR"))?).await?;
        let is_replay = response.headers().contains_key("idempotent-replayed");
        let body = response.into_body().collect().await?.to_bytes();
        println!("{attempt}: {} (replayed: {is_replay})", String::from_utf8_lossy(&body));
    }
    Ok(())
}
