//! A service in any language says by a header what its answer means.

use std::sync::atomic::Ordering;

use tower_idempotency::OnInterrupted::{self, Refuse, Rerun};
use tower_idempotency::server::Profile;

use crate::service::{Service, layer, proxy, says, send};

#[tokio::test(flavor = "multi_thread")]
async fn each_mark_means_what_it_means_in_rust_and_no_client_sees_it() {
    // The body is the status and the mark of the answer; then what a retry gets, and how often the service has run.
    for (body, retry, runs) in [
        ("503 release", "runs", 2),
        ("502 keep", "replay", 1),
        ("201 secret", "not-replayable", 1),
        ("201 secret unsure", "outcome-unknown", 1),
        ("200 unsure", "outcome-unknown", 1),
        ("200 a-word-that-is-not-known", "outcome-unknown", 1),
        ("503 release unsure", "outcome-unknown", 1),
        ("400 invalid", "replay", 1),
        ("400", "replay", 1),
        ("429", "runs", 2),
        ("502", "outcome-unknown", 1),
    ] {
        let service = Service::default();
        let proxy = proxy(layer(), service.start().await).await;
        let first = send(proxy, "k", body).await;
        assert!(first.status.as_str() == &body[..3] && first.header("idempotency-mark").is_none(), "{body}: {first:?}");
        let again = send(proxy, "k", body).await;
        let got = match again.problem() {
            problem if !problem.is_empty() => problem,
            _ if again.is_replay() => "replay".to_owned(),
            _ => "runs".to_owned(),
        };
        assert_eq!((got.as_str(), service.keys().len()), (retry, runs), "{body}");
        assert!(again.header("idempotency-mark").is_none(), "{body}: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_decides_what_becomes_of_an_invalid_request_and_of_a_5xx() {
    for (profile, body, runs) in [
        (Profile::stripe(), "400 invalid", 2),
        (Profile::stripe(), "500", 1),
        (Profile::acp(), "500", 1),
        (Profile::acp(), "500 release", 2),
    ] {
        let service = Service::default();
        let name = profile.name;
        let proxy = proxy(layer().profile(profile), service.start().await).await;
        send(proxy, "k", body).await;
        send(proxy, "k", body).await;
        assert_eq!(service.keys().len(), runs, "{name}: {body}");
    }
}

/// What a retry gets after an answer of this head. The end of the connection is that of its body, too.
async fn retried(policy: OnInterrupted, head: &str, length: &str) -> &'static str {
    let (service, seen) = says(format!("HTTP/1.1 {head}{length}\r\norder 1").leak()).await;
    let proxy = proxy(layer().on_interrupted(policy), service).await;
    let first = send(proxy, "k", "book").await;
    let lines = first.headers.get_all("idempotency-effect").iter().count();
    assert!(lines < 2, "{head:?}: {lines} lines say what has become of it");
    let again = send(proxy, "k", "book").await;
    match (&*again.problem(), again.is_replay(), seen.load(Ordering::SeqCst)) {
        ("", true, 1) => "replay",
        ("outcome-unknown", false, 1) => "unknown",
        ("", false, 2) => "runs",
        other => panic!("{policy:?} {head:?} {length:?}: {other:?}"),
    }
}

const RELEASE: &str = "idempotency-mark: release\r\n";
const KEEP: &str = "idempotency-mark: keep\r\n";
const INVALID: &str = "idempotency-mark: invalid\r\n";
const UNSURE: &str = "idempotency-mark: unsure\r\n";
const A_WORD: &str = "idempotency-mark: Keep it\r\n";
const NONE: &str = "idempotency-effect: none;retry\r\n";
const PENDING: &str = "idempotency-effect: pending;retry\r\n";

/// `Connection` may say that the mark is for the proxy alone, as it is. Seeded fault: what it names is removed first.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_connection_names_is_read() {
    for (line, expected) in [(RELEASE, "runs"), (UNSURE, "unknown"), (NONE, "runs"), (PENDING, "unknown")] {
        let head = format!("201 Created\r\nconnection: close, idempotency-mark, idempotency-effect\r\n{line}");
        assert_eq!(retried(Refuse, &head, "content-length: 7\r\n").await, expected, "{line}");
    }
}

/// Each pair of a mark, what a layer of the service's own says, a status, a declared end and a policy.
#[tokio::test(flavor = "multi_thread")]
async fn each_mark_with_each_end_and_each_status_under_each_policy() {
    // Under `Refuse`: 201, 401 and 500 with an end, and then each without one.
    for (marks, with, without) in [
        (vec![], ["replay", "runs", "replay"], ["unknown", "runs", "unknown"]),
        (vec![RELEASE], ["runs"; 3], ["runs"; 3]),
        (vec![KEEP], ["replay"; 3], ["unknown"; 3]),
        // Nothing was done, and what may be a half is not kept.
        (vec![INVALID], ["replay", "runs", "replay"], ["runs"; 3]),
        (vec![UNSURE], ["unknown"; 3], ["unknown"; 3]),
        (vec![A_WORD], ["unknown"; 3], ["unknown"; 3]),
        (vec![RELEASE, RELEASE], ["unknown"; 3], ["unknown"; 3]),
        (vec![KEEP, RELEASE], ["unknown"; 3], ["unknown"; 3]),
        (vec![NONE], ["runs"; 3], ["runs"; 3]),
        (vec![PENDING], ["unknown"; 3], ["unknown"; 3]),
        (vec![NONE, NONE], ["unknown"; 3], ["unknown"; 3]),
        (vec![NONE, PENDING], ["unknown"; 3], ["unknown"; 3]),
        // The mark is the service's last word.
        (vec![RELEASE, PENDING], ["runs"; 3], ["runs"; 3]),
        (vec![KEEP, NONE], ["replay"; 3], ["unknown"; 3]),
        (vec![INVALID, PENDING], ["replay", "runs", "replay"], ["runs"; 3]),
        (vec![UNSURE, NONE], ["unknown"; 3], ["unknown"; 3]),
        (vec![RELEASE, RELEASE, NONE], ["unknown"; 3], ["unknown"; 3]),
    ] {
        for (status, number) in [("201 Created", 0), ("401 Unauthorized", 1), ("500 Server Error", 2)] {
            let head = format!("{status}\r\n{}", marks.concat());
            for (length, refuse) in [("content-length: 7\r\n", with[number]), ("", without[number])] {
                assert_eq!(retried(Refuse, &head, length).await, refuse, "{head:?} {length:?}");
                let rerun = match refuse {
                    "unknown" => "runs",
                    // An error of the server's is unknown there, if no mark says what it is.
                    "replay" if !marks.contains(&KEEP) && number == 2 => "runs",
                    same => same,
                };
                assert_eq!(retried(Rerun, &head, length).await, rerun, "rerun: {head:?} {length:?}");
            }
        }
    }
}
