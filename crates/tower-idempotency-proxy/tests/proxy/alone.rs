//! An answer is its request's own, whatever the service sends after what the proxy takes for its end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use testkit::{Call, Connection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::service::{layer, proxy};

/// What looks like the answer to another request.
const ALIEN: &str = "HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nalien";

/// Reads a request, and returns its first line and its key.
async fn request(stream: &mut TcpStream) -> Option<(String, bool)> {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut some = [0; 1024];
        let length = stream.read(&mut some).await.ok().filter(|length| *length > 0)?;
        read.extend_from_slice(&some[..length]);
    }
    let head = String::from_utf8(read).unwrap();
    Some((head.lines().next()?.to_owned(), head.to_lowercase().contains("idempotency-key")))
}

/// A service that says `answer` to each request without a key, and sends the late bytes once it has the head of the
/// next request on the connection. A request with a key gets an answer of its own. It notes what each connection gets.
async fn late(answer: &'static str, late: &'static str) -> (SocketAddr, Arc<Mutex<Vec<Vec<String>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, noted) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Vec<String>>>>::default());
    let notes = Arc::clone(&noted);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let notes = Arc::clone(&notes);
            let number = {
                let mut notes = notes.lock().unwrap();
                notes.push(Vec::new());
                notes.len() - 1
            };
            tokio::spawn(async move {
                let mut is_late = false;
                while let Some((line, has_key)) = request(&mut stream).await {
                    notes.lock().unwrap()[number].push(line.clone());
                    let own = format!("HTTP/1.1 201 Created\r\ncontent-length: 3\r\n\r\n{:03}", line.len());
                    let says = if has_key { &own } else { answer };
                    let late = if std::mem::replace(&mut is_late, true) { late } else { "" };
                    if stream.write_all(format!("{late}{says}").as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, noted)
}

// Each failed before covered requests had connections of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_key_gets_its_own_answer_whatever_comes_late_on_another_s_connection() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        // More than its length says, or a second answer.
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("POST", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("DELETE", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ] {
        for bytes in ["{\"ok\":true}", "\r\n", "\r\n\r\n", ALIEN] {
            let (service, noted) = late(answer, bytes).await;
            let proxy = proxy(layer(), service).await;
            let mut client = Connection::http1(proxy).await.unwrap();
            let before = client.send(&call(method)).await.unwrap();
            assert!(before.status.as_u16() < 400, "{method} {answer:?}: {before:?}");
            let keyed = Call::post("/orders", "book").header("idempotency-key", "k");
            for is_replay in [false, true] {
                let own = client.send(&keyed).await.unwrap();
                let got = (own.status.as_u16(), own.text().len(), own.is_replay());
                assert_eq!(got, (201, 3, is_replay), "{method} {answer:?} {bytes:?}: {own:?}");
            }
            let noted = noted.lock().unwrap();
            assert_eq!((noted.len(), noted.concat().len()), (2, 2), "{noted:?}");
        }
    }
}

/// A request without a key.
fn call(method: &str) -> Call {
    let body = if method == "POST" { "book" } else { "" };
    Call { method: method.parse().unwrap(), ..Call::post("/orders", body) }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_request_without_a_key_and_without_a_body_may_follow_another_one() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    for (methods, answer, may_follow) in [
        (["GET", "GET"], OK, true),
        (["GET", "HEAD"], OK, true),
        (["GET", "POST"], OK, true),
        (["HEAD", "POST"], OK, false),
        (["GET", "GET"], NO_CONTENT, false),
    ] {
        let (service, noted) = late(answer, "").await;
        let mut client = Connection::http1(proxy(layer(), service).await).await.unwrap();
        let followed =
            || noted.lock().unwrap().iter().filter(|requests| requests.len() > 1).cloned().collect::<Vec<_>>();
        // A connection is free for the next request some time after the answer.
        for _ in 0..if may_follow { 1_000 } else { 20 } {
            for method in methods.into_iter().filter(|_| followed().is_empty()) {
                client.send(&call(method)).await.unwrap();
            }
        }
        assert_eq!(!followed().is_empty(), may_follow, "{methods:?} {answer:?}");
        assert!(followed().concat().iter().all(|line| line.starts_with("GET")), "{methods:?}: {:?}", followed());
    }
}
