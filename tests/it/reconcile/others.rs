//! Requests and messages of others, under the key of an operation that the application is asked about.

use axum::body::Body;
use testkit::Gate;
use testkit::lab::asked::{Asked, asking, found, leave_interrupted};
use testkit::lab::{Lab, id, keyed, post};
use tower_idempotency::Fingerprint;
use tower_idempotency::engine::{EffectError, OnceError, Reconciled};
use tower_idempotency::test_util::TestStore;

use super::verdicts::{Log, deliver_first, once};

/// The same request from another client.
fn as_mallory() -> http::Request<Body> {
    keyed("POST", "/charges", "k").header("authorization", "Bearer mallory").body("a".into()).unwrap()
}

async fn others_are_refused(lab: &Lab) {
    lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    let refused = lab.send(as_mallory()).await;
    refused.assert_refusal(422, "credentials-changed", false, None);
    assert!(refused.text().contains("Do not mint a new key"));
}

#[tokio::test]
async fn another_request_with_the_key_is_refused_before_during_and_after_and_nobody_is_asked_about_it() {
    for verdict in [Reconciled::StillUnknown, found("charged")] {
        let (store, gate, asked) = (TestStore::new(), Gate::default(), Asked::default());
        leave_interrupted(&store, "k").await;
        let lab = Lab::counting(asking(store, asked.says_behind(&gate, [verdict])));
        others_are_refused(&lab).await;
        assert_eq!(asked.times(), 0);
        let retry = lab.spawn(post("k", "a"));
        gate.arrival().await;
        others_are_refused(&lab).await;
        assert!(!retry.is_finished());
        gate.open();
        retry.await.unwrap();
        others_are_refused(&lab).await;
        assert_eq!((asked.times(), lab.effects()), (1, 0));
    }
}

#[tokio::test]
async fn another_message_under_the_id_is_refused_and_nobody_is_asked_about_it() {
    let (store, log, asked) = (TestStore::new(), Log::default(), Asked::default());
    deliver_first(store.clone(), &log).await;
    let once = once(store, asked.says([Reconciled::RunAgain]));
    let effect = |_| async { Ok::<_, EffectError<&str>>(String::new()) };
    let refused = once.run(id("k"), Fingerprint::of(b"another"), effect).await;
    assert!(matches!(refused, Err(OnceError::Mismatch(_))), "{refused:?}");
    assert_eq!(asked.times(), 0);
}
