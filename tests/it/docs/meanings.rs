//! The page of meanings says what the layer makes of each status.

use std::collections::BTreeSet;

use axum::response::IntoResponse as _;
use http::{HeaderMap, StatusCode};
use testkit::lab::{Lab, layer, rerun};
use testkit::meanings::statuses;
use testkit::{Answer, meanings};
use tower_idempotency::server::{Effect, KeyForm, Profile};
use tower_idempotency::{IdempotencyLayer, MemoryStore, RejectionKind};

/// What the layer makes of an answer with this head: its meaning, as the page has it, and what the answer says.
async fn meaning(layer: IdempotencyLayer<MemoryStore>, status: u16, head: HeaderMap) -> (&'static str, String) {
    let status = StatusCode::from_u16(status).unwrap();
    let lab = Lab::new(layer, move |_| {
        let head = head.clone();
        async move { (status, head).into_response() }
    });
    let first = lab.post("k", "a").await;
    assert_eq!(first.status, status);
    let says = first.header("idempotency-effect").unwrap_or_default().to_owned();
    let again = lab.post("k", "a").await;
    // The handler answers without a body.
    let refused = again.header("idempotency-effect").filter(|_| !again.text().is_empty());
    let meaning = match (again.is_replay(), lab.effects(), refused) {
        (true, 1, None) => "final",
        (false, 2, None) if says == "none" => "not started",
        (false, 2, None) | (false, 1, Some("unknown;retry=?0")) => "unknown",
        other => panic!("{status}: {other:?}"),
    };
    (meaning, says)
}

fn says(meaning: &str, retry: &str) -> String {
    match meaning {
        "not started" => "none".to_owned(),
        "unknown" => format!("unknown;{retry}"),
        _ => String::new(),
    }
}

#[tokio::test]
async fn each_status_means_what_the_page_says_under_each_policy() {
    for (status, row) in statuses() {
        let (refuse, under_rerun) = (row.get("Refuse"), row.get("Rerun"));
        let found = meaning(layer(), status, HeaderMap::new()).await;
        assert_eq!(found, (refuse, says(refuse, "retry=?0")), "{status} under Refuse");
        let found = meaning(rerun(), status, HeaderMap::new()).await;
        assert_eq!(found, (under_rerun, says(under_rerun, "retry")), "{status} under Rerun");
        // These profiles leave each 5xx unknown that is final otherwise.
        let mut iceberg = Profile::iceberg();
        iceberg.key_form = KeyForm::Any;
        let expected = if refuse == "final" && status >= 500 { "unknown" } else { refuse };
        for profile in [Profile::acp(), iceberg] {
            let (name, layer) = (profile.name, layer().profile(profile));
            assert_eq!(meaning(layer, status, HeaderMap::new()).await.0, expected, "{status} under {name}");
        }
    }
}

#[tokio::test]
async fn a_413_with_a_time_to_come_back_was_not_started() {
    let head = HeaderMap::from_iter([(http::header::RETRY_AFTER, "60".parse().unwrap())]);
    for layer in [layer, rerun] {
        assert_eq!(meaning(layer(), 413, HeaderMap::new()).await.0, "final");
        assert_eq!(meaning(layer(), 413, head.clone()).await.0, "not started");
        assert_eq!(meaning(layer(), 400, head.clone()).await.0, "final");
    }
}

#[tokio::test]
async fn a_request_for_a_nonce_was_not_started_rfc_9449_section_8() {
    const ASKS: &str = r#"{"error":"use_dpop_nonce","error_description":"nonce"}"#;
    for (status, name, body, runs) in [
        (400, "dpop-nonce", ASKS, 2),
        (400, "x-other", ASKS, 1),
        (400, "dpop-nonce", r#"{"error":"invalid_grant"}"#, 1),
        (400, "dpop-nonce", "use_dpop_nonce", 1),
        (422, "dpop-nonce", ASKS, 1),
    ] {
        for layer in [layer(), rerun()] {
            let answer = (StatusCode::from_u16(status).unwrap(), [(name, "n")], body);
            let lab = Lab::new(layer, move |_| async move { answer });
            lab.post("k", "a").await;
            lab.post("k", "a").await;
            assert_eq!(lab.effects(), runs, "{status} {name} {body}");
        }
        // Where the application keeps it all the same, it had an effect before.
        let answer = (StatusCode::from_u16(status).unwrap(), tower_idempotency::Keep, [(name, "n")], body);
        let says = (runs == 2).then_some("unknown;retry=?0");
        for kept in Lab::new(layer(), move |_| async move { answer }).two_tries().await {
            assert_eq!(kept.header("idempotency-effect"), says, "{status} {name} {body}");
        }
    }
}

#[tokio::test]
async fn what_a_layer_elsewhere_has_said_is_unknown_here_and_is_not_passed_on_as_this_layer_s() {
    for value in ["none", "none;retry", "pending;retry", "unknown;retry=?0", "done;retry=?0"] {
        let answer =
            move |_| async move { (StatusCode::CONFLICT, [("idempotency-effect", value)], "of another layer") };
        let lab = Lab::new(layer(), answer);
        assert_eq!(lab.post("k", "a").await.header("idempotency-effect"), Some("unknown;retry=?0"), "{value}");
        assert_eq!(lab.post("k", "a").await.problem(), "outcome-unknown", "{value}");
        // The handler says that it is the outcome: nothing is left of the other layer's words.
        let keep = move |number| async move { (tower_idempotency::Keep, answer(number).await) };
        for kept in Lab::new(layer(), keep).two_tries().await {
            assert_eq!(kept.header("idempotency-effect"), None, "{value}");
        }
    }
}

#[tokio::test]
async fn a_refusal_of_the_layer_says_what_the_page_has_for_it() {
    let lab = Lab::counting(layer().require_key(true).max_request_body(3));
    let says = |answer: &Answer| (answer.problem(), answer.header("idempotency-effect").unwrap().to_owned());
    lab.post("k", "a").await;
    let mut found = BTreeSet::new();
    for answer in [
        lab.send(http::Request::post("/charges").body(axum::body::Body::empty()).unwrap()).await,
        lab.post("", "a").await,
        lab.post("k", "b").await,
        lab.post("l", "long").await,
        lab.send(testkit::lab::with("authorization", "other")).await,
    ] {
        found.insert(says(&answer));
    }
    let of_the_page =
        meanings::rejections().into_iter().map(|row| (row.get("problem").to_owned(), row.get("says").to_owned()));
    let of_the_page: BTreeSet<_> = of_the_page.collect();
    assert_eq!(found.len(), 5);
    assert!(found.is_subset(&of_the_page), "{found:?}");
    // The whole table is compared in `src/server/describe/openapi/samples.rs`.
    let kinds: BTreeSet<_> = RejectionKind::ALL.iter().map(|kind| kind.slug().to_owned()).collect();
    assert_eq!(of_the_page.into_iter().map(|(kind, _)| kind).collect::<BTreeSet<_>>(), kinds);
    assert_eq!(Effect::HEADER, "idempotency-effect");
}
