//! An application that takes its time to answer for an operation.

use http::Response;
use http_body_util::Full;
use testkit::lab::asked::{asking, leave_interrupted};
use testkit::lab::time::SECOND;
use testkit::lab::{Lab, post, settle};
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::test_util::{StoreCall, TestStore};

// A seeded fault: the question uses up the run's time for its claim.
#[tokio::test(start_paused = true)]
async fn after_a_long_question_the_store_has_its_whole_time_to_answer_the_claim() {
    let store = TestStore::new();
    leave_interrupted(&store, "k").await;
    // This takes longer than a store may, and less than a reconciler may.
    let thinks = Reconciler::new(|_: InterruptedRun| async {
        tokio::time::sleep(SECOND * 6).await;
        Reconciled::<Response<Full<bytes::Bytes>>>::RunAgain
    });
    let lab = Lab::counting(asking(store.clone(), thinks));
    let stall = store.stall(StoreCall::Reclaim);
    let retry = lab.spawn(post("k", "a"));
    tokio::time::sleep(SECOND * 7).await;
    drop(stall);
    settle().await;
    assert_eq!((retry.await.unwrap().text(), lab.effects()), ("effect 1", 1));
}
