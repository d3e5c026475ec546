//! Clients that stall, and outputs that take no data: the server goes on, and stops in time.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::tempdir;
use testkit::client::Raw;
use testkit::payment_server::Setup;
use testkit::process::{eventually, signal};
use testkit::{Call, Connection};
use tokio::time::timeout;

/// The beginning of an HTTP/2 connection, with empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Connections that will never send another byte, each with a different part of a request.
async fn standing_still(address: SocketAddr) -> Vec<Raw> {
    let half_a_body = b"POST /v1/charges HTTP/1.1\r\nhost: pay.example\r\nidempotency-key: half\r\n\
        content-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\namount=10";
    let whole = b"GET /readyz HTTP/1.1\r\nhost: pay.example\r\n\r\n";
    let kinds: [&[u8]; 5] = [b"", b"POST /v1/charges HT", half_a_body, PREFACE, whole];
    let mut clients = Vec::new();
    for bytes in kinds.iter().cycle().take(100) {
        let mut client = begun(address, bytes).await;
        if bytes.starts_with(b"GET") {
            // An idle connection: its request was answered.
            assert!(client.answer().await.is_some());
        }
        clients.push(client);
    }
    clients
}

async fn begun(address: SocketAddr, bytes: &[u8]) -> Raw {
    let mut client = Raw::connect(address).await.unwrap();
    client.say(bytes).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_91_sigterm_ends_the_server_cleanly_however_many_clients_stand_still() {
    let directory = tempdir().unwrap();
    let setup = Setup::new(&directory);
    let mut server = setup.start();
    let call = Call::charge("before", "tok_visa");
    server.send(&call).await;
    let streams = standing_still(server.address).await;
    // This client doesn't stall, but its charge takes a while.
    let slow = Call::charge("slow", "tok_slow");
    drop(server.charging_slowly(&slow).await);
    server.terminate();
    assert_eq!(server.exit().await.code(), Some(0));
    let log = server.log.whole().await;
    assert!(log.contains("stopped") && log.contains("connections that have not ended are closed"), "{log}");
    for unclean in ["still held", "panicked", "not all was recorded"] {
        assert!(!log.contains(unclean), "{unclean}: {log}");
    }
    drop(streams);
    let server = setup.start();
    assert!(server.send(&call).await.is_replay());
    assert!(server.send(&slow).await.is_replay(), "it was finished and recorded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_no_request_is_let_go_after_a_while() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    let half: [&[u8]; 4] = [b"", b"PRI * HT", PREFACE, b"POST /v1/charges HT"];
    let mut clients = Vec::new();
    for bytes in half {
        clients.push(begun(server.address, bytes).await);
    }
    for client in clients {
        // The server's HTTP/2 preface, or the reason why a head is refused, and then the end, which may be a reset.
        let ended = timeout(Duration::from_secs(60), client.rest()).await;
        assert!(ended.is_ok(), "it is never let go");
    }
    server.stop().await;
}

/// A server whose output can't be read. The test finds it at the port that it gave it.
struct Mute {
    child: Child,
    address: SocketAddr,
}

impl Mute {
    fn start(setup: &Setup, stdout: Stdio, stderr: Stdio) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut command = setup.clone().listening(address).command();
        command.stdout(stdout).stderr(stderr);
        Self { child: command.spawn().unwrap(), address }
    }

    async fn charge(&self, call: &Call) -> testkit::Answer {
        let connect = || TcpStream::connect(self.address).ok();
        eventually("it listens", connect).await;
        Connection::http1(self.address).await.unwrap().send(call).await.unwrap()
    }

    async fn stop(mut self) -> Option<i32> {
        signal(self.child.id(), "TERM");
        eventually("it ends", || self.child.try_wait().unwrap()).await.code()
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn trap_90_nothing_that_is_printed_ends_the_server() {
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    // A pipe whose reader is gone.
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    for output in [&full as &dyn Fn() -> Stdio, &closed] {
        let directory = tempdir().unwrap();
        let setup = Setup::new(&directory).with("--on-interrupted refuse");
        for (round, is_replay) in [(0, false), (1, true)] {
            let server = Mute::start(&setup, output(), output());
            let charge = server.charge(&Call::charge("k", "tok_visa")).await;
            assert_eq!((charge.status.as_u16(), charge.is_replay()), (200, is_replay), "start {round}");
            // A handler's panic is logged too.
            let panicked = server.charge(&Call::charge(&format!("p{round}"), "tok_panic")).await;
            assert_eq!(panicked.status, 500);
            assert_eq!(server.stop().await, Some(0));
        }
    }
}
