//! A server that is started again and takes no writes, as an old primary does whose place another has taken.

use tower_idempotency::internals::{Claim, ClaimPolicy, Completion, Hold, Records as _, Settlement, Transition};
use tower_idempotency::store::StoreError;
use tower_idempotency::store::postgres::PostgresStore;
use tower_idempotency::{Fingerprint, RecordId};

use super::lab::{HOUR, Lab, client, id, own_server, until};

fn claim() -> Transition {
    let (fingerprint, origin, may_repeat) = (Fingerprint::of(b"m"), None, false);
    let (bound, interrupted_retention, patience) = (HOUR, HOUR, HOUR);
    let policy = ClaimPolicy::Refuse;
    let claim = Claim { fingerprint, origin, policy, may_repeat, bound, interrupted_retention, patience };
    Transition::Claim(claim)
}

/// Claims and completes an operation.
async fn run(store: &PostgresStore, id: RecordId) {
    let run = store.apply(id, claim()).await.unwrap().record.unwrap();
    let hold = Hold { id, fence: run.fence, attempt: run.attempt };
    let (fingerprint, settlement) = (run.fingerprint, Settlement::Outcome("its outcome".into()));
    let completion = Completion { hold, fingerprint, settlement, retention: HOUR };
    store.apply(id, Transition::Complete(completion)).await.unwrap();
}

/// It may show what it never answered, and what the other has not got. Only who can write there may tell it as done.
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
        let claimed = other.apply(id(1), claim()).await;
        assert!(claimed.is_err(), "{claimed:?}");
        let claimed = other.apply(id(2), claim()).await;
        assert!(matches!(claimed, Err(StoreError::Unavailable { .. })), "{claimed:?}");
    }
    assert_eq!(one.load(id(1)).await.unwrap(), done, "who was answered remembers it");
    // Its place is its own again.
    let client = client(&lab.url).await;
    client.batch_execute("ALTER SYSTEM RESET default_transaction_read_only").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("it is told", async || other.load(id(1)).await.is_ok_and(|told| told == done)).await;
    until("it is claimed", async || other.apply(id(2), claim()).await.is_ok()).await;
}
