//! The tests of a retried unary call: it is replayed, its status included, over a socket.

use std::net::SocketAddr;

use testkit::lab::{Lab, layer, with};
use testkit::{Answer, Call, Connection};
use tokio::net::TcpListener;
use tonic::client::Grpc;
use tonic::transport::{Channel, Server, server::TcpIncoming};
use tonic::{Code, Response, Status};
use tower_idempotency::{IdempotencyLayer, MemoryStore};

use super::charges::{CHARGE, Charges};
use super::text::Text;

async fn server(charges: &Charges) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let layer = IdempotencyLayer::new(MemoryStore::new()).any_body();
    let server = Server::builder().layer(layer).add_service(charges.clone());
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

async fn call(channel: &Channel, key: Option<&str>, amount: &str) -> Result<Response<String>, Status> {
    let mut request = tonic::Request::new(amount.to_owned());
    if let Some(key) = key {
        request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
    }
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    client.unary(request, http::uri::PathAndQuery::from_static(CHARGE), Text).await
}

#[tokio::test]
async fn a_retried_call_is_replayed_and_has_one_effect() {
    let charges = Charges::default();
    let address = server(&charges).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();

    let first = call(&channel, Some("k"), "5 EUR").await.unwrap();
    let retry = call(&channel, Some("k"), "5 EUR").await.unwrap();
    assert!(first.metadata().get("idempotent-replayed").is_none());
    assert_eq!(retry.metadata().get("idempotent-replayed").unwrap(), "true");
    assert_eq!((first.into_inner().as_str(), retry.into_inner().as_str()), ("charge 1: 5 EUR", "charge 1: 5 EUR"));
    assert_eq!(charges.effects(), 1);

    let bare = call(&channel, None, "5 EUR").await.unwrap();
    assert_eq!((bare.into_inner().as_str(), charges.effects()), ("charge 2: 5 EUR", 2));
}

#[tokio::test]
async fn a_failed_status_is_an_outcome_and_a_refusal_is_a_status() {
    let charges = Charges::default();
    let address = server(&charges).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();

    for replayed in [false, true] {
        let declined = call(&channel, Some("k"), "a fortune").await.unwrap_err();
        assert_eq!((declined.code(), declined.message()), (Code::FailedPrecondition, "charge 1 was declined"));
        assert_eq!(declined.metadata().contains_key("idempotent-replayed"), replayed);
    }
    let reused = call(&channel, Some("k"), "5 EUR").await.unwrap_err();
    assert_eq!(reused.code(), Code::FailedPrecondition);
    assert!(reused.message().starts_with("key-reused: "), "{reused:?}");
    assert_eq!(charges.effects(), 1);
}

// gRPC over HTTP/2, "Responses": a client takes another status for a proxy's. Seeded fault: it is the rejection's.
#[tokio::test]
async fn the_head_of_a_refused_call_has_the_status_200() {
    let lab = Lab::counting(layer());
    assert_eq!(lab.post("k", "a").await.status, 200);
    let refused = lab.send(with("content-type", "application/grpc")).await;
    assert_eq!((refused.status.as_u16(), refused.header("grpc-status")), (200, Some("9")));
}

/// Makes one call without tonic's client, and returns the bytes and trailers of the wire.
async fn raw(address: SocketAddr) -> Answer {
    let call = Call::post(CHARGE, "\0\0\0\0\x055 EUR").header("content-type", "application/grpc");
    let call = call.header("te", "trailers").header("idempotency-key", "k");
    Connection::http2(address).await.unwrap().send(&call).await.unwrap()
}

#[tokio::test]
async fn the_status_in_the_trailers_is_replayed() {
    let charges = Charges::default();
    let address = server(&charges).await;
    let (first, retry) = (raw(address).await, raw(address).await);
    assert!(retry.is_replay());
    assert_eq!(retry.header("content-type"), Some("application/grpc"));
    assert_eq!(retry.trailers.as_ref().unwrap()["grpc-status"], "0");
    assert_eq!((first.body, first.trailers), (retry.body, retry.trailers));
    assert_eq!(charges.effects(), 1);
}
