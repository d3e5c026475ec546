//! A server that is started again and takes no writes, like an old primary that another one has replaced.

use tower_idempotency::internals::{
    Claim, ClaimPolicy, Completion, Hold, Operation, Origin, Records as _, RunResult, Transition,
};
use tower_idempotency::store::StoreError;
use tower_idempotency::{Fingerprint, RecordId};
use tower_idempotency_postgres::PostgresStore;
use tower_idempotency_shared::{Backend as _, Clocks};

use crate::lab::{HOUR, Lab, builder, client, id, own_server, put, until};

fn claim(id: RecordId) -> Transition {
    let operation = Operation { id, fingerprint: Fingerprint::of(b"m"), origin: Origin::default() };
    let (bound, interrupted_retention, timeout) = (HOUR, HOUR, HOUR);
    let (policy, may_repeat) = (ClaimPolicy::Refuse, false);
    let claim = Claim { operation, policy, may_repeat, bound, interrupted_retention, timeout };
    Transition::Claim(claim)
}

/// Claims and completes an operation.
async fn run(store: &PostgresStore, id: RecordId) {
    let run = store.apply(id, claim(id)).await.unwrap().record.unwrap();
    let (operation, hold) = (Operation::of(id, &run), Hold { fence: run.fence, attempt: run.attempt });
    let result = RunResult::Outcome("its outcome".into());
    let completion = Completion { operation, hold, result, retention: HOUR, began: None };
    store.apply(id, Transition::Complete(completion)).await.unwrap();
}

/// A demoted server may show writes that it never answered, and writes that the new primary lacks. A process may answer
/// from a row only if it can write to that server.
#[tokio::test]
async fn what_a_server_shows_that_takes_no_writes_is_not_told_as_done() {
    let Some(mut server) = own_server("that a demoted server is not believed", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let (one, other) = (lab.another().await, lab.another().await);
    let (one, other) = (PostgresStore::open(one).await.unwrap(), PostgresStore::open(other).await.unwrap());
    run(&one, id(1)).await;
    let done = one.load(id(1)).await.unwrap();
    lab.sql("ALTER SYSTEM SET default_transaction_read_only = on").await;
    server.stop();
    server.start_again();
    for _ in 0..3 {
        let told = other.load(id(1)).await;
        assert!(matches!(told, Err(StoreError::Unavailable { .. })), "{told:?}");
        let claimed = other.apply(id(1), claim(id(1))).await;
        assert!(claimed.is_err(), "{claimed:?}");
        let claimed = other.apply(id(2), claim(id(2))).await;
        assert!(matches!(claimed, Err(StoreError::Unavailable { .. })), "{claimed:?}");
    }
    assert_eq!(one.load(id(1)).await.unwrap(), done, "who was answered remembers it");
    // Its place is its own again.
    let client = client(&lab.url).await;
    client.batch_execute("ALTER SYSTEM RESET default_transaction_read_only").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("it is told", async || other.load(id(1)).await.is_ok_and(|told| told == done)).await;
    until("it is claimed", async || other.apply(id(2), claim(id(2))).await.is_ok()).await;
}

/// A connection that was made while the server was the primary stays open when it is not any more.
#[tokio::test]
async fn a_server_that_takes_no_writes_any_more_is_left_for_the_one_that_does() {
    let promise = "that a demoted server is left";
    let (Some(first), Some(second)) = (own_server(promise, &[]), own_server(promise, &[])) else { return };
    let (first, second) = (Lab::new(&first.url()).await, Lab::new(&second.url()).await);
    let (_, second_host) = second.url.split_once('@').unwrap();
    let (first_host, _) = first.url.rsplit_once('/').unwrap();
    let both = format!("{first_host},{second_host}");
    let backend = builder(&both, "both").open().await.unwrap();
    // Several connections are open, and idle.
    let puts = (0..4_u64).map(|number| put(&backend, crate::lab::claim(id(number))));
    futures_util::future::join_all(puts).await;
    let of_both = "SELECT count(*) FROM idempotency.record WHERE namespace = 'both'";
    assert_eq!(first.client.query_one(of_both, &[]).await.unwrap().get::<_, i64>(0), 4);
    first.client.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
    first.client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let read_only = "SELECT current_setting('transaction_read_only') = 'on'";
    until("it takes no writes", async || first.client.query_one(read_only, &[]).await.unwrap().get(0)).await;
    until("the other one is written to", async || {
        let claim = crate::lab::claim(id(9));
        backend
            .put(Clocks::default(), std::slice::from_ref(&claim))
            .await
            .is_ok_and(|answer| answer.rows[0].as_ref().is_some_and(|row| row.token == claim.token))
            && second.client.query_one(of_both, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let refused = first.client.query_one(of_both, &[]).await.unwrap().get::<_, i64>(0);
    assert!((4..=5).contains(&refused), "what was put before the reload got to its connection");
}
