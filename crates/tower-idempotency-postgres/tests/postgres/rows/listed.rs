//! Rows as operators see them: the beginning of a large one is enough, and a damaged one is settled by its columns.

use axum::response::IntoResponse as _;
use http::StatusCode;
use testkit::Gate;
use testkit::lab::{Lab as Requests, id, post};
use tower_idempotency::operations::{Action, Answer, Applied, Change, Filter, OperationState, StateKind};
use tower_idempotency::{IdempotencyLayer, Secret};
use tower_idempotency_postgres::PostgresStore;
use tower_idempotency_shared::{Backend as _, Clocks};

use crate::lab::lab;

const LONG: usize = 300_000;

/// A body of this length. What can't be compressed is stored in another place than the row.
fn long() -> Vec<u8> {
    let byte = |at: usize| blake3::hash(&at.to_le_bytes()).as_bytes()[0];
    (0..LONG).map(byte).collect()
}

// A seeded fault: the list has it without its beginning.
#[tokio::test]
async fn a_large_disputed_answer_is_listed_by_its_first_kilobyte_and_shown_whole_on_request() {
    let Some(lab) = lab("how disputed outcomes are listed").await else { return };
    let open = async || PostgresStore::open(lab.another().await).await.unwrap();
    let layer = IdempotencyLayer::new(open().await).label(|_: &http::request::Parts| "y".repeat(200));
    let gate = Gate::default();
    let requests = Requests::new(layer, {
        let gate = gate.clone();
        move |_| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                (StatusCode::ACCEPTED, long())
            }
        }
    });
    let run = requests.spawn(post("k", "a"));
    gate.arrival().await;
    // As an operator frees the key.
    lab.sql(
        "UPDATE idempotency.record SET kind = 5, session = NULL, fence = fence + 1, token = gen_random_uuid() \
             WHERE namespace = '$' AND kind = 1",
    )
    .await;
    gate.open();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    let operations = IdempotencyLayer::new(open().await).operations();
    let outcome = operations.disputed(None, 9).await.unwrap().operations.remove(0);
    assert_eq!((outcome.id, outcome.label().map(str::len)), (id("k"), Some(200)));
    let OperationState::Completed { status: Some(202), bytes } = outcome.state else { panic!("{outcome:?}") };
    assert!(bytes > LONG as u64);
    let Some(Answer::Http(answer)) = operations.disputed_outcome(outcome.id, outcome.fence).await.unwrap() else {
        panic!()
    };
    assert_eq!(answer.into_body(), long());
    let rows = lab.backend.list(Clocks::default(), &[], None, 9).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.state.len()).collect::<Vec<_>>(), [1_024]);
}

#[tokio::test]
async fn a_large_answer_is_listed_by_its_first_kilobyte_and_a_damaged_row_is_settled_by_its_columns() {
    let Some(lab) = lab("how rows are listed").await else { return };
    let store = PostgresStore::open(lab.another().await).await.unwrap();
    let layer = IdempotencyLayer::new(store).label(|_: &http::request::Parts| "x".repeat(200));
    let requests = Requests::new(layer.clone(), |number| async move {
        (StatusCode::ACCEPTED, if number == 1 { long() } else { Vec::new() })
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

#[tokio::test]
async fn no_row_has_a_secret() {
    const CANARY: &str = "canary-5e7c-sk-live";
    let Some(lab) = lab("that a secret is not stored").await else { return };
    let layer = IdempotencyLayer::new(PostgresStore::open(lab.another().await).await.unwrap());
    let gate = Gate::default();
    let requests = Requests::new(layer, {
        let gate = gate.clone();
        move |number| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                let answer = (StatusCode::CREATED, [("location", CANARY)], CANARY);
                if number == 1 { (Secret, answer).into_response() } else { answer.into_response() }
            }
        }
    });
    let has_it = async |key: &str| {
        let rows = lab.backend.get(Clocks::default(), &[id(key)]).await.unwrap().rows;
        let state = rows[0].as_ref().unwrap().state.clone();
        state.windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes())
    };
    let run = requests.spawn(post("secret", "a"));
    gate.arrival().await;
    assert!(!has_it("secret").await, "the run has claimed, and not ended");
    gate.open();
    assert_eq!(run.await.unwrap().text(), CANARY);
    assert!(!has_it("secret").await);
    // Without the mark a row has it.
    requests.post("plain", "a").await;
    assert!(has_it("plain").await);
    requests.post("secret", "a").await.assert_refusal(409, "not-replayable", false, None);
}
