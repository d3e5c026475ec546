//! Clients that take connections and time.

use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::client::Raw;
use testkit::process::until;
use testkit::{Call, Connection};
use tokio::net::TcpStream;

use super::parts::Parts;

/// The files that the proxy may have open, and more connections than that.
const FILES: usize = 80;
const CONNECTIONS: usize = 120;
/// The time until a test gives up. The proxy takes 30 seconds.
const BOUND: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_or_half_a_head_is_cut() {
    let Some((_directory, parts, _service)) = Parts::served("idle clients of the proxy are cut").await else { return };
    let _proxy = parts.start_proxy(&[]).await;
    // Nothing, a version of HTTP, half a head, and no second request.
    let whole = "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    let ends = ["", "PRI * HTTP/2.0\r\n", "POST /orders HT", whole].map(|said| {
        let proxy = parts.proxy;
        tokio::spawn(async move {
            let mut client = Raw::connect(proxy).await.unwrap();
            client.say(said.as_bytes()).await.unwrap();
            // A reset is an end.
            let _ = tokio::time::timeout(BOUND, client.rest()).await.expect("the connection ends");
        })
    });
    for end in ends {
        end.await.unwrap();
    }
    assert_eq!(parts.effects().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_files_stop_the_proxy_only_while_they_last() {
    let Some((_directory, parts, _service)) = Parts::served("the proxy bears too many connections").await else {
        return;
    };
    let idem = parts.proxy_command();
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &format!("ulimit -n {FILES} && exec \"$@\""), "sh"])
        .arg(idem.get_program())
        .args(idem.get_args());
    limited.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut proxy = parts.start_proxy_by(&mut limited).await;

    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(TcpStream::connect(parts.proxy).await.unwrap());
    }
    let open = format!("/proc/{}/fd", proxy.0.id());
    until("no file is left", async || std::fs::read_dir(&open).unwrap().count() >= FILES).await;
    drop(idle);
    let call = Call::post("/orders", "item=book").header("idempotency-key", "k");
    let answer = Connection::http1(parts.proxy).await.unwrap().send(&call).await.unwrap();
    assert_eq!(answer.status.as_u16(), 201);
    assert!(proxy.0.try_wait().unwrap().is_none(), "it runs on");
}
