//! A handler that rejects its request's fields: an outcome, unless it frees the key.

use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::{Request, StatusCode};
use testkit::lab::{Lab, keyed, layer};
use tower_idempotency::Release;

struct Invalid(String);

impl IntoResponse for Invalid {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, Release, self.0).into_response()
    }
}

async fn marked(amount: Result<Json<u64>, JsonRejection>) -> Result<String, Invalid> {
    let Json(amount) = amount.map_err(|rejection| Invalid(rejection.body_text()))?;
    Ok(format!("charged {amount}"))
}

async fn bare(Json(amount): Json<u64>) -> String {
    format!("charged {amount}")
}

fn charge(amount: &'static str) -> Request<axum::body::Body> {
    keyed("POST", "/", "k").header("content-type", "application/json").body(amount.into()).unwrap()
}

#[tokio::test]
async fn what_an_extractor_rejects_is_an_outcome_and_the_corrected_request_needs_a_new_key() {
    let lab = Lab::of(Router::new().route("/", post(bare)).layer(layer()));
    for is_replay in [false, true] {
        let wrong = lab.send(charge("\"ten\"")).await;
        assert_eq!((wrong.status, wrong.is_replay()), (StatusCode::UNPROCESSABLE_ENTITY, is_replay));
    }
    assert_eq!(lab.send(charge("10")).await.refusal(), (422, "key-reused".to_owned()));
}

#[tokio::test]
async fn an_error_type_that_frees_the_key_leaves_it_to_the_corrected_request() {
    let lab = Lab::of(Router::new().route("/", post(marked)).layer(layer()));
    for _ in 0..2 {
        let wrong = lab.send(charge("\"ten\"")).await;
        assert_eq!((wrong.status, wrong.is_replay()), (StatusCode::UNPROCESSABLE_ENTITY, false));
    }
    for is_replay in [false, true] {
        let corrected = lab.send(charge("10")).await;
        assert_eq!((corrected.text(), corrected.is_replay()), ("charged 10", is_replay));
    }
}
