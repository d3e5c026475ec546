//! What the body of an answer says counts before its status.

use std::time::Duration;

use http_body_util::BodyExt as _;
use retry_policies::policies::ExponentialBackoff;
use testkit::meanings::{Said, bodies};
use tokio::time::Instant;
use tower_idempotency_client::{BodyJudge, Delivery, Error, Key, KeyedRetryLayer, Known, Reason, Says};

use crate::script::{Answer, Script, post};

const REPLAY: (&str, &str) = ("idempotent-replayed", "true");
const JSON: (&str, &str) = ("content-type", "application/json");
const BUSY: &str = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"busy"}}"#;
const THROTTLED: &str = r#"{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}]}"#;

fn backoff(retries: u32) -> ExponentialBackoff {
    ExponentialBackoff::builder().build_with_max_retries(retries)
}

/// A layer for the answers of a row. gRPC's are judged without being asked.
fn layer_for(said: &Said, retries: u32) -> KeyedRetryLayer {
    let layer = KeyedRetryLayer::new().backoff(backoff(retries));
    if said.judge == "grpc" { layer } else { layer.judge(said.judge.parse().unwrap()) }
}

/// What a call has found out: what is known, and whether it would have been sent again.
fn found(result: Result<Answer, Error>) -> (&'static str, bool) {
    let error = match result {
        Ok(answer) => {
            let is_unknown = Delivery::of(&answer).unwrap().is_unknown();
            return match (Delivery::is_success(&answer), is_unknown) {
                (true, false) => ("done", false),
                (false, true) => ("unknown", false),
                (false, false) => ("refused", false),
                (true, true) => panic!("a success that is unknown"),
            };
        }
        Err(error) => error,
    };
    let known = match error.known() {
        Known::Refused => "refused",
        Known::Unknown => "unknown",
        other => panic!("{other:?}"),
    };
    (known, !matches!(error.reason(), Reason::Rejected | Reason::NotKept))
}

#[tokio::test(start_paused = true)]
async fn each_body_is_read_as_the_page_says() {
    for said in bodies() {
        for is_lost in [false, true] {
            let lost = if is_lost { Script::default().fails("reset") } else { Script::default() };
            let alone = said.row.get("a client knows");
            // No answer but a success says anything of an attempt that was lost.
            let known = if is_lost && alone != "done" { "unknown" } else { alone };
            let call = lost.says(&said, &[]).post(&layer_for(&said, u32::from(is_lost))).await;
            assert_eq!(found(call), (known, said.row.get("tries again") == "yes"), "{said:?}, lost: {is_lost}");
            // A replay is the answer.
            let call = Script::default().says(&said, &[REPLAY]).post(&layer_for(&said, 0)).await;
            assert_eq!(found(call), (alone, false), "{said:?}, replayed");
        }
    }
}

// Seeded fault: a success says that nothing was done.
#[tokio::test(start_paused = true)]
async fn the_header_comes_before_the_body_and_is_believed_of_a_200_that_is_no_success() {
    for said in bodies() {
        let is_done = said.row.get("a client knows") == "done";
        for (says, is_again) in [("none;retry", true), ("none;retry=?0", false)] {
            let known = if is_done && said.judge != "grpc" { "unknown" } else { "refused" };
            let call = Script::default().says(&said, &[("idempotency-effect", says)]).post(&layer_for(&said, 0)).await;
            assert_eq!(found(call), (known, is_again), "{said:?} {says}");
        }
        for (says, is_again) in [("unknown;retry", true), ("unknown;retry=?0", false), ("pending;retry", true)] {
            let call = Script::default().says(&said, &[("idempotency-effect", says)]).post(&layer_for(&said, 0)).await;
            assert_eq!(found(call), ("unknown", is_again), "{said:?} {says}");
        }
        let kept = [REPLAY, ("idempotency-effect", "unknown;retry=?0")];
        let call = Script::default().says(&said, &kept).post(&layer_for(&said, 0)).await.unwrap();
        assert!(Delivery::of(&call).unwrap().is_unknown(), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_caller_gets_the_whole_answer_and_what_it_says() {
    for said in bodies().into_iter().filter(|said| said.row.get("tries again") == "no") {
        let answer = Script::default().says(&said, &[]).post(&layer_for(&said, 9)).await.unwrap();
        let says = Delivery::of(&answer).unwrap().says().unwrap();
        assert_eq!(says == Says::Done, said.row.get("a client knows") == "done", "{said:?}");
        let body = answer.into_body().collect().await.unwrap();
        let status = body.trailers().map(|trailers| trailers["grpc-status"].to_str().unwrap().to_owned());
        assert_eq!((status, &*body.to_bytes()), (said.grpc_status, said.body.as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_throttled_waits_for_its_points_or_for_retry_after_and_is_done_then() {
    let done = r#"{"data":{"pay":{"id":7}}}"#;
    let cost = r#","extensions":{"cost":{"requestedQueryCost":51,"throttleStatus":{"currentlyAvailable":1,"restoreRate":10}}}}"#;
    let with_cost: &str = format!("{}{cost}", THROTTLED.strip_suffix('}').unwrap()).leak();
    for (body, lines, seconds) in [
        (THROTTLED, vec![JSON], 0),
        (THROTTLED, vec![JSON, ("retry-after", "7")], 7),
        (with_cost, vec![JSON], 5),
        (with_cost, vec![JSON, ("retry-after", "7")], 7),
    ] {
        let layer = KeyedRetryLayer::new().judge(BodyJudge::graphql());
        let (began, script) =
            (Instant::now(), Script::default().answers(200, &lines, body).answers(200, &[JSON], done));
        let answer = script.post(&layer).await.unwrap();
        assert_eq!(Delivery::of(&answer).unwrap().attempts(), 2);
        let waited = began.elapsed();
        let most = Duration::from_secs(seconds + 1);
        assert!(waited >= Duration::from_secs(seconds) && waited < most, "{waited:?} for {seconds}");
        assert_eq!(script.keys()[0], script.keys()[1]);
    }
    let layer = KeyedRetryLayer::new().judge(BodyJudge::graphql()).backoff(backoff(0));
    let error = Script::default().answers(200, &[JSON], THROTTLED).post(&layer).await.unwrap_err();
    assert_eq!((error.known(), error.says()), (Known::Refused, Some(Says::TryLater(None))));
    assert!(error.to_string().ends_with("(200 OK: not started, try later, attempt 1)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_cut_or_no_json_says_nothing_and_its_status_counts() {
    let judged = || KeyedRetryLayer::new().judge(BodyJudge::json_rpc()).backoff(backoff(0));
    // Blanks follow it, up to this length.
    for (kind, limit, length, says) in [
        ("application/json", 0, 1 << 16, Some(Says::Failed)),
        ("application/json", 0, (1 << 16) + 1, None),
        ("application/json", 70_000, 70_000, Some(Says::Failed)),
        ("application/json", 70_000, 70_001, None),
        ("text/plain", 70_000, 1_000, None),
        ("text/event-stream", 70_000, 1_000, None),
    ] {
        let body: &str = [BUSY, &" ".repeat(length - BUSY.len())].concat().leak();
        let script = Script::default().answers(200, &[("content-type", kind)], body);
        let answer = script.post(&judged().max_answer(limit)).await.unwrap();
        assert_eq!(Delivery::of(&answer).unwrap().says(), says, "{kind} {limit} {length}");
        assert_eq!(Delivery::is_success(&answer), says.is_none(), "{kind} {limit} {length}");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
    }
    // gRPC's status is in the head of an answer without a body.
    let refused = [("content-type", "application/grpc"), ("grpc-status", "5")];
    let script = Script::default().answers(200, &refused, "");
    let answer = script.post(&KeyedRetryLayer::new().max_answer(0)).await.unwrap();
    assert_eq!(Delivery::of(&answer).unwrap().says(), Some(Says::Refused));
    // Without the option it is not judged.
    let answer = Script::default().answers(200, &[JSON], BUSY).post(&KeyedRetryLayer::new()).await.unwrap();
    assert_eq!(Delivery::of(&answer).unwrap().says(), None);
    let error = Script::default().breaks_off(200, &[JSON]).post(&judged()).await.unwrap_err();
    assert_eq!((error.known(), error.says()), (Known::Unknown, None));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_says_to_try_again_does_so_and_the_body_says_what_is_known() {
    for status in 200..600 {
        let layer = KeyedRetryLayer::new().judge(BodyJudge::json_rpc()).backoff(backoff(0));
        let call = Script::default().answers(status, &[JSON], BUSY).post(&layer).await;
        let is_again = matches!(status, 408 | 421 | 425 | 429 | 502..=504);
        assert_eq!(found(call), ("unknown", is_again), "{status}");
    }
}

// A corrected request may have its key, and another one of what may have been done may not.
#[tokio::test(start_paused = true)]
async fn a_key_is_free_after_a_refusal_in_a_body_and_taken_after_anything_else() {
    for said in bodies().into_iter().filter(|said| said.row.get("tries again") == "no") {
        let layer = layer_for(&said, 0);
        let of = |body| {
            let mut request = post(body);
            request.extensions_mut().insert(Key::new("order-7").unwrap());
            request
        };
        let script = Script::default().says(&said, &[]).answers(201, &[], "");
        script.call(&layer, of("amount=5")).await.unwrap();
        let other = script.call(&layer, of("amount=6")).await;
        let is_reused = other.is_err_and(|error| error.reason() == Reason::KeyReused);
        assert_eq!(is_reused, said.row.get("a client knows") != "refused", "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_meets_a_refusal_in_a_body_says_nothing_of_an_attempt_that_was_lost() {
    let done = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    for (body, is_found) in [(done, true), (BUSY, false)] {
        let layer = KeyedRetryLayer::new().judge(BodyJudge::json_rpc()).without_redirects().with_probes();
        let script = Script::default().fails("reset").answers(200, &[JSON], body);
        assert_eq!(script.post(&layer.backoff(backoff(0))).await.is_ok(), is_found, "{body}");
    }
}
