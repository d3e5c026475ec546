//! The page of meanings says what a client reads in each answer.

use std::collections::BTreeMap;

use http::StatusCode;
use testkit::meanings::{Row, rejections, statuses};
use tower_idempotency_client::{Delivery, Key, KeyedRetryLayer, Known, Reason};

use crate::script::{Script, post};

/// What a call has found out: what is known, and whether it would have been sent again.
async fn found(status: u16, lines: &[(&str, &str)], body: &'static str) -> (&'static str, bool) {
    let once = retry_policies::policies::ExponentialBackoff::builder().build_with_max_retries(0);
    let mut request = post("amount=5");
    // The key is the caller's: it may have been sent before.
    request.extensions_mut().insert(Key::random());
    let script = Script::default().answers(status, lines, body);
    let known = match script.call(&KeyedRetryLayer::new().backoff(once), request).await {
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
    let name = match known.known() {
        Known::Refused => "refused",
        Known::Unknown => "unknown",
        Known::Done => "done",
        other => panic!("{status}: {other:?}"),
    };
    (name, !matches!(known.reason(), Reason::Rejected | Reason::NotKept))
}

#[tokio::test(start_paused = true)]
async fn each_status_is_read_as_the_page_says() {
    for (status, row) in statuses() {
        let expected = (row.get("a client knows"), row.get("tries again") == "yes");
        assert_eq!(found(status, &[], "").await, expected, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_of_an_answer_that_was_recorded_says_what_the_page_has_for_it() {
    let rows: BTreeMap<_, _> = statuses().into_iter().collect();
    for status in 300..600 {
        let row = rows.get(&status);
        // One that is not registered says nothing.
        let alone = row.map_or("unknown", |row| row.get("a client knows"));
        // If it says that nothing was started, the application had it recorded because something was.
        let kept = if row.is_some_and(|row| row.get("Refuse") == "not started") { "unknown" } else { alone };
        let done = format!("done;status={status};retry=?0");
        assert_eq!(found(409, &[("idempotency-effect", &done)], "").await, (kept, false), "{status} not kept");
        for says in [r#""type":"x#not-replayable","retry_with_same_key":false"#, r#""code":"not_replayable""#] {
            let body = format!(r#"{{{says},"original_status":{status}}}"#);
            let found = found(409, &[("content-type", "application/json")], body.leak()).await;
            assert_eq!(found, (kept, false), "{status} not kept, {says}");
        }
        // A replay is final. A server says of a kept status that nothing was started that this is not so.
        let replayed = if (400..500).contains(&status) && status != 408 { "refused" } else { "unknown" };
        let replay = ("idempotent-replayed", "true");
        assert_eq!(found(status, &[replay], "").await, (replayed, false), "{status} replayed");
        let says = ("idempotency-effect", "unknown;retry=?0");
        assert_eq!(found(status, &[replay, says], "").await, ("unknown", false), "{status} kept and replayed");
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
        assert_eq!(found(status, &[("idempotency-effect", says)], "").await, expected, "{row:?}");
        // A gateway has removed the header.
        let original = if says.starts_with("done") { r#","original_status":200"# } else { "" };
        let kind = row.get("problem");
        let body = format!(r#"{{"type":"https://x.example/#{kind}","retry_with_same_key":{}{original}}}"#, expected.1);
        let mut lines = vec![("content-type", "application/problem+json")];
        lines.extend((expected.1).then_some(("retry-after", "1")));
        assert_eq!(found(status, &lines, body.leak()).await, expected, "{row:?}");
    }
}
