//! The watching of a session's row, which shows whether another process is alive.

use std::time::Duration;

use testkit::lab::operator::Operated as _;
use testkit::lab::steps::{Hold, Steps as _};
use testkit::lab::{Lab, hold, post};
use testkit::log::Log;
use testkit::{Answer, Gate};
use tokio::time::sleep;
use tower_idempotency::engine::{Reconciled, Reconciler};
use tower_idempotency::internals::{Reply, Resolution::Release};
use tower_idempotency::operations::{Action, Applied};
use tower_idempotency::{IdempotencyLayer, OnInFlight, OnInterrupted};
use tower_idempotency_conformance::memory_backend::{Call, MemoryBackend};
use tower_idempotency_shared::{Kind, Row, SharedStore};
use tracing::Level;

use crate::world::{DEATH, Effects, LEASE, Store, builder, database, process, until_over};

const SECOND: Duration = Duration::from_secs(1);

/// A process with this lease, whose run waits at a gate; another process with the usual one.
struct Two {
    here: MemoryBackend,
    there: MemoryBackend,
    gate: Gate,
    effects: Effects,
    other: SharedStore<MemoryBackend>,
    run: tokio::task::JoinHandle<Answer>,
}

impl Two {
    async fn with_a_lease_of(lease: Duration) -> Self {
        let here = database();
        let there = here.another_process();
        let one = builder(&here).lease(lease).open(here.clone()).await.unwrap();
        let other = process(&there).await;
        let (effects, gate) = (Effects::default(), Gate::default());
        let run = effects.behind(IdempotencyLayer::new(one), &gate).spawn(post("k", "a"));
        gate.arrival().await;
        Self { here, there, gate, effects, other, run }
    }

    /// A server of the other process, which runs interrupted operations again.
    fn elsewhere(&self) -> Lab {
        let says = |_| async { Reconciled::<http::Response<String>>::RunAgain };
        let layer = IdempotencyLayer::new(self.other.clone()).on_in_flight(OnInFlight::Reject);
        let open = Gate::default();
        open.open();
        self.effects.behind(layer.reconcile_with(Reconciler::new(says)), &open)
    }
}

// Seeded fault: the wait is that of the process that watches.
#[tokio::test(start_paused = true)]
async fn a_process_is_judged_by_its_own_lease_and_not_by_that_of_who_watches() {
    for lease in [LEASE / 2, LEASE * 4] {
        let two = Two::with_a_lease_of(lease).await;
        let elsewhere = two.elsewhere();
        two.here.cut();
        let least = lease * 5 / 4 - lease / 3;
        for _ in 1..least.as_secs() {
            sleep(SECOND).await;
            assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight", "{lease:?}");
        }
        // Its last renewal, the wait, and the time between two reads.
        sleep(lease / 3 + LEASE / 6 + SECOND * 2).await;
        assert_eq!(elsewhere.post("k", "a").await.text(), "effect 2", "{lease:?}");
        two.run.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_learns_once_from_the_log_that_another_process_has_died() {
    let two = Two::with_a_lease_of(LEASE).await;
    two.here.cut();
    let log = Log::begin(Level::WARN);
    let has_died = || log.lines().iter().filter(|line| line.contains("another process has died")).count();
    sleep(LEASE / 2).await;
    assert_eq!(has_died(), 0);
    sleep(DEATH).await;
    assert_eq!(two.elsewhere().post("k", "a").await.text(), "effect 2");
    sleep(DEATH * 20).await;
    assert_eq!(has_died(), 1, "{:?}", log.lines());
    two.run.abort();
}

// Seeded fault: the run of a session that is over is taken without a write that expects the token that was watched.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_renewed_before_it_is_declared_dead_keeps_its_run() {
    let two = Two::with_a_lease_of(LEASE).await;
    let elsewhere = two.elsewhere();
    two.here.cut();
    sleep(DEATH - SECOND).await;
    // The other process sees no renewal from here on.
    let held = two.there.hold(Call::Sessions);
    assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight", "not yet");
    held.release();
    sleep(SECOND * 2).await;
    let held = two.there.hold(Call::Sessions);
    two.here.mend();
    sleep(SECOND * 3).await;
    assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight");
    held.release();
    two.gate.open();
    assert_eq!((two.run.await.unwrap().text(), two.effects.count()), ("effect 1", 1));
}

// Seeded fault: an operator settles a run without a write that expects the token that was watched.
#[tokio::test(start_paused = true)]
async fn no_operator_settles_the_run_of_a_session_that_is_renewed_before_it_is_declared_dead() {
    let two = Two::with_a_lease_of(LEASE).await;
    let operator = IdempotencyLayer::new(two.other.clone());
    two.here.cut();
    sleep(DEATH).await;
    let listed = operator.interrupted(9).await.unwrap().remove(0);
    // The other process sees no renewal from here on.
    let held = two.there.hold(Call::Sessions);
    two.here.mend();
    sleep(SECOND * 3).await;
    let settled = operator.resolve(listed.id, listed.fence, Action::Release).await.unwrap();
    assert_eq!(settled, Applied::Stale);
    held.release();
    two.gate.open();
    assert_eq!((two.run.await.unwrap().text(), two.effects.count()), ("effect 1", 1));
}

// Seeded fault: a session that is absent is a dead one.
#[tokio::test(start_paused = true)]
async fn the_run_of_a_session_that_is_absent_is_in_flight_for_a_wait() {
    let two = Two::with_a_lease_of(LEASE).await;
    let elsewhere = two.elsewhere();
    two.here.cut();
    let named = two.here.database().rows("").iter().find_map(|row| row.session).expect("the run names its session");
    two.here.database().delete("", named);
    let wait = LEASE * 5 / 4;
    for _ in 1..wait.as_secs() {
        assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight");
        sleep(SECOND).await;
    }
    sleep(LEASE / 6 + SECOND * 2).await;
    assert_eq!(elsewhere.post("k", "a").await.text(), "effect 2");
    two.run.abort();
}

// Seeded faults: it renews every third of its lease, however long that is; a run does not see that its session was
// replaced.
#[tokio::test(start_paused = true)]
async fn a_run_whose_session_was_deleted_is_dropped_before_others_that_do_not_know_its_lease_run_it_again() {
    let here = database();
    let one = builder(&here).lease(LEASE * 6).open(here.clone()).await.unwrap();
    let (effects, gate) = (Effects::default(), Gate::default());
    let layer = IdempotencyLayer::new(one).on_interrupted(OnInterrupted::Rerun);
    let run = effects.behind(layer, &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let named = here.database().rows("").iter().find_map(|row| row.session).expect("the run names its session");
    here.database().delete("", named);
    let dropped = tokio::time::timeout(LEASE, run).await.expect("others wait for longer than that");
    assert_eq!((dropped.unwrap().problem(), effects.count()), ("outcome-unknown".to_owned(), 1));
}

/// A process that died with runs of these keys, and two that know it.
async fn dead_with_runs<const N: usize>(keys: [&str; N]) -> ([Hold; N], [(MemoryBackend, Store); 2]) {
    let here = database();
    let one = process(&here).await;
    let mut holds = Vec::new();
    let mut others = Vec::new();
    for way in [here.another_process(), here.another_process()] {
        let store = process(&way).await;
        others.push((way, store));
    }
    for key in keys {
        holds.push(hold(&one, key).await);
    }
    here.cut();
    until_over().await;
    (holds.try_into().unwrap(), others.try_into().unwrap())
}

/// Settles an operation. Returns how many gets and puts it takes.
async fn settled((way, store): &(MemoryBackend, Store), hold: Hold) -> (u64, u64) {
    let before = way.counts();
    assert_eq!(store.settle(hold.id, hold.fence, Release).await.unwrap(), Reply::Taken);
    (way.counts().gets - before.gets, way.counts().puts - before.puts)
}

// Seeded faults: a session that was declared dead is declared dead anew for each of its runs; the row is read once more
// where another process has declared the session dead.
#[tokio::test(start_paused = true)]
async fn a_process_declares_a_session_dead_once_however_many_runs_it_has_left() {
    let (holds, others) = dead_with_runs(["a", "b", "c", "d"]).await;
    for (holds, other) in holds.chunks(2).zip(&others) {
        assert_eq!(settled(other, holds[0]).await, (1, 2));
        assert_eq!(settled(other, holds[1]).await, (1, 1));
    }
}

// Seeded fault: the store waits for the row of the session again and again.
#[tokio::test(start_paused = true)]
async fn a_takeover_is_refused_for_the_lock_that_something_else_has_on_the_row_of_the_session() {
    let ([hold], [(way, store), _]) = dead_with_runs(["k"]).await;
    let named = way.database().rows("").iter().find_map(|row| row.session).expect("the run names its session");
    let locked = way.database().lock("", named);
    let refused = store.settle(hold.id, hold.fence, Release).await;
    assert!(matches!(&refused, Err(error) if error.to_string().contains("locked")), "{refused:?}");
    locked.release();
    assert_eq!(store.settle(hold.id, hold.fence, Release).await.unwrap(), Reply::Taken);
}

// Seeded fault: such a session is never declared dead.
#[tokio::test(start_paused = true)]
async fn a_process_that_died_without_a_run_leaves_no_session_behind() {
    let here = database();
    let there = here.another_process();
    let (one, _other) = (process(&here).await, process(&there).await);
    drop(one);
    let count = |kind| here.database().rows("").iter().filter(|row| row.kind == kind).count();
    assert_eq!((count(Kind::Session), count(Kind::Released)), (2, 0));
    sleep(LEASE * 5 / 4 * 10 + LEASE).await;
    assert_eq!((count(Kind::Session), count(Kind::Released)), (1, 1));
}

// Seeded fault: a session that has ended is watched like one that is absent.
#[tokio::test(start_paused = true)]
async fn what_a_process_leaves_that_has_ended_is_free_for_others_within_a_sixth_of_the_lease() {
    let here = database();
    let there = here.another_process();
    let (one, other) = (process(&here).await, process(&there).await);
    let (effects, gate, open) = (Effects::default(), Gate::default(), Gate::default());
    open.open();
    let layer = |store: SharedStore<MemoryBackend>| IdempotencyLayer::new(store).on_interrupted(OnInterrupted::Rerun);
    // A claim without a run: the process ends its session without giving it back.
    let run = effects.behind(layer(one.clone()), &gate).spawn(post("k", "a"));
    gate.arrival().await;
    let named = here.database().rows("").iter().find_map(|row| row.session).expect("the run names its session");
    let session = here.database().rows("").into_iter().find(|row| row.id == named).unwrap();
    here.cut();
    here.database().insert_raw("", Row { kind: Kind::Released, ..session });
    sleep(LEASE / 6 + SECOND).await;
    let elsewhere = effects.behind(layer(other).on_in_flight(OnInFlight::Reject), &open);
    assert_eq!(elsewhere.post("k", "a").await.text(), "effect 2");
    run.abort();
}

// Seeded fault: watching goes on after a renewal that came late.
#[tokio::test(start_paused = true)]
async fn a_database_that_takes_no_writes_for_a_while_makes_no_living_process_look_dead() {
    let two = Two::with_a_lease_of(LEASE).await;
    let elsewhere = two.elsewhere();
    let rows = two.here.database().rows("");
    let named = rows.iter().find_map(|row| row.session).expect("the run names its session");
    let lock = |is_of_the_run: bool| {
        let sessions = rows.iter().filter(|row| row.kind == Kind::Session && (row.id == named) == is_of_the_run);
        sessions.map(|row| two.here.database().lock("", row.id)).collect::<Vec<_>>()
    };
    let (owner, watcher) = (lock(true), lock(false));
    // Both read all the time.
    sleep(DEATH + LEASE).await;
    assert_eq!(elsewhere.post("k", "a").await.problem(), "store-unavailable", "it does not hold its session");
    // The one that watches renews its session first.
    drop(watcher);
    sleep(SECOND * 3).await;
    assert_eq!(elsewhere.post("k", "a").await.problem(), "in-flight");
    drop(owner);
    sleep(SECOND * 3).await;
    two.gate.open();
    assert_eq!((two.run.await.unwrap().text(), two.effects.count()), ("effect 1", 1));
}
