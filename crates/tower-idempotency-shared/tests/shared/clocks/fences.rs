//! Fences and expiries under wrong clocks.

use testkit::lab::done;
use testkit::lab::steps::{Claimed, Steps as _, Wish, wish};
use tokio::time::sleep;
use tower_idempotency::clock::Clock as _;
use tower_idempotency::store::Store as _;
use tower_idempotency_shared::GRACE;

use super::{HOUR, MINUTE, SECOND, World, open};

// Seeded fault: a question keeps the row's expiry, and takes its fence from a clock that is past it.
#[tokio::test(start_paused = true)]
async fn fences_grow_though_a_process_that_is_hours_ahead_has_asked() {
    let world = World::new().await;
    let run = world.interrupted(MINUTE * 60).await;
    world.walls[1].step(3 * HOUR);
    let asked = world.stores[1].inquire(run.id, run.fence).await.unwrap().expect("it is interrupted");
    assert!(run.fence < asked);
    for store in &world.stores {
        store.close().await.unwrap();
    }
    // The third process deletes rows that are past their expiry by the right time.
    let third = open(&world.here.another_process(), &world.database.another_process()).await;
    sleep(MINUTE * 120).await;
    let again = third.claim(wish("k")).await.unwrap();
    assert!(!matches!(again, Claimed::Fresh(again) if again.fence <= asked), "{again:?} after {asked:?}");
}

// Seeded fault: the row is kept for as long as the question may take.
#[tokio::test(start_paused = true)]
async fn a_row_is_kept_for_its_grace_after_a_question_about_an_operation_that_is_soon_forgotten() {
    let world = World::new().await;
    let run = world.interrupted(MINUTE).await;
    sleep(MINUTE / 2).await;
    assert!(world.stores[1].inquire(run.id, run.fence).await.unwrap().is_some(), "it is interrupted");
    assert!(world.expires() >= world.database.wall().plus(GRACE));
}

// Seeded fault: the record is kept for as long as its row has to outlive its fence, which is past by the wrong clock.
#[tokio::test(start_paused = true)]
async fn a_question_by_a_clock_that_is_set_right_before_it_arrives_lets_no_record_expire_sooner() {
    let world = World::new().await;
    let run = world.interrupted(MINUTE * 120).await;
    let before = world.expires();
    world.walls[1].step(25 * HOUR);
    let (locked, store) = (world.here.database().lock("", run.id), world.stores[1].clone());
    let asking = tokio::spawn(async move { store.inquire(run.id, run.fence).await });
    sleep(SECOND).await;
    world.walls[1].step(-25 * HOUR);
    locked.release();
    assert!(asking.await.unwrap().unwrap().is_some(), "it is interrupted");
    assert!(world.expires() >= before);
}

// Seeded fault: rows are kept for as long as their records, or for ten minutes.
#[tokio::test(start_paused = true)]
async fn trap_96_fences_grow_though_the_database_was_a_day_ahead_when_one_was_given() {
    for releases in [true, false] {
        let world = World::new().await;
        world.database.step(25 * HOUR);
        let Claimed::Fresh(run) = world.stores[0].claim(wish("k")).await.unwrap() else { panic!("it is there") };
        world.database.step(-25 * HOUR);
        sleep(SECOND).await;
        if releases {
            world.stores[0].release(run.id, run.fence).await.unwrap();
        } else {
            world.stores[0].complete(done(run, "done", MINUTE)).await.unwrap();
        }
        // Long enough for the row to be deleted, if it were kept for its grace alone.
        sleep(MINUTE * 40).await;
        let Claimed::Fresh(again) = world.stores[1].claim(wish("k")).await.unwrap() else { panic!("it is free") };
        assert!(run.fence < again.fence, "{releases}: {:?} was given after {:?}", again.fence, run.fence);
        world.stores[1].release(again.id, again.fence).await.unwrap();
        sleep(MINUTE * 60 * 26).await;
        let row = world.here.database().rows("").into_iter().find(|row| row.id == run.id);
        assert_eq!(row, None, "it is deleted in the end; {releases} {:?}", world.database.wall());
    }
}

// Seeded fault: the row of a claim is kept by the fence that was there before it, and not by the one that it is given.
#[tokio::test(start_paused = true)]
async fn fences_grow_though_a_claim_that_was_never_ended_had_one_of_a_clock_that_was_a_day_ahead() {
    let world = World::new().await;
    world.database.step(25 * HOUR);
    let Claimed::Fresh(ahead) = world.stores[0].claim(wish("ahead")).await.unwrap() else { panic!("it is there") };
    world.database.step(-25 * HOUR);
    let short = Wish { bound: MINUTE, interrupted_retention: MINUTE, ..wish("k") };
    let Claimed::Fresh(run) = world.stores[0].claim(short).await.unwrap() else { panic!("it is there") };
    assert!(ahead.fence < run.fence, "the process has seen a larger one");
    // Long enough for the row to be deleted, if it were kept for its bound, its retention and its grace alone.
    sleep(MINUTE * 40).await;
    let again = world.stores[1].claim(wish("k")).await.unwrap();
    assert!(!matches!(again, Claimed::Fresh(again) if again.fence <= run.fence), "{again:?} after {run:?}");
}
