//! Makes a unary gRPC call and its retry, with tonic: `cargo run -p examples --example grpc`.
//!
//! A server on a free port is called twice with one `idempotency-key`. The second answer has the number of the first
//! charge, and `idempotent-replayed`.
//!
//! The layer goes where tonic's layers go, `Server::builder().layer(…)`, with `any_body()`, because tonic's body is a
//! type of its own. A refused call gets a gRPC status. Every call is a POST, which is covered; the `idempotency-key`
//! metadata is an HTTP header; `grpc-status` is a trailer, and is recorded and replayed; `te: trailers`, which gRPC
//! clients send, is no part of the fingerprint. A server stream is recorded if it ends within `outcome_body_timeout`
//! and `max_response_body`; a longer one is passed on and not replayed.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod charges;
#[cfg(test)]
mod tests;
mod text;

use charges::{CHARGE, Charges};
use text::Text;
use tokio::net::TcpListener;
use tonic::client::Grpc;
use tonic::transport::{Channel, Server, server::TcpIncoming};
use tower_idempotency::{IdempotencyLayer, MemoryStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let charges = Charges::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // In production: SledStore::open("payments.db")?
    let layer = IdempotencyLayer::new(MemoryStore::new()).any_body();
    let server = Server::builder().layer(layer).add_service(charges.clone());
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
    for attempt in ["the first call", "its retry"] {
        let mut request = tonic::Request::new("5 EUR".to_owned());
        request.metadata_mut().insert("idempotency-key", "order-17".parse()?);
        let mut client = Grpc::new(channel.clone());
        client.ready().await?;
        let response = client.unary(request, http::uri::PathAndQuery::from_static(CHARGE), Text).await?;
        let replayed = response.metadata().get("idempotent-replayed").is_some();
        println!("{attempt}: {} (replayed: {replayed})", response.into_inner());
    }
    assert_eq!(charges.effects(), 1);
    Ok(())
}
