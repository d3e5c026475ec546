//! Outcomes that come after their operation was taken over, and the list in which operators find the cases to settle.

use std::sync::Arc;
use std::time::Duration;

use testkit::Gate;
use testkit::lab::listed::interrupted;
use testkit::lab::steps::{Steps as _, Wish, wish};
use testkit::lab::{Lab, done, hold, id, post, with};
use tower_idempotency::internals::{Completion, Records as _, Reply, Resolution, RunResult, State};
use tower_idempotency::operations::{
    Action, Answer, Applied, Change, Filter, OperationRecord, OperationState, Operations, Server, StateKind,
};
use tower_idempotency::store::StoreError;
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted, RecordId, Scope};
use tower_idempotency_conformance::memory_backend::{Call, Fault, MemoryBackend, Replication};
use tower_idempotency_shared::{Kind, Row};

use crate::world::{Effects, LEASE, Store, disputed, process, two, until_over};

/// The retention of the outcomes that are disputed here.
const RETENTION: Duration = Duration::from_secs(60);

/// Two runs of one operation, of which each is settled by an operator while its process is cut off, and then completed.
/// Returns their fences, and a third process.
async fn completed_after_they_were_settled() -> ([tower_idempotency::Fence; 2], Store) {
    let [(here, one), (there, other)] = two().await;
    let third = process(&here.another_process()).await;
    let mut holds = Vec::new();
    for (way, store) in [(&here, &one), (&there, &other)] {
        holds.push(hold(store, "k").await);
        way.cut();
        until_over().await;
        let listed = interrupted(&third, 9).await.remove(0);
        assert_eq!(third.settle(listed.id, listed.fence, Resolution::Release).await.unwrap(), Reply::Taken);
    }
    for (way, store, hold) in [(&here, &one, holds[0]), (&there, &other, holds[1])] {
        way.mend();
        tokio::time::sleep(LEASE).await;
        assert_eq!(store.complete(done(hold, "late", RETENTION)).await.unwrap(), Reply::Refused);
    }
    ([holds[0].fence, holds[1].fence], third)
}

// A seeded fault: the disputed outcomes of one operation have one row.
#[tokio::test(start_paused = true)]
async fn each_disputed_outcome_of_an_operation_is_listed() {
    let (fences, third) = completed_after_they_were_settled().await;
    let disputed = disputed(&third).await;
    let mut listed: Vec<_> = disputed.iter().map(|outcome| (outcome.id, outcome.fence)).collect();
    listed.sort_by_key(|(_, fence)| *fence);
    assert_eq!(listed, fences.map(|fence| (id("k"), fence)));
}

// A seeded fault: it is kept for as long as an undisputed outcome.
#[tokio::test(start_paused = true)]
async fn a_disputed_outcome_is_kept_for_thirty_days_whatever_the_retention() {
    let (_, third) = completed_after_they_were_settled().await;
    for outcome in disputed(&third).await {
        let kept = outcome.expires.unwrap().as_millis() - outcome.since.as_millis();
        assert_eq!(kept / 86_400_000, 30, "{outcome:?}");
    }
}

// A seeded fault: the process goes on replaying the outcome.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_failover_lost_is_not_told_while_the_operation_runs_again_elsewhere() {
    let [(here, one), (_, other)] = two().await;
    let (effects, open, gate) = (Effects::default(), Gate::default(), Gate::default());
    open.open();
    let layer = |store| IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject);
    let server = effects.behind(layer(one), &open);
    here.database().replication(Replication::Behind);
    assert_eq!(server.post("k", "a").await.text(), "effect 1");
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    // This makes sure that the next claim has another fence.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let run = effects.behind(layer(other), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    assert_eq!(server.post("k", "a").await.text(), "effect 1", "it has not noticed yet");
    tokio::time::sleep(LEASE).await;
    server.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 2");
    assert_eq!(server.post("k", "a").await.text(), "effect 2");
}

// A seeded fault: only outcomes are put back.
#[tokio::test(start_paused = true)]
async fn an_operation_that_was_consumed_stays_so_after_a_failover_that_lost_it() {
    let [(here, one), (_, other)] = two().await;
    here.database().replication(Replication::Behind);
    let consumed = done(hold(&one, "k").await, "", LEASE * 9);
    let consumed = Completion { result: RunResult::Consumed { status: 200 }, ..consumed };
    assert_eq!(one.complete(consumed).await.unwrap(), Reply::Taken);
    here.database().fail_over();
    here.database().replication(Replication::InStep);
    tokio::time::sleep(LEASE).await;
    let found = other.load(id("k")).await.unwrap().map(|record| record.state);
    assert!(matches!(found, Some(State::Consumed { status: 200 })), "{found:?}");
}

// A seeded fault: it is sent once.
#[tokio::test(start_paused = true)]
async fn a_disputed_outcome_is_kept_though_the_database_refuses_it_at_first() {
    let [(here, one), (_, other)] = two().await;
    let hold = hold(&one, "k").await;
    here.cut();
    until_over().await;
    assert_eq!(other.settle(hold.id, hold.fence, Resolution::Release).await.unwrap(), Reply::Taken);
    here.mend();
    tokio::time::sleep(LEASE).await;
    let answers = here.hold_answers(Call::Put);
    let completing = tokio::spawn(async move { one.complete(done(hold, "late", RETENTION)).await });
    answers.wait_until_held(1).await;
    // The next write is the disputed outcome.
    here.fail_next(Call::Put, Fault::Refuse);
    answers.release();
    assert_eq!(completing.await.unwrap().unwrap(), Reply::Refused);
    let disputed = disputed(&other).await;
    assert_eq!(disputed.iter().map(|outcome| (outcome.id, outcome.fence)).collect::<Vec<_>>(), [(hold.id, hold.fence)]);
}

// A seeded fault: only an answer that can be stored is not given.
#[tokio::test(start_paused = true)]
async fn a_late_answer_that_can_not_be_stored_is_not_given_once_the_operation_was_settled_elsewhere() {
    let [(here, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = IdempotencyLayer::new(one).max_response_body(1);
    let run = effects.behind(layer.clone(), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    here.cut();
    until_over().await;
    let listed = interrupted(&other, 9).await.remove(0);
    assert_eq!(other.settle(listed.id, listed.fence, Resolution::Release).await.unwrap(), Reply::Taken);
    here.mend();
    tokio::time::sleep(LEASE).await;
    gate.open();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    assert_eq!((layer.stats().interrupted, layer.stats().disputed), (1, 1));
    let outcome = disputed(&other).await.remove(0);
    assert_eq!(outcome.state, OperationState::Consumed { status: 200 });
    assert!(layer.operations().disputed_outcome(outcome.id, outcome.fence).await.unwrap().is_none());
}

/// Writes a disputed outcome with this number that began when the row of `key` did.
fn plant_disputed(backend: &MemoryBackend, key: &str, number: u8) {
    let rows = backend.database().rows("");
    let row = rows.into_iter().find(|row| row.id == id(key)).expect("it has a row");
    let id = RecordId::from_bytes([number; 32]);
    backend.database().insert_raw("", Row { id, kind: Kind::Disputed, session: Some(testkit::lab::id("k")), ..row });
}

// A seeded fault: whatever names a session is listed.
#[tokio::test(start_paused = true)]
async fn a_run_that_a_dead_process_has_left_is_no_disputed_outcome() {
    let [(here, one), (_, other)] = two().await;
    hold(&one, "k").await;
    here.cut();
    until_over().await;
    assert_eq!(interrupted(&other, 9).await.len(), 1);
    assert!(disputed(&other).await.is_empty());
}

// A seeded fault: the database does not know which sessions are this process's own.
#[tokio::test(start_paused = true)]
async fn the_runs_of_the_process_that_lists_are_not_read() {
    let [(here, one), _] = two().await;
    for key in ["a", "b", "c"] {
        hold(&one, key).await;
    }
    let before = here.counts().lists;
    assert!(interrupted(&one, 1).await.is_empty());
    assert_eq!(here.counts().lists - before, 1);
}

// A seeded fault: an operation begins when it comes to another state.
#[tokio::test(start_paused = true)]
async fn an_operation_that_was_interrupted_is_listed_by_when_it_began() {
    let [(here, one), _] = two().await;
    let first = hold(&one, "k").await;
    let began = |backend: &MemoryBackend| {
        backend.database().rows("").iter().find(|row| row.id == id("k")).expect("it has a row").began
    };
    let before = began(&here);
    tokio::time::sleep(LEASE).await;
    assert_eq!(one.interrupt(first.id, first.fence).await.unwrap(), Reply::Taken);
    assert_eq!(interrupted(&one, 9).await[0].began, before);
    tokio::time::sleep(LEASE).await;
    let again = one.reclaim(wish("k"), first.fence).await.unwrap().expect("it is interrupted");
    assert_eq!(one.complete(done(again, "done", RETENTION)).await.unwrap(), Reply::Taken);
    assert_eq!(began(&here), before);
}

// A seeded fault: the record expires when the retention after the claim is over.
#[tokio::test(start_paused = true)]
async fn a_run_of_a_dead_process_is_kept_for_the_retention_after_its_bound() {
    const KEPT: Duration = Duration::from_secs(1_000);
    let [(here, one), (_, other)] = two().await;
    one.claim(Wish { bound: KEPT, interrupted_retention: KEPT, ..wish("k") }).await.unwrap();
    here.cut();
    tokio::time::sleep(KEPT * 3 / 2).await;
    let found = other.load(id("k")).await.unwrap().map(|record| record.state);
    assert!(matches!(found, Some(State::Interrupted { .. })), "{found:?}");
    tokio::time::sleep(KEPT).await;
    assert_eq!(other.load(id("k")).await.unwrap(), None);
}

// A seeded fault: the list ends with the first page on which there are other rows.
#[tokio::test(start_paused = true)]
async fn the_list_of_interrupted_operations_goes_on_behind_a_disputed_outcome() {
    let [(here, one), _] = two().await;
    let unknown = Lab::new(IdempotencyLayer::new(one.clone()), |_| async { (tower_idempotency::Unsure, "perhaps") });
    for key in ["first", "between", "last"] {
        assert_eq!(unknown.post(key, "a").await.text(), "perhaps");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    plant_disputed(&here, "between", 9);
    let listed = interrupted(&one, 3).await;
    let ids: Vec<_> = listed.iter().map(|run| run.id).collect();
    assert_eq!(ids, ["first", "between", "last"].map(id));
}

// Seeded faults: all of a page are listed; the next page begins with the place of the last row that was read.
#[tokio::test(start_paused = true)]
async fn no_more_disputed_outcomes_are_listed_than_were_asked_for() {
    let [(here, one), _] = two().await;
    let unknown = Lab::new(IdempotencyLayer::new(one.clone()), |_| async { (tower_idempotency::Unsure, "perhaps") });
    assert_eq!(unknown.post("first", "a").await.text(), "perhaps");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let effects = Effects::default();
    assert_eq!(effects.server(&one, OnInterrupted::Refuse).post("later", "a").await.text(), "effect 1");
    // The first page has one of them, and the second page two.
    (1..=3).for_each(|number| plant_disputed(&here, "later", number));
    let operations = Operations::over(one, RETENTION);
    let page = operations.disputed(None, 2).await.unwrap();
    assert_eq!(page.operations.len(), 2);
    let rest = operations.disputed(page.next.as_ref(), 2).await.unwrap();
    assert_eq!((rest.operations.len(), rest.next), (1, None));
    assert_eq!(operations.disputed(None, 3).await.unwrap().next, None, "it is known that there are no more");
}

/// An operation whose first outcome is of this size, and came after the operation had run again in another process.
/// Returns the other process, and the operators' interface to it.
async fn charged_twice(bytes: usize) -> (MemoryBackend, Operations<Store>) {
    let [(here, one), (there, other)] = two().await;
    let gate = Gate::default();
    let charge = |store: Store, gate: &Gate, text: String| {
        let layer = IdempotencyLayer::new(store).label(|_: &http::request::Parts| "charge 17".to_owned());
        let layer = layer.scope(|_: &http::request::Parts| Ok(Scope::new("acme")?));
        let (gate, text) = (gate.clone(), Arc::<str>::from(text));
        Lab::new(layer, move |_| {
            let (gate, text) = (gate.clone(), Arc::clone(&text));
            async move {
                gate.pass().await;
                (http::StatusCode::ACCEPTED, text.to_string())
            }
        })
    };
    let run = charge(one, &gate, "x".repeat(bytes))
        .spawn(with("traceparent", &format!("00-{}-b7ad6b7169203331-01", "ab".repeat(16))));
    gate.arrival().await;
    here.cut();
    until_over().await;
    let operations = Operations::over(other.clone(), RETENTION);
    let seen = operations.list(&Filter::all(), None, 9).await.unwrap().operations.remove(0);
    let release = Change::new(seen.id, seen.fence, Action::Release);
    assert_eq!(operations.by("alice").apply(release).await.unwrap(), Applied::Done);
    let open = Gate::default();
    open.open();
    assert_eq!(charge(other, &open, "again".to_owned()).post("k", "a").await.text(), "again");
    here.mend();
    tokio::time::sleep(LEASE).await;
    gate.open();
    assert_eq!(run.await.unwrap().problem(), "outcome-unknown");
    (there, operations)
}

fn body(answer: Option<Answer>) -> String {
    let Some(Answer::Http(answer)) = answer else { panic!("{answer:?}") };
    String::from_utf8(answer.into_body().to_vec()).unwrap()
}

// Seeded faults: a large one counts as damaged; it has the id of its row; the body of another run is shown.
#[tokio::test(start_paused = true)]
async fn a_disputed_outcome_is_listed_as_a_record_of_its_operation_and_its_body_is_compared_on_request() {
    for size in [10, 100_000] {
        let (_, operations) = charged_twice(size).await;
        let listing = operations.disputed(None, 9).await.unwrap();
        let [outcome] = listing.operations.as_slice() else { panic!("{listing:?}") };
        let run_again = operations.inspect(outcome.id).await.unwrap().expect("it has run again");
        assert!(outcome.fence < run_again.fence);
        assert_eq!((outcome.label(), outcome.attempt), (Some("charge 17"), 1));
        assert_eq!((outcome.scope(), outcome.trace_id()), (run_again.scope(), Some([0xab; 16])));
        let OperationState::Completed { status: Some(202), bytes } = outcome.state else { panic!("{outcome:?}") };
        assert!((size as u64..size as u64 + 200).contains(&bytes), "{bytes}");
        assert_eq!((outcome.began.as_millis(), outcome.server, outcome.session), (0, Server::None, None));
        assert!(outcome.since > run_again.since && outcome.expires > Some(listing.now));
        assert_eq!(body(operations.disputed_outcome(outcome.id, outcome.fence).await.unwrap()), "x".repeat(size));
        assert_eq!(body(operations.outcome(outcome.id).await.unwrap()), "again");
        assert!(operations.disputed_outcome(outcome.id, run_again.fence).await.unwrap().is_none());
    }
}

// A seeded fault: what can't be read is left out.
#[tokio::test(start_paused = true)]
async fn a_disputed_outcome_that_can_not_be_read_is_listed_as_damaged() {
    let (backend, operations) = charged_twice(10).await;
    let whole = operations.disputed(None, 9).await.unwrap().operations.remove(0);
    let row = backend.database().rows("").into_iter().find(|row| row.kind == Kind::Disputed).expect("its row");
    backend.database().insert_raw("", Row { state: row.state.slice(..9), ..row });
    let damaged = operations.disputed(None, 9).await.unwrap().operations.remove(0);
    assert_eq!(damaged.state.kind(), StateKind::Damaged);
    let times = |record: &OperationRecord| (record.id, record.fence, record.began, record.since, record.expires);
    assert_eq!(times(&damaged), times(&whole));
    let error = operations.disputed_outcome(whole.id, whole.fence).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { id, .. } if id == whole.id), "{error}");
}

// A seeded fault: the row of a run is kept for as long as one of an operation that is interrupted.
#[tokio::test(start_paused = true)]
async fn the_row_of_a_run_is_kept_while_it_runs_though_interrupted_operations_are_kept_for_a_shorter_time() {
    const MINUTE: Duration = Duration::from_secs(60);
    let [(_, one), (_, other)] = two().await;
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = |store| {
        let layer = IdempotencyLayer::new(store).on_in_flight(OnInFlight::Reject);
        layer.interrupted_retention(MINUTE).max_run(MINUTE * 120)
    };
    let run = effects.behind(layer(one), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    tokio::time::sleep(MINUTE * 30).await;
    let elsewhere = effects.behind(layer(other.clone()), &gate);
    elsewhere.post("k", "a").await.assert_refusal(409, "in-flight", true, Some("1"));
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    assert!(effects.server(&other, OnInterrupted::Refuse).post("k", "a").await.is_replay());
    assert_eq!(effects.count(), 1);
}
