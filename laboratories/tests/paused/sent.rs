//! One request of a case, and what came of it.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use testkit::Answer;
use testkit::history::{History, Told};
use testkit::lab::post;
use tokio::time::timeout;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

pub(crate) type App = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Sends the request with this key, and gives up after a while.
pub(crate) async fn send(history: &History, key: &str, app: App, body: impl Into<Body>, patience: Duration) -> Told {
    let ticket = history.sent(key, "charge");
    let answer = async {
        let Ok(response) = app.oneshot(post(key, body.into())).await;
        // Its end never comes.
        if response.headers().contains_key("x-no-outcome") {
            return Told::refused("passed-on");
        }
        match Answer::of(response).await {
            // A key that was released is free: that is no outcome.
            answer if answer.body == "x-released" => Told::refused("released"),
            answer => Told::of(&answer),
        }
    };
    let told = timeout(patience, answer).await.unwrap_or(Told::Nothing);
    history.answered(ticket, told.clone());
    told
}
