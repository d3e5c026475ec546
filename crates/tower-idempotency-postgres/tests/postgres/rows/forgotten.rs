//! What the table has of an answer that is forgotten.

use testkit::lab::Lab as Requests;
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::operations::Filter;
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
