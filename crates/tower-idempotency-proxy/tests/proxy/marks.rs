//! A service in any language says by a header what its answer means.

use std::sync::atomic::Ordering;

use tower_idempotency::OnInterrupted::{self, Refuse, Rerun};
use tower_idempotency::server::Profile;
use tower_idempotency_proxy::Upstream;

use crate::service::{Service, layer, proxied, proxy, says, send};

#[tokio::test(flavor = "multi_thread")]
async fn each_mark_means_what_it_means_in_rust_and_goes_on_as_it_was_read() {
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
        let read = match body.split_once(' ') {
            Some((_, mark @ ("release" | "keep" | "secret" | "invalid"))) => Some(mark),
            Some(_) => Some("unsure"),
            None => None,
        };
        assert_eq!((first.status.as_str(), first.header("idempotency-mark")), (&body[..3], read), "{body}: {first:?}");
        let again = send(proxy, "k", body).await;
        let got = match again.problem() {
            problem if !problem.is_empty() => problem,
            _ if again.is_replay() => "replay".to_owned(),
            _ => "runs".to_owned(),
        };
        assert_eq!((got.as_str(), service.keys().len()), (retry, runs), "{body}");
        let is_refused = !again.problem().is_empty();
        assert_eq!(again.header("idempotency-mark"), read.filter(|_| !is_refused), "{body}: {again:?}");
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
        let head = format!("500 Server Error\r\nconnection: close, idempotency-mark, idempotency-effect\r\n{line}");
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
        // A success contradicts it.
        (vec![NONE], ["unknown", "runs", "runs"], ["unknown", "runs", "runs"]),
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

// Before it was read as an Item of structured fields, `none;;` was `none`, and so it was in a 2xx.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_well_formed_none_of_an_error_says_that_nothing_was_done() {
    for (value, is_none) in [
        ("none", true),
        ("none;retry", true),
        ("none;retry=?0", true),
        ("none; retry", true),
        ("none;more=\"a;b\"", true),
        ("none;;", false),
        ("none;", false),
        ("none;=", false),
        ("none;retry=", false),
        ("none;retry=?2", false),
        ("none;Retry", false),
        ("none ;retry", false),
        ("none, none", false),
        ("none none", false),
        ("None", false),
        ("NONE", false),
        ("\"none\"", false),
        (":bm9uZQ==:", false),
        ("?0", false),
        ("0", false),
        ("nonexistent", false),
        ("", false),
        ("pending", false),
        ("done;status=409", false),
    ] {
        for status in
            ["200 OK", "201 Created", "204 No Content", "303 See Other", "401 Unauthorized", "500 Server Error"]
        {
            let head = format!("{status}\r\nidempotency-effect: {value}\r\n");
            let length = if status.starts_with("204") { "" } else { "content-length: 7\r\n" };
            let expected = if is_none && !status.starts_with('2') { "runs" } else { "unknown" };
            assert_eq!(retried(Refuse, &head, length).await, expected, "{value:?} {status}");
        }
    }
}

// Before the profile won over the proxy's rules, 409 ran again under `rerun`, and 419 without an end was unknown.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_profile_says_of_a_status_wins_over_the_proxy_s_rules() {
    let key = "0198c2a4-7b1c-7d2e-8f00-1a2b3c4d5e6f";
    for (profile, policy, status, has_end, runs) in [
        // A client of Iceberg deletes its files after a 409: a late copy of the request must not commit them.
        (Profile::iceberg(), Rerun, "409 Conflict", true, 1),
        (Profile::iceberg(), Refuse, "409 Conflict", true, 1),
        (Profile::draft(), Rerun, "409 Conflict", true, 2),
        (Profile::acp(), Rerun, "409 Conflict", true, 2),
        (Profile::stripe(), Rerun, "409 Conflict", true, 2),
        (Profile::draft(), Refuse, "409 Conflict", true, 1),
        (Profile::iceberg(), Refuse, "419 Authentication Timeout", true, 2),
        (Profile::iceberg(), Refuse, "419 Authentication Timeout", false, 2),
        (Profile::draft(), Refuse, "419 Authentication Timeout", false, 1),
        (Profile::iceberg(), Refuse, "401 Unauthorized", false, 2),
        (Profile::iceberg(), Refuse, "403 Forbidden", false, 2),
        (Profile::iceberg(), Refuse, "429 Too Many Requests", false, 2),
        (Profile::iceberg(), Refuse, "503 Service Unavailable", true, 1),
        (Profile::iceberg(), Rerun, "503 Service Unavailable", true, 2),
        (Profile::draft(), Rerun, "503 Service Unavailable", true, 2),
    ] {
        let length = if has_end { "content-length: 7\r\n" } else { "" };
        let (service, seen) = says(format!("HTTP/1.1 {status}\r\n{length}\r\norder 1").leak()).await;
        let upstream = Upstream::new(format!("http://{service}").parse().unwrap()).unwrap();
        let (name, upstream) = (profile.name, upstream.envelope(profile.envelope));
        let proxy = proxied(layer().profile(profile).on_interrupted(policy), upstream).await;
        for _ in 0..2 {
            send(proxy, key, "book").await;
        }
        assert_eq!(seen.load(Ordering::SeqCst), runs, "{name} {policy:?} {status} {has_end}");
    }
}
