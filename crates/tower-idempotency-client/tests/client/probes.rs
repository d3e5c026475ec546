//! A call that would end as unknown looks once what became of it, where the API answers probes.

use std::time::Duration;

use http_body_util::BodyExt as _;
use retry_policies::policies::ExponentialBackoff;
use tokio::time::Instant;
use tower_idempotency_client::{Delivery, KeyedRetryLayer, Known, Reason};

use crate::script::Script;

/// One attempt only, and a probe.
fn layer() -> KeyedRetryLayer {
    KeyedRetryLayer::new().backoff(ExponentialBackoff::builder().build_with_max_retries(0)).with_probes()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_lost_finds_its_answer_by_a_probe_with_its_key_and_its_bytes() {
    let script =
        Script::default().fails("connection reset").answers(200, &[("idempotent-replayed", "true")], "charged");
    let answer = script.post(&layer()).await.unwrap();
    assert!(Delivery::of(&answer).unwrap().is_replay());
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "charged");
    let sent = script.sent();
    assert_eq!(sent[0].headers().get("idempotency-probe"), None);
    assert_eq!(sent[1].headers()["idempotency-probe"], "?1");
    assert_eq!((sent[0].body(), sent[0].uri(), sent[0].method()), (sent[1].body(), sent[1].uri(), sent[1].method()));
    assert_eq!(sent[0].headers()["idempotency-key"], sent[1].headers()["idempotency-key"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_says_of_the_operation_counts_and_nothing_else_does() {
    let lost = || Script::default().fails("connection reset");
    let problem = [("content-type", "application/problem+json")];
    let done = r#"{"type":"/not-replayable","retry_with_same_key":false,"original_status":201}"#;
    let unknown = r#"{"type":"/outcome-unknown","retry_with_same_key":false,"record_id":"7ecb7a42"}"#;
    for (script, known, reason, id) in [
        // A request that is on its way may still arrive.
        (lost().problem(404, "not-found", true), Known::Unknown, Reason::Backoff, None),
        (lost().problem(409, "in-flight", true), Known::Unknown, Reason::Backoff, None),
        (lost().answers(404, &[], ""), Known::Unknown, Reason::Backoff, None),
        (lost().answers(401, &[], ""), Known::Unknown, Reason::Backoff, None),
        (lost().fails("connection reset"), Known::Unknown, Reason::Backoff, None),
        (lost().hangs(), Known::Unknown, Reason::Backoff, None),
        (lost().answers(409, &problem, done), Known::Done, Reason::NotKept, None),
        (lost().answers(409, &problem, unknown), Known::Unknown, Reason::Rejected, Some("7ecb7a42")),
    ] {
        let began = Instant::now();
        let error = script.post(&layer()).await.unwrap_err();
        assert_eq!(
            (error.known(), error.reason(), error.record_id()),
            (known, reason, id.map(str::to_owned)),
            "{error}"
        );
        assert!(began.elapsed() <= Duration::from_secs(5));
    }
}

#[tokio::test(start_paused = true)]
async fn no_probe_is_sent_where_none_is_promised_or_nothing_is_unknown() {
    let once = KeyedRetryLayer::new().backoff(ExponentialBackoff::builder().build_with_max_retries(0));
    let lost = || Script::default().fails("connection reset");
    // Each script has one attempt, and a second one would panic.
    assert_eq!(lost().post(&once.without_redirects()).await.unwrap_err().known(), Known::Unknown);
    assert_eq!(Script::default().answers(429, &[], "").post(&layer()).await.unwrap_err().known(), Known::Refused);
    let rejected = Script::default().problem(409, "outcome-unknown", false).post(&layer()).await.unwrap_err();
    assert_eq!(rejected.reason(), Reason::Rejected, "the server has said what it knows");
    assert_eq!(Script::default().answers(500, &[], "").post(&layer()).await.unwrap().status(), 500);
}
