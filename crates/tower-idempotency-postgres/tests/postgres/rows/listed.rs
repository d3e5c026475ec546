//! Rows as operators see them: the beginning of a large one is enough, and a damaged one is settled by its columns.

use http::StatusCode;
use testkit::lab::Lab as Requests;
use tower_idempotency::IdempotencyLayer;
use tower_idempotency::operations::{Action, Applied, Change, Filter, OperationState, StateKind};
use tower_idempotency_postgres::PostgresStore;

use crate::lab::lab;

const LONG: usize = 300_000;

#[tokio::test]
async fn a_large_answer_is_listed_by_its_first_kilobyte_and_a_damaged_row_is_settled_by_its_columns() {
    let Some(lab) = lab("how rows are listed").await else { return };
    let store = PostgresStore::open(lab.another().await).await.unwrap();
    let layer = IdempotencyLayer::new(store).label(|_: &http::request::Parts| "x".repeat(200));
    let requests = Requests::new(layer.clone(), |number| async move {
        // What can't be compressed is stored in another place than the row.
        let byte = |at: usize| blake3::hash(&at.to_le_bytes()).as_bytes()[0];
        (StatusCode::ACCEPTED, if number == 1 { (0..LONG).map(byte).collect() } else { Vec::new() })
    });
    requests.post("large", "a").await;
    requests.post("small", "a").await;
    let operations = layer.operations();
    let listed = operations.list(&Filter::all().answered_with(202), None, 9).await.unwrap().operations;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let is_large =
        |state: &OperationState| matches!(state, OperationState::Completed { bytes, .. } if *bytes > LONG as u64);
    let large = listed.iter().find(|operation| is_large(&operation.state)).unwrap();
    assert_eq!(large.label().map(str::len), Some(200));
    // It is the same as what is read whole.
    assert_eq!(operations.inspect(large.id).await.unwrap().as_ref(), Some(large));

    lab.sql(
        "UPDATE idempotency.record SET state = overlay(state PLACING '\\xff'::bytea FROM 40) \
             WHERE namespace = '$' AND octet_length(state) < 2000 AND kind = 3",
    )
    .await;
    let damaged = operations.list(&Filter::all().in_state(StateKind::Damaged), None, 9).await.unwrap().operations;
    let [damaged] = damaged.as_slice() else { panic!("{damaged:?}") };
    let release = Change::new(damaged.id, damaged.fence, Action::Release);
    assert_eq!(operations.by("alice").apply(release).await.unwrap(), Applied::Done);
    assert_eq!(operations.list(&Filter::all(), None, 9).await.unwrap().operations.len(), 1);
}
