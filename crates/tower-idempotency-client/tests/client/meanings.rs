//! The page of meanings says what a client reads in each answer.

use std::collections::BTreeMap;

use http::StatusCode;
use testkit::meanings::{Row, rejections, statuses};
use tower_idempotency_client::{Delivery, Key, KeyedRetryLayer, Known, Reason};

use crate::script::{Script, post};

const REPLAY: (&str, &str) = ("idempotent-replayed", "true");

/// What a call has found out, perhaps after an attempt that was lost: what is known, and whether it would have been
/// sent again.
async fn found(is_lost: bool, status: u16, lines: &[(&str, &str)], body: &'static str) -> (&'static str, bool) {
    let retries = u32::from(is_lost);
    let backoff = retry_policies::policies::ExponentialBackoff::builder().build_with_max_retries(retries);
    let mut request = post("amount=5");
    // The key is the caller's: it may have been sent before.
    request.extensions_mut().insert(Key::random());
    let script = if is_lost { Script::default().fails("reset") } else { Script::default() };
    let script = script.answers(status, lines, body);
    let error = match script.call(&KeyedRetryLayer::new().backoff(backoff), request).await {
        Ok(answer) => {
            assert_eq!(answer.status(), StatusCode::from_u16(status).unwrap());
            let is_unknown = Delivery::of(&answer).unwrap().is_unknown();
            let known = match (answer.status().is_success(), is_unknown) {
                (true, _) => "done",
                (false, true) => "unknown",
                (false, false) => "refused",
            };
            return (known, false);
        }
        Err(error) => error,
    };
    assert_eq!(error.attempts(), 1 + retries);
    let name = match error.known() {
        Known::Refused => "refused",
        Known::Unknown => "unknown",
        Known::Done => "done",
        other => panic!("{status}: {other:?}"),
    };
    (name, !matches!(error.reason(), Reason::Rejected | Reason::NotKept))
}

#[tokio::test(start_paused = true)]
async fn each_status_is_read_as_the_page_says() {
    for (status, row) in statuses() {
        for (is_lost, has_time) in [(false, false), (false, true), (true, false), (true, true)] {
            // No answer but a success says anything of an attempt that was lost.
            let known = if is_lost && status >= 300 { "unknown" } else { row.get("a client knows") };
            let is_again = match status {
                409 => is_lost || has_time,
                413 => has_time,
                _ => row.get("tries again") == "yes",
            };
            let time = has_time.then_some(("retry-after", "1"));
            let name = format!("{status}, {time:?}, after one that was lost: {is_lost}");
            assert_eq!(found(is_lost, status, time.as_slice(), "").await, (known, is_again), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_of_the_operation_comes_before_all_else_that_it_says() {
    for (status, row) in statuses() {
        for (token, alone) in [("none", "refused"), ("pending", "unknown"), ("unknown", "unknown")] {
            for (parameter, is_again) in [
                ("", row.get("tries again") == "yes"),
                // Another request with this key would get the same answer.
                (";retry", status != 422),
                (";retry=?0", false),
            ] {
                for is_lost in [false, true] {
                    // A success can't say that nothing was done.
                    let known = if is_lost || status < 300 { "unknown" } else { alone };
                    let says = format!("{token}{parameter}");
                    // All else says the opposite.
                    let (opposite, again) = (if is_again { "false" } else { "true" }, !is_again);
                    let body = format!(r#"{{"type":"x#not-replayable","retry_with_same_key":{again}}}"#);
                    let lines = [
                        ("idempotency-effect", &*says),
                        ("x-should-retry", opposite),
                        ("content-type", "application/problem+json"),
                    ];
                    let found = found(is_lost, status, &lines, body.leak()).await;
                    assert_eq!(found, (known, is_again), "{status} {says}, after one that was lost: {is_lost}");
                }
            }
        }
    }
    // Two lines of it leave it unknown.
    let doubled = [("idempotency-effect", "none;retry=?0"), ("idempotency-effect", "none;retry=?0")];
    assert_eq!(found(false, 503, &doubled, "").await, ("unknown", true));
}

#[tokio::test(start_paused = true)]
async fn the_status_of_an_answer_that_was_recorded_says_what_the_page_has_for_it() {
    let rows: BTreeMap<_, _> = statuses().into_iter().collect();
    for (status, is_lost) in (300..600).flat_map(|status| [(status, false), (status, true)]) {
        let row = rows.get(&status);
        // One that is not registered says nothing.
        let alone = row.map_or("unknown", |row| row.get("a client knows"));
        // If it says that nothing was started, the application had it recorded because something was.
        let kept = if row.is_some_and(|row| row.get("Refuse") == "not started") { "unknown" } else { alone };
        let done = format!("done;status={status};retry=?0");
        let found = async |status, lines: &[_], body| found(is_lost, status, lines, body).await;
        assert_eq!(found(409, &[("idempotency-effect", &*done)], "").await, (kept, false), "{status} not kept");
        for says in [r#""type":"x#not-replayable","retry_with_same_key":false"#, r#""code":"not_replayable""#] {
            let body = format!(r#"{{{says},"original_status":{status}}}"#);
            let found = found(409, &[("content-type", "application/json")], body.leak()).await;
            assert_eq!(found, (kept, false), "{status} not kept, {says}");
        }
        // A replay is final. A server says of a kept status that nothing was started that this is not so.
        // One that is not registered says nothing.
        let is_refused = (400..500).contains(&status) && status != 408 && rows.contains_key(&status);
        let replayed = if is_refused { "refused" } else { "unknown" };
        assert_eq!(found(status, &[REPLAY], "").await, (replayed, false), "{status} replayed");
        let says = ("idempotency-effect", "unknown;retry=?0");
        assert_eq!(found(status, &[REPLAY, says], "").await, ("unknown", false), "{status} kept and replayed");
    }
}

fn of_token(row: &Row) -> (&'static str, bool) {
    let known = match row.get("says").split(';').next().unwrap() {
        "none" => "refused",
        "pending" | "unknown" => "unknown",
        token => token,
    };
    (known, row.get("says").ends_with(";retry"))
}

#[tokio::test(start_paused = true)]
async fn each_refusal_of_the_layer_is_read_as_the_page_says_with_the_header_and_by_its_body_alone() {
    for row in rejections() {
        let (status, says, expected) = (row.statuses()[0], row.get("says"), of_token(&row));
        assert_eq!(found(false, status, &[("idempotency-effect", says)], "").await, expected, "{row:?}");
        // A gateway has removed the header.
        let original = if says.starts_with("done") { r#","original_status":200"# } else { "" };
        let kind = row.get("problem");
        let body = format!(r#"{{"type":"https://x.example/#{kind}","retry_with_same_key":{}{original}}}"#, expected.1);
        let mut lines = vec![("content-type", "application/problem+json")];
        lines.extend((expected.1).then_some(("retry-after", "1")));
        assert_eq!(found(false, status, &lines, body.leak()).await, expected, "{row:?}");
    }
}
