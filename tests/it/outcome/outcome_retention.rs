//! Between `retention` and `outcome_retention`, a retry gets the status of the answer, and does not run.

use std::time::Duration;

use testkit::lab::asked::leave_interrupted;
use testkit::lab::operator::{Operated as _, answer};
use testkit::lab::steps::Steps as _;
use testkit::lab::time::{DAY, HOUR, NOON, clock};
use testkit::lab::{Lab, hold, id, on_disk, post, with};
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::{Advice, EffectError, OnceError};
use tower_idempotency::internals::{Records as _, Reply};
use tower_idempotency::operations::{Applied, Filter, StateKind};
use tower_idempotency::server::Profile;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::ManualClock;
use tower_idempotency::{Fingerprint, IdempotencyLayer, MemoryStore, Once, SledStore};

const MOMENT: Duration = Duration::from_millis(1);

fn in_memory(clock: &ManualClock) -> MemoryStore {
    MemoryStore::builder().clock(clock.clone()).build()
}

fn layer<St: Store>(store: St) -> IdempotencyLayer<St> {
    IdempotencyLayer::new(store).retention(HOUR).outcome_retention(DAY)
}

/// A retry of `k` is answered with the status alone.
async fn is_known(lab: &Lab) {
    let retry = lab.post("k", "a").await;
    retry.assert_refusal(409, "not-replayable", false, None);
    assert_eq!(retry.json()["original_status"], 200);
}

async fn between_the_two_times<St: Store>(store: St, clock: &ManualClock) {
    let lab = Lab::counting(layer(store));
    lab.post("k", "a").await;
    clock.advance(HOUR - MOMENT);
    assert!(lab.post("k", "a").await.is_replay());
    for passes in [MOMENT, DAY - HOUR - MOMENT] {
        clock.advance(passes);
        is_known(&lab).await;
        lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
    }
    clock.advance(MOMENT);
    assert_eq!((lab.post("k", "a").await.text(), lab.effects()), ("effect 2", 2));
}

// Seeded faults: the record is kept for `retention` alone; the answer is replayed for as long as the record is kept.
#[tokio::test]
async fn between_the_two_times_a_retry_gets_the_status_and_does_not_run() {
    let clock = clock();
    between_the_two_times(in_memory(&clock), &clock).await;
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    between_the_two_times(store, &clock).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, store) = on_disk(tower_idempotency::FjallStore::builder().clock(clock.clone()));
        between_the_two_times(store, &clock).await;
    }
}

// A seeded fault: a probe is answered from the record as it is.
#[tokio::test]
async fn a_probe_gets_what_a_retry_would_get_between_the_two_times() {
    let clock = clock();
    let lab = Lab::counting(layer(in_memory(&clock)));
    lab.post("k", "a").await;
    let probe = || lab.send(with("idempotency-probe", "?1"));
    assert!(probe().await.is_replay());
    clock.advance(HOUR);
    probe().await.assert_refusal(409, "not-replayable", false, None);
}

// A seeded fault: the record is kept for `retention` alone.
#[tokio::test]
async fn a_message_is_acknowledged_between_the_two_times_and_does_not_run() {
    let clock = clock();
    let once = Once::new(in_memory(&clock)).retention(HOUR).outcome_retention(DAY);
    let deliver = || once.run(id("m"), Fingerprint::of(b"m"), |_| async { Ok::<_, EffectError<()>>(17_u32) });
    assert!(!deliver().await.unwrap().replayed);
    clock.advance(HOUR - MOMENT);
    assert!(deliver().await.unwrap().replayed);
    clock.advance(MOMENT);
    let late = deliver().await;
    assert!(matches!(late, Err(OnceError::NotReplayable)), "{late:?}");
    assert_eq!(Advice::of(&late), Advice::Acknowledge);
    clock.advance(DAY - HOUR);
    assert!(!deliver().await.unwrap().replayed, "it runs again");
}

// Seeded faults: the record is kept for the sum; a shorter time shortens it.
#[tokio::test]
async fn without_the_option_nothing_is_kept_longer() {
    for shorter in [None, Some(HOUR / 2)] {
        let clock = clock();
        let store = in_memory(&clock);
        let mut layer = IdempotencyLayer::new(store.clone()).retention(HOUR);
        if let Some(shorter) = shorter {
            layer = layer.outcome_retention(shorter);
        }
        let lab = Lab::counting(layer);
        lab.post("k", "a").await;
        let record = store.load(id("k")).await.unwrap().expect("it is kept");
        assert_eq!(record.expires, Some(record.since.plus(HOUR)));
        clock.advance(HOUR - MOMENT);
        assert!(lab.post("k", "a").await.is_replay());
        clock.advance(MOMENT);
        assert_eq!(lab.post("k", "a").await.text(), "effect 2");
    }
}

// A seeded fault: the wall clock says how old an answer is.
#[tokio::test]
async fn a_wall_clock_that_jumps_ends_no_answer() {
    let clock = ManualClock::new(NOON);
    let lab = Lab::counting(layer(in_memory(&clock)));
    lab.post("k", "a").await;
    for wall in [NOON.as_millis() + 86_400_000, NOON.as_millis() - 86_400_000, 0] {
        clock.jump(Timestamp::from_millis(wall));
        assert!(lab.post("k", "a").await.is_replay(), "the wall clock shows {wall}");
    }
    clock.advance(HOUR - MOMENT);
    assert!(lab.post("k", "a").await.is_replay());
    clock.advance(MOMENT);
    is_known(&lab).await;
}

// A seeded fault: the option's value counts, and not the profile's least retention.
#[tokio::test]
async fn an_answer_is_replayed_for_as_long_as_the_profile_says() {
    let clock = clock();
    let lab = Lab::counting(layer(in_memory(&clock)).outcome_retention(HOUR * 2).profile(Profile::acp()));
    lab.post("k", "a").await;
    clock.advance(DAY - MOMENT);
    assert_eq!((lab.post("k", "a").await.text(), lab.effects()), ("effect 1", 1));
    clock.advance(MOMENT);
    assert_eq!((lab.post("k", "a").await.text(), lab.effects()), ("effect 2", 2));
}

// A seeded fault: the answer is deleted as soon as it is not replayed.
#[tokio::test]
async fn a_longer_retention_brings_back_what_was_not_forgotten() {
    let clock = clock();
    let store = in_memory(&clock);
    let lab = Lab::counting(layer(store.clone()));
    lab.post("k", "a").await;
    clock.advance(HOUR * 2);
    is_known(&lab).await;
    let longer = lab.behind(layer(store.clone()).retention(HOUR * 3), testkit::lab::effect);
    assert_eq!(longer.post("k", "a").await.text(), "effect 1");
    let operations = layer(store).operations();
    let old = Filter::all().in_state(StateKind::Completed).older_than(HOUR);
    let forgotten = operations.by("retention").forget_answers(&old, None, 9).await.unwrap();
    assert_eq!((forgotten.forgotten, forgotten.left.len()), (1, 0));
    is_known(&longer).await;
    assert_eq!(lab.effects(), 1);
}

// A seeded fault: an operator's answer is kept for `retention` alone.
#[tokio::test]
async fn what_was_settled_is_kept_for_the_longer_time_too() {
    let clock = clock();
    let store = in_memory(&clock);
    let held = hold(&store, "k").await;
    assert_eq!(store.interrupt(held.id, held.fence).await.unwrap(), Reply::Taken);
    let settled = layer(store.clone()).resolve(held.id, held.fence, answer("settled")).await.unwrap();
    assert_eq!(settled, Applied::Done);
    let record = store.load(held.id).await.unwrap().expect("it is kept");
    assert_eq!(record.expires, Some(record.since.plus(DAY)));
}

/// The run takes half an hour.
async fn an_answer_is_as_old_as_its_end<St: Store>(store: St, clock: &ManualClock) {
    let (lab, gate) = Lab::gated(layer(store));
    let run = lab.spawn(post("k", "a"));
    gate.arrival().await;
    clock.advance(HOUR / 2);
    gate.open();
    assert_eq!(run.await.unwrap().text(), "effect 1");
    for passes in [HOUR / 2, HOUR / 2 - MOMENT] {
        clock.advance(passes);
        assert!(lab.post("k", "a").await.is_replay());
    }
    for passes in [MOMENT, DAY - HOUR - MOMENT] {
        clock.advance(passes);
        is_known(&lab).await;
    }
    clock.advance(MOMENT);
    assert_eq!((lab.post("k", "a").await.text(), lab.effects()), ("effect 2", 2));
}

// Seeded faults: an answer is as old as its run's beginning; its record is.
#[tokio::test]
async fn an_answer_is_replayed_for_as_long_after_its_run_however_long_that_took() {
    let clock = clock();
    an_answer_is_as_old_as_its_end(in_memory(&clock), &clock).await;
    let (_directory, store) = on_disk(SledStore::builder().clock(clock.clone()));
    an_answer_is_as_old_as_its_end(store, &clock).await;
    #[cfg(feature = "fjall")]
    {
        let (_directory, store) = on_disk(tower_idempotency::FjallStore::builder().clock(clock.clone()));
        an_answer_is_as_old_as_its_end(store, &clock).await;
    }
}

// A seeded fault: an operator's answer is as old as the run that was interrupted.
#[tokio::test]
async fn what_was_settled_is_replayed_for_as_long_after_it_was_settled_however_late_that_was() {
    let clock = clock();
    let store = in_memory(&clock);
    let held = leave_interrupted(&store, "k").await;
    clock.advance(HOUR * 2);
    let layer = layer(store);
    assert_eq!(layer.resolve(held.id, held.fence, answer("settled")).await.unwrap(), Applied::Done);
    let lab = Lab::counting(layer);
    clock.advance(HOUR - MOMENT);
    let replay = lab.post("k", "a").await;
    assert_eq!((replay.text(), replay.is_replay()), ("settled", true));
    clock.advance(MOMENT);
    is_known(&lab).await;
    assert_eq!(lab.effects(), 0);
}
