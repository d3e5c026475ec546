//! A unary gRPC call and its retry.
//!
//! Run it with `cargo run -p grpc-example`. It starts a server on a free port, calls it twice with one
//! `idempotency-key`, and prints both answers. Look at the second: it has the number of the first charge, and
//! `idempotent-replayed`.

use grpc_example::{CHARGE, Charges, Text};
use tokio::net::TcpListener;
use tonic::client::Grpc;
use tonic::transport::{Channel, Server, server::TcpIncoming};
use tower_idempotency::{IdempotencyLayer, MemoryStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // In earnest: SledStore::open("payments.db")?
    let layer = IdempotencyLayer::new(MemoryStore::new()).any_body();
    let server = Server::builder().layer(layer).add_service(Charges::default());
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
    Ok(())
}
