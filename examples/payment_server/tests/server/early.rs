//! Answers that come while a client still sends.

use tempfile::tempdir;
use testkit::client::sends_before_it_reads;
use testkit::payment_server::Setup;

/// More than the system keeps for a stream.
const LONG: usize = 24 << 20;

// Seeded fault: a client's stream is closed as soon as it is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_reads_only_once_it_has_sent_all() {
    let directory = tempdir().unwrap();
    let server = Setup::new(&directory).start();
    for (path, key, length, is_chunked, status) in [
        ("/v1/charges", "k", 3_145_779, false, 413),
        ("/v1/charges", "k", LONG, false, 413),
        ("/v1/charges", "k", LONG, true, 413),
        ("/v1/charges", "a b", LONG, false, 400),
        ("/v1/charges", "a b", LONG, true, 400),
        ("/nowhere", "k", LONG, false, 404),
    ] {
        let framed = match is_chunked {
            true => format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n"),
            false => format!("content-length: {length}\r\n\r\n"),
        };
        let head = format!("POST {path} HTTP/1.1\r\nhost: pay.example\r\nidempotency-key: {key}\r\n{framed}");
        let answer = sends_before_it_reads(server.address, head, length).await.expect("it can send all");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {key} {length} {is_chunked}: {answer}");
    }
}
