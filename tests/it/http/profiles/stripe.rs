//! Stripe's profile, and what an invalid request is to it and to the others.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::IntoResponse as _;
use axum::routing::post;
use axum::{Json, Router};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use testkit::Gate;
use testkit::lab::{Lab, gated, layer};
use tower_idempotency::server::{Checked, Profile};
use tower_idempotency::{
    IdempotencyLayer, Invalid, Keep, Meaning, MemoryStore, OnInFlight, OnInterrupted, Release, Unsure,
};

use super::{acp, error, json_to, session, stripe};

#[tokio::test]
async fn stripe_s_errors_have_its_types_and_say_whether_to_retry() {
    let gate = Gate::default();
    let lab = gated(stripe().on_in_flight(OnInFlight::Reject), &gate);
    let first = lab.spawn(session("{}"));
    gate.arrival().await;
    let in_flight = lab.send(session("{}")).await;
    let key_in_use = (409, "idempotency_error".into(), "idempotency_key_in_use".into(), "true");
    assert_eq!(error(&in_flight), key_in_use);
    gate.open();
    first.await.unwrap();
    let reused = lab.send(session("[]")).await;
    assert_eq!(error(&reused), (400, "idempotency_error".into(), "idempotency_key_reused".into(), "false"));
    // Problem details, too, for clients that know them.
    assert_eq!((&reused.json()["status"], &reused.json()["retry_with_same_key"]), (&400.into(), &false.into()));
    assert_eq!(reused.headers["idempotency-key"], "k");
}

#[tokio::test]
async fn stripe_replays_a_500_and_says_that_a_retry_is_of_no_use() {
    let lab = Lab::new(stripe(), |_| async { StatusCode::INTERNAL_SERVER_ERROR });
    let [first, retry] = [lab.send(session("{}")).await, lab.send(session("{}")).await];
    assert_eq!((first.status, first.header("stripe-should-retry")), (StatusCode::INTERNAL_SERVER_ERROR, None));
    assert_eq!((retry.status, retry.is_replay()), (first.status, true));
    assert_eq!(retry.headers["stripe-should-retry"], "false");
    let lab = Lab::counting(stripe());
    lab.send(session("{}")).await;
    assert!(!lab.send(session("{}")).await.headers.contains_key("stripe-should-retry"), "a success needs none");
}

async fn charge(Checked(Json(amount)): Checked<Json<u64>>) -> Response<Body> {
    match amount {
        0 => (StatusCode::UNPROCESSABLE_ENTITY, Invalid, "nothing to charge").into_response(),
        13 => (StatusCode::UNPROCESSABLE_ENTITY, "unlucky").into_response(),
        _ => format!("charged {amount}").into_response(),
    }
}

#[tokio::test]
async fn a_validation_error_frees_the_key_in_stripe_s_profile_and_is_recorded_in_the_others() {
    let profiles = [(Profile::stripe(), true), (Profile::draft(), false), (Profile::acp(), false)];
    for (profile, is_free) in profiles {
        for (wrong, status) in [("\"ten\"", 422), ("ten", 400), ("0", 422)] {
            let app = Router::new().route("/charges", post(charge)).layer(layer().profile(profile.clone()));
            let lab = Lab::of(app);
            for is_retry in [false, true] {
                let answer = lab.send(json_to("/charges", "k", wrong)).await;
                let expected = (status, is_retry && !is_free);
                assert_eq!((answer.status.as_u16(), answer.is_replay()), expected, "{}", profile.name);
            }
            let corrected = lab.send(json_to("/charges", "k", "10")).await;
            if is_free {
                assert_eq!(corrected.text(), "charged 10");
            } else {
                assert_eq!(corrected.status, StatusCode::UNPROCESSABLE_ENTITY, "the key belongs to the wrong request");
            }
        }
        // What the handler says without a mark is an outcome.
        let app = Router::new().route("/charges", post(charge)).layer(layer().profile(profile));
        let lab = Lab::of(app);
        lab.send(json_to("/charges", "k", "13")).await;
        assert!(lab.send(json_to("/charges", "k", "13")).await.is_replay());
    }
}

/// An extractor that fails with this status.
struct Fails<const STATUS: u16>;

impl<S: Sync, const STATUS: u16> FromRequestParts<S> for Fails<STATUS> {
    type Rejection = StatusCode;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        Err(StatusCode::from_u16(STATUS).unwrap())
    }
}

/// Whether the retry of a request whose extractor fails so is a replay.
async fn is_recorded<const STATUS: u16>(layer: IdempotencyLayer<MemoryStore>) -> bool {
    let charge = async |_: Checked<Fails<STATUS>>| "charged";
    let lab = Lab::of(Router::new().route("/charges", post(charge)).layer(layer));
    lab.send(json_to("/charges", "k", "1")).await;
    lab.send(json_to("/charges", "k", "1")).await.is_replay()
}

#[tokio::test]
async fn only_what_is_wrong_in_itself_counts_as_an_invalid_request() {
    assert!(!is_recorded::<422>(stripe()).await && !is_recorded::<415>(stripe()).await);
    assert!(is_recorded::<500>(stripe()).await);
    // Where the profile says nothing, the mark changes nothing.
    let rerun = || layer().on_interrupted(OnInterrupted::Rerun);
    assert!(!is_recorded::<401>(layer()).await && !is_recorded::<429>(layer()).await);
    assert!(is_recorded::<422>(layer()).await && is_recorded::<422>(rerun()).await);
    let teapots = |parts: &http::response::Parts, _: Option<&HeaderMap>| {
        (parts.status == StatusCode::UNPROCESSABLE_ENTITY).then_some(Meaning::NotStarted)
    };
    assert!(!is_recorded::<422>(layer().classify(teapots)).await);
}

#[tokio::test]
async fn another_mark_comes_before_that_of_an_invalid_request() {
    let wrong = StatusCode::UNPROCESSABLE_ENTITY;
    let kept = Lab::new(stripe(), move |_| async move { (wrong, Invalid, Keep) });
    kept.send(session("{}")).await;
    assert!(kept.send(session("{}")).await.is_replay());
    let unsure = Lab::new(stripe(), move |_| async move { (wrong, Invalid, Unsure) });
    unsure.send(session("{}")).await;
    assert_eq!(error(&unsure.send(session("{}")).await).0, 409);
    let freed = Lab::new(acp(), move |_| async move { (wrong, Invalid, Release) });
    freed.send(session("{}")).await;
    assert!(!freed.send(session("{}")).await.is_replay());
}
