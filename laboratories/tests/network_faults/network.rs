//! The proxy follows its plans, in front of a server that sends back all that it receives.

use std::net::SocketAddr;

use testkit::Gate;
use testkit::proxy::{End, Link, Plan, Until, Way};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const HELLO: &[u8] = b"hello, network";

/// Starts a server that sends back all that it receives, until no more comes.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // An error means that the connection was cut.
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

async fn said_hello(plan: Plan) -> (Link, TcpStream) {
    let link = Link::to(echo().await, plan).await;
    let mut client = TcpStream::connect(link.address).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    (link, client)
}

/// Returns the bytes that a client receives until the connection ends, and whether that end was orderly.
async fn heard(client: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut heard = Vec::new();
    let ended = client.read_to_end(&mut heard).await;
    (heard, ended.is_ok())
}

#[tokio::test]
async fn a_cut_at_byte_k_lets_k_bytes_through() {
    for way in [Way::Request, Way::Response] {
        for byte in 0..=HELLO.len() {
            let (link, mut client) = said_hello(Plan::pass().cut(way, byte, End::Fin)).await;
            let (heard, is_orderly) = heard(&mut client).await;
            assert!(is_orderly, "{way:?}, {byte}");
            drop(client);
            link.is_over().await;
            let traffic = link.traffic();
            assert!(traffic.is_cut);
            match way {
                // The echo may or may not come in time.
                Way::Request => assert_eq!(traffic.request.forwarded, byte),
                Way::Response => assert_eq!(heard, HELLO[..byte]),
            }
        }
    }
}

#[tokio::test]
async fn a_reset_is_no_orderly_end() {
    for way in [Way::Request, Way::Response] {
        let (link, mut client) = said_hello(Plan::pass().cut(way, 5, End::Rst)).await;
        let (heard, is_orderly) = heard(&mut client).await;
        assert!(!is_orderly && heard.len() <= 5);
        link.is_over().await;
    }
}

#[tokio::test]
async fn a_connection_cut_by_half_still_answers() {
    let (link, mut client) = said_hello(Plan::pass().cut(Way::Request, 5, End::Half)).await;
    assert_eq!(heard(&mut client).await, (HELLO[..5].to_vec(), true));
    drop(client);
    link.is_over().await;
    assert!(link.traffic().is_cut);
}

#[tokio::test]
async fn what_is_held_back_comes_when_it_is_told() {
    for way in [Way::Request, Way::Response] {
        let gate = Gate::default();
        let (link, mut client) = said_hello(Plan::pass().hold(way, 5, Until::Told(gate.clone()))).await;
        let mut first = [0; 5];
        client.read_exact(&mut first).await.unwrap();
        gate.arrival().await;
        let held = if way == Way::Request { (5, 5) } else { (HELLO.len(), 5) };
        link.sees("it is held", |traffic| (traffic.request.forwarded, traffic.response.forwarded) == held).await;
        gate.open();
        client.shutdown().await.unwrap();
        assert_eq!(heard(&mut client).await, (HELLO[5..].to_vec(), true));
        link.is_over().await;
    }
}

#[tokio::test]
async fn what_is_swallowed_never_comes_and_the_connection_stays() {
    let (link, mut client) = said_hello(Plan::pass().swallow(Way::Response, 5)).await;
    let mut first = [0; 5];
    client.read_exact(&mut first).await.unwrap();
    link.sees("it is swallowed", |traffic| traffic.response.read == HELLO).await;
    client.shutdown().await.unwrap();
    link.sees("the server ends", |traffic| traffic.is_over).await;
    assert_eq!(link.traffic().response.forwarded, 5);
    assert!(!link.traffic().is_cut);

    let (link, client) = said_hello(Plan::pass().swallow(Way::Request, 5)).await;
    link.sees("it is swallowed", |traffic| traffic.request.read == HELLO && traffic.response.read.len() == 5).await;
    drop(client);
    link.is_over().await;
    assert_eq!((link.traffic().request.forwarded, &*link.traffic().response.read), (5, &HELLO[..5]));
}

#[tokio::test]
async fn what_is_sent_again_is_answered_again() {
    for when in [Until::Over, Until::Read(Way::Request, 1), Until::Read(Way::Request, 1_000)] {
        let plan = Plan::pass().cut(Way::Response, 1, End::Fin).in_chunks(1).again(when);
        let (link, mut client) = said_hello(plan.clone()).await;
        assert_eq!(heard(&mut client).await.0, b"h");
        drop(client);
        link.is_over().await;
        let read = link.traffic().request.read.clone();
        assert!(HELLO.starts_with(&read) && !read.is_empty());
        link.sees("it is sent again", |traffic| traffic.again.read == read).await;
    }
    let (link, client) = said_hello(Plan::pass().again(Until::Over).edited("hello", "HELLO")).await;
    drop(client);
    link.sees("it is sent again", |traffic| traffic.again.read == b"HELLO, network").await;
}
