//! Rows that a failover may lose are not shown.

use tower_idempotency_shared::BackendError;

use crate::lab::{builder, claim, complete, get, id, is_done, pair, put, replicated};

/// A's outcome is executed, and its wait is short. B must not replay it: a failover may lose it.
#[tokio::test]
async fn an_outcome_that_no_replica_has_is_neither_answered_nor_shown() {
    let Some((primary, replica)) = pair("that no outcome is replayed early") else { return };
    let (one, other) = (replicated(&primary.url(), "n"), replicated(&primary.url(), "n"));
    let (one, other) = (one.open().await.unwrap(), other.open().await.unwrap());
    // The control has no barrier.
    let control = builder(&primary.url(), "n").open().await.unwrap();
    let claimed = claim(id(1));
    assert!(is_done(put(&one, &claimed).await.unwrap().as_ref(), &claimed));
    replica.pause();
    let outcome = complete(id(1), claimed.token);
    let answer = put(&one, &outcome).await;
    assert!(matches!(answer, Err(BackendError::Uncertain(_))), "{answer:?}");
    assert!(is_done(get(&control, id(1)).await.unwrap().as_ref(), &outcome), "it was executed, and is seen");
    let shown = get(&other, id(1)).await;
    assert!(matches!(shown, Err(BackendError::Uncertain(_))), "{shown:?}");
    let refused = put(&other, &claim(id(1))).await;
    assert!(matches!(refused, Err(BackendError::Uncertain(_))), "{refused:?}");
    replica.resume();
    testkit::process::until("the replica is back", async || get(&other, id(1)).await.is_ok()).await;
    assert!(is_done(get(&other, id(1)).await.unwrap().as_ref(), &outcome));
    assert!(is_done(put(&one, &outcome).await.unwrap().as_ref(), &outcome), "sent again, it is done");
}
