//! What the table has of an answer that is forgotten.

use std::time::Duration;

use testkit::lab::Lab as Requests;
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::operations::Filter;
use tower_idempotency::server::Profile;
use tower_idempotency_postgres::PostgresStore;

use crate::lab::{Lab, lab};

/// Returns how many rows have the answer of [`a_forgotten_answer_is_in_no_row`].
async fn rows_with_it(lab: &Lab) -> i64 {
    let sql = "SELECT count(*) FROM idempotency.record WHERE namespace = $1 AND position('canary'::bytea IN state) > 0";
    lab.client.query_one(sql, &[&lab.namespace]).await.unwrap().get(0)
}

// A seeded fault: the kind of the row changes, and its bytes stay.
#[tokio::test]
async fn a_forgotten_answer_is_in_no_row() {
    let Some(lab) = lab("what is left of a forgotten answer").await else { return };
    let layer = IdempotencyLayer::new(PostgresStore::open(lab.another().await).await.unwrap());
    let requests = Requests::new(layer.clone(), |_| async { "canary" });
    requests.post("k", "a").await;
    assert_eq!(rows_with_it(&lab).await, 1);
    let forgotten = layer.operations().by("erasure").forget_answers(&Filter::all(), None, 9).await.unwrap();
    assert_eq!((forgotten.forgotten, forgotten.left.len()), (1, 0));
    assert_eq!(rows_with_it(&lab).await, 0);
    requests.post("k", "a").await.assert_refusal(409, "not-replayable", false, None);
}

// Seeded faults: the row is kept for `retention` alone; the answer is replayed for as long as the row is kept.
#[tokio::test]
async fn an_answer_that_is_too_old_is_the_fact_alone_on_another_server() {
    let Some(lab) = lab("what a retry gets after the retention").await else { return };
    let server = async || {
        let store = PostgresStore::open(lab.another().await).await.unwrap();
        let layer = IdempotencyLayer::new(store).profile(Profile::iceberg());
        Requests::counting(layer.retention(Duration::ZERO).outcome_retention(Duration::from_secs(3_600)))
    };
    let [first, second] = [server().await, server().await];
    let (key, capitals) = ("017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "017F22E2-79B0-7CC3-98C4-DC0C0C07398F");
    assert_eq!(first.post(capitals, "a").await.text(), "effect 1");
    // The earliest of three clocks says that the retention is over, and it may be some milliseconds behind.
    let mut retry = second.post(key, "a").await;
    while retry.is_replay() {
        retry = second.post(key, "a").await;
    }
    assert_eq!(retry.header("idempotency-effect"), Some("done;status=200;retry=?0"));
    assert_eq!((retry.status.as_u16(), &retry.json()["error"]["type"]), (500, &"CommitStateUnknownException".into()));
    assert_eq!(second.post("k", "a").await.status, 400);
    assert_eq!((first.effects(), second.effects()), (1, 0));
}
