//! Several processes over one PostgreSQL: effects that take place once, whatever happens to the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use testkit::Gate;
use tower_idempotency::engine::{EffectError, OnceError, Outcome};
use tower_idempotency::{Fingerprint, OnInFlight, Once};
use tower_idempotency_postgres::PostgresBackend;
use tower_idempotency_shared::{SharedStore, SharedStoreBuilder};

use crate::lab::{Lab, builder, id, lab, own_server};

type Consumer = Once<SharedStore<PostgresBackend>, String>;

/// Counts effects, each of which waits at a gate before it takes place.
#[derive(Clone, Default)]
struct Work {
    effects: Arc<AtomicUsize>,
    gate: Gate,
}

impl Work {
    fn opened() -> Self {
        let work = Self::default();
        work.gate.open();
        work
    }

    async fn run(&self, consumer: &Consumer, number: u64) -> Result<Outcome<String>, OnceError<std::io::Error>> {
        let Self { effects, gate } = self.clone();
        let effect = move |_| async move {
            gate.pass().await;
            let number = effects.fetch_add(1, Ordering::SeqCst) + 1;
            Ok::<_, EffectError<std::io::Error>>(format!("effect {number}"))
        };
        consumer.run(id(number), Fingerprint::of(b"message"), effect).await
    }

    fn count(&self) -> usize {
        self.effects.load(Ordering::SeqCst)
    }
}

/// A process over the rows of `lab`.
async fn process(lab: &Lab) -> Consumer {
    let backend = builder(&lab.url, &lab.namespace).open().await.unwrap();
    // Machines under test are slow.
    let builder = SharedStoreBuilder::default().call_timeout(Duration::from_secs(5));
    Once::new(builder.open(backend).await.unwrap()).on_in_flight(OnInFlight::Wait(Duration::from_secs(60)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_has_done_the_others_replay() {
    let Some(lab) = lab("effects over several processes").await else { return };
    let (processes, work) = (join_all([process(&lab), process(&lab), process(&lab)]).await, Work::opened());
    let all = (0..600).map(|number| {
        let (consumer, work) = (processes[number % 3].clone(), work.clone());
        async move { (number / 6, work.run(&consumer, (number / 6) as u64).await.unwrap().value) }
    });
    let mut told: Vec<Option<String>> = vec![None; 100];
    for (key, text) in join_all(all).await {
        let first = told[key].get_or_insert_with(|| text.clone());
        assert_eq!(*first, text, "{key}");
    }
    assert_eq!(work.count(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_elsewhere_waits_for_the_run_and_is_given_its_outcome() {
    let Some(lab) = lab("a duplicate of a run elsewhere").await else { return };
    let ([one, other], work) = ([process(&lab).await, process(&lab).await], Work::default());
    let run = tokio::spawn({
        let work = work.clone();
        async move { work.run(&one, 1).await }
    });
    work.gate.arrival().await;
    let duplicate = tokio::spawn({
        let work = work.clone();
        async move { work.run(&other, 1).await }
    });
    work.gate.open();
    assert!(!run.await.unwrap().unwrap().replayed);
    let replay = duplicate.await.unwrap().unwrap();
    assert_eq!((replay.value.as_str(), replay.replayed, work.count()), ("effect 1", true, 1));
}

// Killed at any moment: between a claim and its outcome, in the middle of either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_started_again_makes_no_second_effect() {
    let Some(mut server) = own_server("a server that is killed under load", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let (processes, work) = (join_all([process(&lab), process(&lab)]).await, Work::opened());
    let told = Arc::new(std::sync::Mutex::new(std::collections::HashMap::new()));
    let load: Vec<_> = (0..60_u64)
        .map(|key| {
            let (consumer, work, told) = (processes[key as usize % 2].clone(), work.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                for _ in 0..200 {
                    if let Ok(outcome) = work.run(&consumer, key).await {
                        let mut told = told.lock().unwrap();
                        let first = told.entry(key).or_insert_with(|| outcome.value.clone());
                        assert_eq!(*first, outcome.value, "{key}");
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        })
        .collect();
    for _ in 0..3 {
        // Under load, some writes are under way.
        let before = work.count();
        for _ in 0..1_000 {
            if work.count() > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.kill();
        server.start_again();
    }
    join_all(load).await.into_iter().for_each(Result::unwrap);
    assert!(work.count() <= 60, "{} effects of 60 keys", work.count());
    let other = process(&lab).await;
    let told = told.lock().unwrap().clone();
    for (key, text) in &told {
        assert_eq!(work.run(&other, *key).await.unwrap().value, *text, "{key}");
    }
    assert!(!told.is_empty());
}
