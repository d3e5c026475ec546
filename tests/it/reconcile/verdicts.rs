//! The promises of a reconciler: the application is asked about interrupted operations, and its answer takes effect.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, SET_COOKIE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use testkit::Answer;
use testkit::lab::asked::{Asked, asking, found, leave_interrupted, leave_interrupted_under};
use testkit::lab::disk::{Disk, DiskBuilder as _};
use testkit::lab::listed::interrupted;
use testkit::lab::operator::{Operated as _, outcome};
use testkit::lab::time::{DAY, HOUR, NOON};
use testkit::lab::{Lab, charge_print, id, on_disk, post};
use testkit::on_both;
use tower_idempotency::Meaning;
use tower_idempotency::engine::{EffectError, OnceContext, OnceError, Outcome, Reconciled, Reconciler, Rerun};
use tower_idempotency::internals::{ClaimPolicy, Fence};
use tower_idempotency::operations::Applied;
use tower_idempotency::server::KeptHeaders;
use tower_idempotency::store::InterruptedRun;
use tower_idempotency::store::Store;
use tower_idempotency::test_util::{ManualClock, TestStore};
use tower_idempotency::{Fingerprint, IdempotencyContext, IdempotencyLayer, MemoryStore, OnInterrupted, Once, Release};

// "Here is the outcome."

/// An answer with all the parts that a replay has to return, and a cookie that it must not return.
pub(super) fn receipt() -> Response<Bytes> {
    let body: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0] ^ 0xa5).collect();
    let receipt = Response::builder().status(201).header("x-part", "1").header("location", "/charges/17");
    let receipt = receipt.header("x-part", HeaderValue::from_bytes(b"caf\xe9").unwrap()).header(SET_COOKIE, "of=first");
    receipt.body(body.into()).unwrap()
}

/// Asserts that it is the receipt, as a retry gets it.
#[track_caller]
pub(super) fn assert_replay(answer: &Answer) {
    let (mut parts, body) = receipt().into_parts();
    parts.headers.remove(SET_COOKIE);
    parts.headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    parts.headers.insert(CONTENT_LENGTH, body.len().into());
    assert_eq!((answer.status, &answer.headers, &answer.trailers), (parts.status, &parts.headers, &None));
    assert!(answer.body == body, "{} bytes, or others", answer.body.len());
}

async fn found_is_replayed<St: Store + Clone>(store: St) {
    leave_interrupted(&store, "k").await;
    let asked = Asked::default();
    let layer = asking(store, asked.says([Reconciled::Outcome(receipt().map(Full::new)), found("another")]));
    let lab = Lab::counting(layer.clone());
    for _ in 0..3 {
        assert_replay(&lab.post("k", "a").await);
    }
    let counts = layer.stats();
    assert_eq!((counts.reconciled, counts.replays, counts.runs, counts.live), (1, 3, 0, 0));
    assert_eq!((asked.times(), lab.effects(), layer.interrupted(9).await.unwrap().len()), (1, 0, 0));
}

#[tokio::test]
async fn an_outcome_that_the_application_found_is_replayed_to_all_retries_and_nothing_runs() {
    found_is_replayed(MemoryStore::new()).await;
    let store = TestStore::new();
    found_is_replayed(store.clone()).await;
    let restarted = Lab::counting(IdempotencyLayer::new(store.reopen()));
    assert_replay(&restarted.post("k", "a").await);
}

on_both!(on_disk_an_outcome_that_the_application_found_is_replayed_after_a_restart_too);
async fn on_disk_an_outcome_that_the_application_found_is_replayed_after_a_restart_too<D: Disk>() {
    let (directory, store) = on_disk(D::builder());
    found_is_replayed(store.clone()).await;
    store.close().await.unwrap();
    let restarted = Lab::counting(IdempotencyLayer::new(D::open(directory.path()).unwrap()));
    assert_replay(&restarted.post("k", "a").await);
    assert_eq!(restarted.effects(), 0);
}

#[tokio::test]
async fn an_outcome_that_was_found_is_kept_as_the_layers_options_say_whatever_their_order() {
    let (clock, asked) = (ManualClock::new(NOON), Asked::default());
    let store = TestStore::with_clock(clock.clone());
    leave_interrupted(&store, "k").await;
    let kept = KeptHeaders::default().with([SET_COOKIE]);
    let layer =
        asking(store, asked.says([Reconciled::Outcome(receipt().map(Full::new))])).kept_headers(kept).retention(HOUR);
    let lab = Lab::counting(layer.replay_header_name("x-again".parse().unwrap()));
    let retry = lab.post("k", "a").await;
    assert_eq!((retry.header("set-cookie"), retry.header("x-again")), (Some("of=first"), Some("true")));
    clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(lab.post("k", "a").await, retry);
    clock.advance(Duration::from_secs(1));
    assert_eq!((lab.post("k", "a").await.text(), asked.times()), ("effect 1", 1), "kept from when it was found");
}

pub(super) type Log = Arc<Mutex<Vec<OnceContext<String>>>>;

/// Delivers a message under the id `k`: its effect is logged, and `end` decides how it ends.
pub(super) async fn deliver<St: Store>(
    once: &Once<St, String>,
    log: &Log,
    end: Result<&'static str, EffectError<&'static str>>,
) -> Result<Outcome<String>, OnceError<&'static str>> {
    let log = Arc::clone(log);
    let effect = move |context: OnceContext<String>| async move {
        log.lock().unwrap().push(context);
        end.map(str::to_owned)
    };
    once.run(id("k"), Fingerprint::of(b"m"), effect).await
}

/// Delivers it for the first time; its end is unknown.
pub(super) async fn deliver_first<St: Store>(store: St, log: &Log) {
    let cut = deliver(&Once::new(store), log, Err(EffectError::MaybeStarted("no answer"))).await;
    assert!(matches!(cut, Err(OnceError::Effect(EffectError::MaybeStarted("no answer")))), "{cut:?}");
}

pub(super) fn once<St: Store>(store: St, reconciler: Reconciler<String>) -> Once<St, String> {
    Once::new(store).reconcile_with(reconciler)
}

#[tokio::test]
async fn a_redelivered_message_gets_the_outcome_that_the_application_found() {
    let (store, log, asked) = (TestStore::new(), Log::default(), Asked::default());
    deliver_first(store.clone(), &log).await;
    let once = once(store, asked.says([Reconciled::Outcome("it was sent".into())]));
    for _ in 0..3 {
        let outcome = deliver(&once, &log, Ok("sent again")).await.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.replayed), ("it was sent", true));
    }
    assert_eq!((asked.times(), log.lock().unwrap().len(), once.stats().reconciled), (1, 1, 1));
}

// "Run it again."

#[tokio::test]
async fn what_may_run_again_runs_once_knows_that_it_does_and_its_outcome_is_recorded() {
    let (store, log, asked) = (TestStore::new(), Log::default(), Asked::default());
    deliver_first(store.clone(), &log).await;
    let once = once(store.reopen(), asked.says([Reconciled::RunAgain]));
    for replayed in [false, true, true] {
        let outcome = deliver(&once, &log, Ok("sent")).await.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.replayed), ("sent", replayed));
    }
    let runs = log.lock().unwrap().clone();
    let Ok([first, second]) = <[_; 2]>::try_from(runs) else { panic!("two runs") };
    assert_eq!((first.attempt(), first.rerun()), (1, Rerun::No));
    assert_eq!((second.attempt(), second.rerun()), (2, Rerun::Yes));
    assert!(second.fence() > asked.questions()[0].fence, "newer than what it was asked under");
    assert_eq!((asked.times(), once.stats().reconciled), (1, 0));
}

on_both!(what_may_run_again_runs_for_the_request_that_asked);
async fn what_may_run_again_runs_for_the_request_that_asked<D: Disk>() {
    let (directory, store) = on_disk(D::builder());
    leave_interrupted(&store, "k").await;
    store.close().await.unwrap();
    let (store, asked) = (D::open(directory.path()).unwrap(), Asked::default());
    let handler = |context: IdempotencyContext| async move { format!("{} {:?}", context.attempt(), context.rerun()) };
    let layer = asking(store, asked.says([Reconciled::RunAgain]));
    let lab = Lab::of(Router::new().fallback(any(handler)).layer(layer.clone()));
    for replayed in [false, true] {
        let answer = lab.post("k", "a").await;
        assert_eq!((answer.text(), answer.is_replay()), ("2 Yes", replayed));
    }
    assert_eq!((asked.times(), layer.stats().runs), (1, 1));
}

// "Still unknown."

#[tokio::test]
async fn what_is_still_unknown_is_refused_and_the_next_retry_asks_again() {
    let (store, asked) = (TestStore::new(), Asked::default());
    leave_interrupted(&store, "k").await;
    let layer = asking(store, asked.says([Reconciled::StillUnknown, Reconciled::StillUnknown, found("charged")]));
    let lab = Lab::counting(layer.clone());
    for times in 1..=2 {
        lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
        assert_eq!((asked.times(), layer.interrupted(9).await.unwrap().len()), (times, 1));
    }
    for _ in 0..2 {
        assert_eq!(lab.post("k", "a").await.text(), "charged");
    }
    assert_eq!((asked.times(), lab.effects(), layer.stats().reconciled), (3, 0, 1));
}

#[tokio::test]
async fn a_client_whose_own_run_is_interrupted_is_told_to_come_back_with_the_key() {
    let asked = Asked::default();
    let layer = asking(TestStore::new(), asked.says([found("charged")]));
    let lab = Lab::new(layer, |_| async { panic!("on purpose") as &str });
    lab.post("k", "a").await.assert_refusal(500, "outcome-unknown", true, None);
    assert_eq!((lab.post("k", "a").await.text(), asked.times(), lab.effects()), ("charged", 1, 1));
}

// What is asked.

/// The question after each of three redeliveries, an hour apart.
async fn asked_thrice<St: Store>(store: St, log: &Log, clock: &ManualClock) -> Vec<InterruptedRun> {
    let asked = Asked::default();
    let once = once(store, asked.says([Reconciled::StillUnknown]));
    for _ in 0..3 {
        clock.advance(HOUR);
        assert!(matches!(deliver(&once, log, Ok("sent")).await, Err(OnceError::OutcomeUnknown)));
    }
    asked.questions()
}

fn assert_asked(questions: &[InterruptedRun], log: &Log) {
    let runs = log.lock().unwrap().clone();
    let Ok([run]) = <[_; 1]>::try_from(runs) else { panic!("one run") };
    for question in questions {
        assert_eq!((question.id, question.attempt, question.began), (id("k"), 1, NOON.plus(HOUR)), "as it was begun");
        assert_eq!(question.derived_key("charge"), Some(run.derived_key("charge")));
        assert_ne!(question.derived_key("charge"), question.derived_key("mail"));
    }
    let fences: Vec<Fence> = questions.iter().map(|question| question.fence).collect();
    assert!(fences[0] > run.fence() && fences.is_sorted_by(|one, next| one < next), "{:?}, {fences:?}", run.fence());
}

#[tokio::test]
async fn a_question_names_the_run_as_it_was_begun_and_a_fence_newer_than_all_before() {
    let (clock, log) = (ManualClock::new(NOON), Log::default());
    let store = TestStore::with_clock(clock.clone());
    clock.advance(HOUR);
    deliver_first(store.clone(), &log).await;
    let mut questions = asked_thrice(store.reopen(), &log, &clock).await;
    questions.extend(asked_thrice(store.reopen(), &log, &clock).await);
    assert_asked(&questions, &log);
}

on_both!(a_question_names_the_run_as_it_was_begun_over_a_store_on_disk_and_its_restarts);
async fn a_question_names_the_run_as_it_was_begun_over_a_store_on_disk_and_its_restarts<D: Disk>() {
    let (clock, log) = (ManualClock::new(NOON), Log::default());
    let (directory, mut store) = on_disk(D::builder().clock(clock.clone()));
    clock.advance(HOUR);
    deliver_first(store.clone(), &log).await;
    let mut questions = Vec::new();
    for _ in 0..2 {
        store.close().await.unwrap();
        store = D::builder().clock(clock.clone()).open(directory.path()).unwrap();
        questions.extend(asked_thrice(store.clone(), &log, &clock).await);
    }
    assert_asked(&questions, &log);
}

#[tokio::test]
async fn a_question_about_a_run_that_ran_again_names_that_attempt() {
    let (clock, log, asked) = (ManualClock::new(NOON), Log::default(), Asked::default());
    let store = TestStore::with_clock(clock.clone());
    deliver_first(store.clone(), &log).await;
    clock.advance(HOUR);
    let once = once(store, asked.says([Reconciled::RunAgain, Reconciled::StillUnknown]));
    deliver(&once, &log, Err(EffectError::MaybeStarted("no answer"))).await.unwrap_err();
    deliver(&once, &log, Ok("sent")).await.unwrap_err();
    let Ok([first, second]) = <[_; 2]>::try_from(asked.questions()) else { panic!("two questions") };
    assert_eq!((first.attempt, first.began), (1, NOON));
    assert_eq!((second.attempt, second.began), (2, NOON), "nothing of it is older than its first attempt");
    assert!(second.fence > log.lock().unwrap()[1].fence());
}

#[tokio::test]
async fn questions_neither_prolong_the_time_an_operation_is_kept_nor_hide_when_it_was_interrupted() {
    let (clock, asked) = (ManualClock::new(NOON), Asked::default());
    let store = TestStore::with_clock(clock.clone());
    leave_interrupted(&store, "k").await;
    let layer = asking(store, asked.says([Reconciled::StillUnknown]));
    let lab = Lab::counting(layer.clone());
    let before = layer.interrupted(9).await.unwrap().remove(0);
    assert_eq!((before.since, before.expires), (NOON, Some(NOON.plus(DAY))));
    for hour in 1..24 {
        clock.advance(HOUR);
        lab.post("k", "a").await.assert_refusal(409, "outcome-unknown", true, None);
        let mut after = layer.interrupted(9).await.unwrap().remove(0);
        assert_eq!(after.fence, asked.questions()[hour - 1].fence, "what an operator settles it by");
        after.fence = before.fence;
        assert_eq!(after, before);
    }
    clock.advance(HOUR);
    assert_eq!(lab.post("k", "a").await.text(), "effect 1", "the key is free");
    assert_eq!(asked.times(), 23);
}

// The operations that the application is asked about.

// Runs under this policy: as under `Refuse`.

#[tokio::test]
async fn a_run_leaves_a_durable_claim_before_its_handler_starts() {
    let asks = |layer: IdempotencyLayer<_>| layer.reconcile_with(Asked::default().says([found("charged")]));
    let refuses = |layer: IdempotencyLayer<_>| layer;
    let reruns = |layer: IdempotencyLayer<_>| layer.on_interrupted(OnInterrupted::Rerun);
    let policies: [fn(IdempotencyLayer<TestStore>) -> IdempotencyLayer<TestStore>; 3] = [asks, refuses, reruns];
    for (policy, is_listed) in policies.into_iter().zip([1, 1, 0]) {
        let store = TestStore::new();
        let (lab, gate) = Lab::gated(policy(IdempotencyLayer::new(store.clone())));
        let request = lab.spawn(post("k", "a"));
        gate.arrival().await;
        assert_eq!(interrupted(&store.reopen(), 9).await.len(), is_listed);
        request.abort();
    }
}

#[tokio::test]
async fn only_what_says_that_nothing_happened_frees_the_key() {
    let asked = Asked::default();
    let teapots_are_free = |parts: &Parts, trailers: Option<&HeaderMap>| {
        if parts.status == 418 { Meaning::NotStarted } else { Meaning::of_answer(parts, trailers) }
    };
    let layer = || asking(TestStore::new(), asked.says([found("charged")])).classify(teapots_are_free);
    for (status, effects) in [(503, 1), (402, 1), (404, 1), (200, 1), (401, 2), (418, 2)] {
        let status = StatusCode::from_u16(status).unwrap();
        let lab = Lab::new(layer(), move |_| async move { status });
        for _ in 0..2 {
            assert_eq!(lab.post("k", "a").await.status, status);
        }
        assert_eq!(lab.effects(), effects, "{status}");
    }
    let lab = Lab::new(layer(), |number| async move { (StatusCode::CREATED, Release, format!("busy {number}")) });
    assert_eq!(lab.post("k", "a").await.text(), "busy 1");
    assert_eq!(lab.post("k", "a").await.text(), "busy 2");
    assert_eq!(asked.times(), 0);
}

#[tokio::test]
async fn the_layer_says_that_it_asks() {
    let layer = asking(MemoryStore::new(), Asked::default().says([found("charged")]));
    assert!(format!("{layer:?}").contains("reconcile: Some(set)"));
}

// A seeded fault: a layer that asks goes on asking, whatever is set after that.
#[tokio::test]
async fn of_what_a_retry_gets_after_an_interrupted_run_the_last_setting_counts() {
    type Layer = IdempotencyLayer<TestStore>;
    let asked = Asked::default();
    let asks = |layer: Layer| layer.reconcile_with(asked.says([found("charged")]));
    let runs_again = |layer: Layer| layer.on_interrupted(OnInterrupted::Rerun);
    let refuses = |layer: Layer| layer.on_interrupted(OnInterrupted::Refuse);
    let answer = async |set: &dyn Fn(Layer) -> Layer| {
        let store = TestStore::new();
        leave_interrupted_under(ClaimPolicy::Rerun, &store, "k").await;
        let times = asked.times();
        let answer = Lab::counting(set(IdempotencyLayer::new(store))).post("k", "a").await;
        (answer, asked.times() - times)
    };
    let (answered, times) = answer(&|layer| asks(runs_again(layer))).await;
    assert_eq!((answered.text(), times), ("charged", 1));
    let (answered, times) = answer(&|layer| runs_again(asks(layer))).await;
    assert_eq!((answered.text(), times), ("effect 1", 0));
    let (answered, times) = answer(&|layer| refuses(asks(layer))).await;
    assert_eq!((answered.refusal().1, times), ("outcome-unknown".into(), 0));
}

#[tokio::test]
async fn an_operator_may_settle_what_the_application_does_not_know() {
    let (store, asked) = (TestStore::new(), Asked::default());
    let stale = leave_interrupted(&store, "k").await;
    let once = once(store, asked.says([Reconciled::StillUnknown]));
    let effect = |_| async { Ok::<_, EffectError<&str>>(String::new()) };
    let print = charge_print(&id("k")).with_credentials().finish();
    assert!(matches!(once.run(id("k"), print, effect).await, Err(OnceError::OutcomeUnknown)));
    let listed = once.interrupted(9).await.unwrap().remove(0);
    // It was listed before the question, so it has to be listed again.
    assert_eq!(once.resolve(stale.id, stale.fence, outcome("stale")).await.unwrap(), Applied::Stale);
    assert_eq!(once.resolve(listed.id, listed.fence, outcome("it was sent")).await.unwrap(), Applied::Done);
    assert_eq!(once.run(id("k"), print, effect).await.unwrap().value, "it was sent");
    assert_eq!(asked.times(), 1);
}
