//! An interruption says its cause: in the record, to the observer, in lists and their filter.

use std::future::pending;

use axum::response::IntoResponse as _;
use futures_util::future::select;
use http::StatusCode;
use testkit::lab::events::Events;
use testkit::lab::time::SECOND;
use testkit::lab::{Lab, frames, id, post};
use testkit::log::Log;
use tower_idempotency::engine::{Cause, EffectError};
use tower_idempotency::operations::{Filter, OperationState};
use tower_idempotency::store::Store as _;
use tower_idempotency::test_util::TestStore;
use tower_idempotency::{Fingerprint, IdempotencyLayer, Once, Unsure};
use tracing::Level;

/// Leaves one operation of each cause that a process can leave while it lives. Its key is the cause's name.
async fn leave_each(store: &TestStore) {
    let layer = || IdempotencyLayer::new(store.clone());
    Lab::new(layer(), |_| async { panic!("on purpose") as &str }).post("panicked", "a").await;
    Lab::new(layer().max_run(SECOND), |_| pending::<&str>()).post("max-run", "a").await;
    let unsure = || async { (Unsure, StatusCode::BAD_GATEWAY).into_response() };
    Lab::new(layer(), move |_| unsure()).post("answered", "a").await;
    let broken = Lab::new(layer(), |_| async { frames([Ok("ha"), Err("disk gone")]) });
    drop(tower::ServiceExt::oneshot(broken.app.clone(), post("broken", "a")).await);
    let drops = |run| async { drop(select(run, Box::pin(tokio::time::sleep(SECOND))).await) };
    Lab::new(layer().wrap_run(drops), |_| pending::<&str>()).post("shutdown", "a").await;
    let failing = |_| async { Err::<(), _>(EffectError::MaybeStarted("no answer")) };
    Once::new(store.clone()).run(id("failed"), Fingerprint::of(b"m"), failing).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn each_cause_is_recorded_observed_and_listed() {
    let (store, events, log) = (TestStore::new(), Events::default(), Log::begin(Level::DEBUG));
    store.observe(events.clone()).unwrap();
    leave_each(&store).await;
    let lines = log.lines();
    let operations = IdempotencyLayer::<_>::new(store.clone()).operations();
    let observed = events.take();
    for cause in [Cause::Panicked, Cause::MaxRun, Cause::Answered(502), Cause::Broken, Cause::Shutdown, Cause::Failed] {
        assert_eq!(
            observed.iter().filter(|event| **event == format!("interrupted {cause}")).count(),
            1,
            "{observed:?}"
        );
        let (named, of) =
            (format!("cause=\"{}\"", cause.name()), format!("record_id=\"{}\"", id(cause.name()).short()));
        assert!(lines.iter().any(|line| line.contains(&named) && line.contains(&of)), "{named} {of}: {lines:#?}");
        let listed = operations.list(&Filter::all().caused_by(cause), None, 9).await.unwrap().operations;
        let [operation] = &listed[..] else { panic!("{cause}: {listed:?}") };
        assert_eq!(operation.id, id(cause.name()));
        assert!(matches!(operation.state, OperationState::Interrupted { cause: known, .. } if known == cause));
    }
    assert_eq!(operations.list(&Filter::all(), None, 9).await.unwrap().operations.len(), 6);
}
