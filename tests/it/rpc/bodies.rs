//! What an answer's body says, where a judge reads it: `docs/meanings.md` has the tables.

use axum::response::IntoResponse as _;
use http::{HeaderMap, HeaderName, StatusCode};
use http_body_util::{BodyExt as _, Full};
use testkit::lab::{Lab, frames, layer, rerun};
use testkit::meanings::{self, Said};
use tower_idempotency::server::Profile;
use tower_idempotency::{IdempotencyLayer, Keep, Meaning, MemoryStore, Release, Unsure};
use tower_idempotency_meaning::{Answer, BodyJudge, Rule, Says};

use super::{error, json};

type Layer = IdempotencyLayer<MemoryStore>;

const THROTTLED: &str = r#"{"errors":[{"message":"slow down","extensions":{"code":"THROTTLED"}}]}"#;
const FAILED: &str = r#"{"errors":[{"message":"oh","extensions":{"code":"INTERNAL_SERVER_ERROR"}}],"data":null}"#;

fn graphql() -> Layer {
    layer().classify(BodyJudge::graphql())
}

/// What a 200 with this body means, and what the answer and its retry say.
async fn meaning(layer: Layer, body: &str) -> (&'static str, String, String) {
    let body = body.to_owned();
    let lab = Lab::new(layer, move |_| {
        let body = body.clone();
        async move { json(body) }
    });
    of_two_tries(&lab).await
}

async fn of_two_tries(lab: &Lab) -> (&'static str, String, String) {
    let [first, again] = [lab.post("k", "a").await, lab.post("k", "a").await];
    assert!(!first.is_replay(), "{first:?}");
    let [says, then] = [&first, &again].map(|answer| super::effect(answer).to_owned());
    let meaning = match (again.is_replay(), lab.effects()) {
        (true, 1) => "final",
        (false, 2) if says.starts_with("none") => "not started",
        (false, 2) if says == "unknown;retry" => "unknown",
        (false, 1) if says == "unknown;retry=?0" && again.problem() == "outcome-unknown" => "unknown",
        other => panic!("{other:?}: {first:?} {again:?}"),
    };
    (meaning, says, then)
}

fn says(meaning: &str, may_rerun: bool, row: &meanings::Row) -> String {
    match (meaning, row.get("tries again")) {
        ("not started", "yes") => "none;retry".to_owned(),
        ("not started", _) => "none;retry=?0".to_owned(),
        ("unknown", _) if may_rerun => "unknown;retry".to_owned(),
        ("unknown", _) => "unknown;retry=?0".to_owned(),
        _ => String::new(),
    }
}

#[tokio::test]
async fn each_body_means_what_the_page_says_under_each_policy() {
    let said = meanings::bodies();
    assert!(said.len() > 40, "the tables are not found");
    for Said { judge, content_type, body, grpc_status, row } in said {
        for (policy, of_policy, may_rerun) in [("Refuse", layer(), false), ("Rerun", rerun(), true)] {
            // gRPC's is read without being asked.
            let of_policy =
                if judge == "grpc" { of_policy } else { of_policy.classify(judge.parse::<BodyJudge>().unwrap()) };
            let (answer, status) = (body.clone(), grpc_status.clone());
            let lab = Lab::new(of_policy, move |_| {
                let trailers = status.as_ref().map(|status| {
                    let status = status.parse().unwrap();
                    Ok(HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]))
                });
                let body = Full::<bytes::Bytes>::from(answer.clone()).with_trailers(std::future::ready(trailers));
                async move { ([("content-type", content_type)], axum::body::Body::new(body)) }
            });
            let (meaning, first, _) = of_two_tries(&lab).await;
            let expected = row.get(policy);
            let shown = format!("{judge} {body} {grpc_status:?} under {policy}");
            assert_eq!(meaning, expected, "{shown}");
            if judge != "grpc" {
                assert_eq!(first, says(expected, may_rerun, &row), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_throttled_runs_again_and_says_so_and_a_partial_answer_is_an_outcome() {
    for layer in [graphql(), rerun().classify(BodyJudge::graphql())] {
        let lab = Lab::new(layer, |number| async move {
            json(if number == 1 { THROTTLED.to_owned() } else { r#"{"data":{"pay":1},"errors":[{}]}"#.to_owned() })
        });
        let first = lab.post("k", "a").await;
        assert_eq!((first.status.as_u16(), super::effect(&first), first.text()), (200, "none;retry", THROTTLED));
        assert!(!lab.post("k", "a").await.is_replay());
        let third = lab.post("k", "a").await;
        assert_eq!((third.is_replay(), super::effect(&third), lab.effects()), (true, "", 2));
    }
}

#[tokio::test]
async fn a_profile_decides_on_what_the_server_says_of_its_own_failure() {
    let with = |profile: Profile| layer().profile(profile).classify(BodyJudge::json_rpc());
    let mut acp = Profile::acp();
    acp.require_key = false;
    for code in [-32603, -32000, -32099] {
        let body = error("1", code);
        assert_eq!(meaning(with(Profile::draft()), &body).await.0, "final", "{code}");
        let unknown = meaning_under_flat(with(acp.clone()), &body).await;
        assert_eq!(unknown, (1, "unknown;retry=?0".to_owned()), "{code}");
        let under_rerun = rerun().classify(BodyJudge::json_rpc());
        assert_eq!(
            meaning(under_rerun, &body).await,
            ("unknown", "unknown;retry".to_owned(), "unknown;retry".to_owned())
        );
    }
    // What is refused is an outcome there, too.
    assert_eq!(meaning(with(acp), &error("1", 7)).await.0, "final");
}

/// The effects of two tries, and what both say, where refusals have another form.
async fn meaning_under_flat(layer: Layer, body: &str) -> (usize, String) {
    let body = body.to_owned();
    let lab = Lab::new(layer, move |_| {
        let body = body.clone();
        async move { json(body) }
    });
    let [first, again] = [lab.post("k", "a").await, lab.post("k", "a").await];
    assert_eq!(super::effect(&first), super::effect(&again));
    (lab.effects(), super::effect(&again).to_owned())
}

#[tokio::test]
async fn rules_and_functions_of_the_application_s_own_judge() {
    let rules = || {
        BodyJudge::rules([
            Rule::new("/errors/*/code", ["BUSY"], Says::TryLater(None)).unwrap(),
            Rule::new("/errors/*/code", ["WRONG"], Says::NotStarted).unwrap(),
            Rule::new("/state", ["pending"], Says::Unknown).unwrap(),
        ])
    };
    for (body, expected, first) in [
        (r#"{"errors":[{"code":"WRONG"},{"code":"BUSY"}]}"#, "not started", "none;retry"),
        (r#"{"errors":[{"code":"WRONG"}]}"#, "not started", "none;retry=?0"),
        (r#"{"state":"pending"}"#, "unknown", "unknown;retry=?0"),
        (r#"{"state":"paid"}"#, "final", ""),
    ] {
        let (meaning, says, _) = meaning(layer().classify(rules()), body).await;
        assert_eq!((meaning, &*says), (expected, first), "{body}");
    }
    let busy = |answer: &Answer<'_>| {
        (answer.body == b"busy" && answer.status == 200 && answer.headers.contains_key("content-type"))
            .then_some(Says::TryLater(None))
    };
    for (body, expected) in [("busy", "not started"), ("done", "final")] {
        assert_eq!(meaning(layer().classify(BodyJudge::function(busy)), body).await.0, expected);
    }
}

#[tokio::test]
async fn a_mark_wins_over_the_body() {
    for (mark, runs, first, then) in [
        ("keep", 1, "unknown;retry=?0", "unknown;retry=?0"),
        ("unsure", 1, "unknown;retry=?0", "unknown;retry=?0"),
        ("release", 2, "none", "none"),
    ] {
        for body in [THROTTLED, FAILED] {
            let lab = Lab::new(graphql(), move |_| async move {
                let answer = json(body.to_owned());
                match mark {
                    "keep" => (Keep, answer).into_response(),
                    "unsure" => (Unsure, answer).into_response(),
                    _ => (Release, answer).into_response(),
                }
            });
            let tries = [lab.post("k", "a").await, lab.post("k", "a").await];
            assert_eq!([&tries[0], &tries[1]].map(super::effect), [first, then], "{mark} {body}");
            assert_eq!((lab.effects(), tries[1].is_replay()), (runs, mark == "keep"), "{mark} {body}");
        }
    }
    let done = Lab::new(graphql(), |_| async { (Keep, json(r#"{"data":{"pay":1}}"#.to_owned())) });
    let [_, again] = done.two_tries().await;
    assert_eq!(super::effect(&again), "");
}

#[tokio::test]
async fn a_classifier_s_word_on_the_head_comes_before_the_profile_s_judge_of_the_body() {
    let mut profile = Profile::draft();
    profile.judge = Some(BodyJudge::graphql());
    let refuses = |parts: &http::response::Parts, _: Option<&HeaderMap>| {
        parts.headers.contains_key("x-final").then_some(Meaning::Final)
    };
    for (is_final, runs) in [(false, 2), (true, 1)] {
        let lab = Lab::new(layer().profile(profile.clone()).classify(refuses), move |_| async move {
            let mut answer = json(THROTTLED.to_owned()).into_response();
            if is_final {
                answer.headers_mut().insert("x-final", "1".parse().unwrap());
            }
            answer
        });
        let _ = [lab.post("k", "a").await, lab.post("k", "a").await];
        assert_eq!(lab.effects(), runs);
    }
    // The application's judge comes before the profile's, which has the rest.
    let own = BodyJudge::rules([Rule::new("/errors/*/extensions/code", ["THROTTLED"], Says::Refused).unwrap()]);
    assert_eq!(meaning(layer().profile(profile.clone()).classify(own.clone()), THROTTLED).await.0, "final");
    assert_eq!(meaning(layer().profile(profile).classify(own), FAILED).await.0, "unknown");
}

#[tokio::test]
async fn a_body_that_is_too_long_or_no_json_says_nothing() {
    // The status counts: a 200 is done, a 503 is what it is without a body.
    let lab = Lab::new(graphql().max_response_body(THROTTLED.len() - 1), |_| async { json(THROTTLED.to_owned()) });
    assert_eq!(lab.post("k", "a").await.text(), THROTTLED);
    let again = lab.post("k", "a").await;
    assert_eq!((again.problem(), lab.effects()), ("not-replayable".to_owned(), 1));
    assert_eq!(meaning(graphql().max_response_body(THROTTLED.len()), THROTTLED).await.0, "not started");
    for body in [&THROTTLED[..THROTTLED.len() - 1], "", "[]", "busy"] {
        assert_eq!(meaning(graphql(), body).await.0, "final", "{body}");
    }
    let lab = Lab::new(graphql(), |_| async { ([("content-type", "text/plain")], THROTTLED) });
    assert!(lab.post("k", "a").await.status == 200 && lab.post("k", "a").await.is_replay());
}

#[tokio::test]
async fn a_body_that_was_cut_says_nothing_and_is_unknown() {
    for declared in [false, true] {
        let lab = Lab::new(graphql(), move |_| async move {
            let mut answer = json(THROTTLED.to_owned()).into_response();
            if declared {
                answer.headers_mut().insert("content-length", (THROTTLED.len() + 1).to_string().parse().unwrap());
            } else {
                *answer.body_mut() = frames([Ok(THROTTLED), Err("broken off")]);
            }
            answer
        });
        let response = tower::ServiceExt::oneshot(lab.app.clone(), testkit::lab::post("k", "a")).await.unwrap();
        assert_eq!(response.headers()["idempotency-effect"], "unknown;retry=?0");
        drop(response);
        lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", false, None);
        assert_eq!(lab.effects(), 1);
    }
}

#[tokio::test]
async fn a_success_behind_a_status_that_is_none_says_nothing() {
    for (status, runs) in [(500, 1), (429, 2), (401, 2)] {
        let lab = Lab::new(layer().classify(BodyJudge::json_rpc()), move |_| async move {
            (StatusCode::from_u16(status).unwrap(), json(super::result("1", 1)))
        });
        let _ = [lab.post("k", "a").await, lab.post("k", "a").await];
        assert_eq!(lab.effects(), runs, "{status}");
    }
}
