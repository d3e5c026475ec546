//! What a plan says, and what it does not.

use tower_idempotency_check::{Outcome, Plan};

use super::controls::report_with;
use super::fault::Fault::{self, Twisted};
use super::twist::Twist;

const UNMARKED: &str = "the server does not mark replays alone, so that a replayed 429 can't be seen";
const REFUSED: &str =
    r#"the first request does not succeed: 400 {"type":"invalid_request","code":"no","message":"no"}"#;
const WITH_HINT: &str = concat!(
    r#"the first request does not succeed: 400 {"type":"invalid_request","code":"no","message":"no"}"#,
    " Give a body that succeeds, by `--data`."
);

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_can_t_be_made_says_what_it_needs() {
    let without_number = ["data = '{\"a\":\"b\"}'", "slow = '{\"kind\":\"slow\"}'", "other_account"];
    for (fault, check, changes, why) in [
        (Fault::None, "truncated-body", &["data"][..], "the request has no body"),
        (
            Fault::None,
            "in-flight-others",
            &without_number,
            "it needs `--other-account`, or a number in the body of `--slow`",
        ),
        (Twisted(Twist::RefusesAll), "works", &[], REFUSED),
        (Twisted(Twist::RefusesAll), "works", &["data"], WITH_HINT),
        (Twisted(Twist::RunsTwice), "works", &[], "one request has 2 effects by the plan's count: correct the plan"),
        (Twisted(Twist::NoMarks), "rate-limited", &[], UNMARKED),
        (Fault::MarksFirst, "rate-limited", &[], UNMARKED),
        (Fault::None, "reset", &["only", "reset = \"POST /nowhere\""], "the reset does not succeed: 404 "),
    ] {
        let only = [if check == "reset" { "works" } else { check }];
        let report = report_with(fault, "draft", &only, true, changes).await;
        let last = report.checks.last().unwrap();
        let said = (last.name, &last.outcome, last.findings.len(), report.exit_code());
        assert_eq!(said, (check, &Outcome::Failed(why.to_owned()), 0, 2), "{}", report.to_text());
    }
    // One of the two is enough, and so are two bytes; a reset that succeeds is no check.
    for (check, changes) in [
        ("in-flight-others", &without_number[..2]),
        ("in-flight-others", &["reset = \"POST /charges\""]),
        ("truncated-body", &["data = \"{}\""]),
    ] {
        let report = report_with(Fault::None, "draft", &[check], true, changes).await;
        let checks: Vec<_> = report.checks.iter().map(|check| (check.name, &check.outcome)).collect();
        assert_eq!(checks, [("works", &Outcome::Kept), (check, &Outcome::Kept)], "{}", report.to_text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_fails_is_shown_as_it_ends() {
    let mut shown = Vec::new();
    let plan = Plan::from_toml("url = \"http://127.0.0.1:1/\"\nreset = \"POST /reset\"").unwrap();
    let report = plan.run(|check| shown.push(check.name)).await;
    assert_eq!((shown, report.checks.len(), report.exit_code()), (vec!["reset"], 1, 2), "{}", report.to_text());
}

// After it, no request is left for whether the list is cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_finding_by_a_count_holds_where_the_count_can_t_be_tried() {
    let only = ["same-key-again"];
    let whole = report_with(Fault::RunsReplays, "draft", &only, true, &[]).await;
    let most = format!("max_requests = {}", whole.requests - 1);
    let report = report_with(Fault::RunsReplays, "draft", &only, true, &[&most]).await;
    assert_eq!((report.requests, report.exit_code()), (whole.requests - 1, 1), "{}", report.to_text());
    assert_eq!(report.checks.last().unwrap().outcome, Outcome::Broken, "{}", report.to_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_has_the_request_that_was_sent_and_how_many_answers_of_each_kind_came() {
    for (check, changes, label, sent, received) in [
        ("keys-at-once", &[][..], "requests with a key of their own, 50 at once", "/charges' ", "50 × 201"),
        (
            "other-query",
            &["url = \"http://ADDRESS/charges?x=1\""],
            "another query",
            "/charges?x=1&idem-check=1' ",
            "422 ",
        ),
        ("other-query", &[], "another query", "/charges?idem-check=1' ", "422 "),
    ] {
        let report = report_with(Fault::None, "draft", &[check], true, changes).await;
        let events = &report.checks.last().unwrap().timeline;
        let event = events.iter().find(|event| event.label == label).unwrap();
        assert!(event.sent.contains(sent) && event.received.starts_with(received), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_counted_once_and_listed() {
    for check in ["connection-after-replay", "connection-after-rejection", "truncated-body", "other-detail"] {
        let report = report_with(Fault::None, "draft", &[check], true, &[]).await;
        let listed: usize = report.checks.iter().map(|check| check.timeline.len()).sum();
        assert_eq!(report.requests, listed, "{}", report.to_text());
    }
}
