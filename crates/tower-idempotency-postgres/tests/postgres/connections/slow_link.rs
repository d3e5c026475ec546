//! A link to the server that carries few bytes a second, and outcomes that are large for it.
//!
//! The short form is one link and a few outcomes. `SLOW_LINK=all` tries 4, 12 and 32 Mbit/s with outcomes of 64 KiB to
//! almost 16 MiB, and takes some ten minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use testkit::proxy::{End, Fate, Pass, Proxy, Way};
use tokio::sync::Mutex;
use tokio::time::sleep_until;
use tower_idempotency::engine::{EffectError, OnceError, Outcome};
use tower_idempotency::{Fingerprint, OnInFlight, Once};
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};
use tower_idempotency_shared::SharedStoreBuilder;

use crate::lab::{Lab, address, id, lab};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A proxy between a backend and the server that carries a given number of bytes a second each way.
struct Throttle {
    way: Proxy,
    sent: Arc<AtomicU64>,
}

/// One direction, which all connections share.
struct Lane {
    bytes_per_second: u64,
    free: Mutex<tokio::time::Instant>,
    carried: Arc<AtomicU64>,
}

impl Lane {
    fn new(bytes_per_second: u64) -> Arc<Self> {
        Arc::new(Self { bytes_per_second, free: Mutex::new(tokio::time::Instant::now()), carried: Arc::default() })
    }
}

/// A connection. Connections with bytes to send take turns.
struct Slow {
    there: Arc<Lane>,
    back: Arc<Lane>,
}

impl Fate for Slow {
    async fn before(&self, _: Way) -> Result<usize, End> {
        Ok(8 * KIB)
    }

    async fn read(&self, way: Way, bytes: &[u8]) -> Pass {
        let lane = if way == Way::Request { &self.there } else { &self.back };
        let count = bytes.len() as u64;
        let takes = Duration::from_nanos(count * 1_000_000_000 / lane.bytes_per_second);
        let mut free = lane.free.lock().await;
        *free = (*free).max(tokio::time::Instant::now()) + takes;
        sleep_until(*free).await;
        drop(free);
        lane.carried.fetch_add(count, Ordering::Relaxed);
        Pass::On
    }
}

impl Throttle {
    async fn to(url: &str, megabits: u64) -> Self {
        let [there, back] = [(); 2].map(|()| Lane::new(megabits * 1_000_000 / 8));
        let sent = Arc::clone(&there.carried);
        let fate = move |_| Some(Slow { there: Arc::clone(&there), back: Arc::clone(&back) });
        Self { way: Proxy::to(address(url), fate).await, sent }
    }

    /// A process that reaches the rows of `lab` over it, with the settings that a user has by default.
    async fn process(&self, lab: &Lab) -> PostgresStore {
        let backend = PostgresBackend::from_url(&self.way.url()).unwrap().namespace(&lab.namespace).unwrap();
        SharedStoreBuilder::default().open(backend.open().await.unwrap()).await.unwrap()
    }
}

/// Runs operation `number`, whose outcome has `size` bytes.
async fn run(store: &PostgresStore, number: u64, size: usize) -> Result<Outcome<String>, OnceError<std::io::Error>> {
    let effect = move |_| async move { Ok::<_, EffectError<std::io::Error>>("x".repeat(size - 2)) };
    let once = Once::new(store.clone()).on_in_flight(OnInFlight::Wait(Duration::from_secs(5)));
    once.run(id(number), Fingerprint::of(b"message"), effect).await
}

async fn count(lab: &Lab, what: &str) -> usize {
    let sql = format!("SELECT count(*) FROM idempotency.record WHERE namespace = $1 AND {what}");
    let count: i64 = lab.client.query_one(&sql, &[&lab.namespace]).await.unwrap().get(0);
    usize::try_from(count).unwrap()
}

/// Records `count` outcomes at once, and then replays one of them in another process.
async fn try_it(lab: &Lab, megabits: u64, size: usize, outcomes: usize) {
    let what = format!("{outcomes} outcomes of {size} bytes at {megabits} Mbit/s");
    let link = Throttle::to(&lab.url, megabits).await;
    let store = link.process(lab).await;
    let sent = link.sent.load(Ordering::Relaxed);
    let first = 1_000_000 * (1 + count(lab, "true").await as u64);
    let large: Vec<_> = (0..outcomes as u64)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { run(&store, first + number, size).await })
        })
        .collect();
    let (begin, mut taken, mut refused) = (Instant::now(), 0, 0);
    let is_recorded = async || count(lab, "kind = 3 AND octet_length(state) > 60000").await >= outcomes;
    while !is_recorded().await {
        assert!(begin.elapsed() < Duration::from_secs(600), "{what}: they are not recorded");
        assert_eq!(count(lab, "kind = 6 AND until < clock_timestamp()").await, 0, "{what}: the session has lapsed");
        match run(&store, first + 100_000 + taken + refused, 10).await {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for outcome in join_all(large).await {
        assert!(outcome.unwrap().is_ok(), "{what}");
    }
    let sent = usize::try_from(link.sent.load(Ordering::Relaxed) - sent).unwrap();
    println!("{what}: {:?}, {sent} bytes sent, {taken} new keys taken, {refused} refused", begin.elapsed());
    assert!(run(&store, first + 999_999, 10).await.is_ok(), "{what}: a new key, once they are recorded");
    assert!(taken > refused, "{what}: {taken} new keys were taken, {refused} refused");
    assert!(sent < size * outcomes * 5 / 4 + MIB, "{what}: {sent} bytes were sent");
    // Another process has to fetch it.
    let other = link.process(lab).await;
    let begin = Instant::now();
    loop {
        match run(&other, first, size).await {
            Ok(outcome) => {
                assert!(outcome.replayed, "{what}");
                assert_eq!(outcome.value.len() + 2, size, "{what}");
                break;
            }
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(300), "{what}: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{what}: replayed elsewhere after {:?}", begin.elapsed());
}

// Seen with the store as it was: 285 MB were sent for 20 outcomes of 1 MB at 12 Mbit/s, no new key was taken, and the
// session lapsed. Seeded faults: a large row is read under the time limit of a statement, or sent back when it is
// written.
#[tokio::test]
async fn a_slow_link_stops_no_server() {
    let promise = "a slow link stops no server";
    let (mut links, mut sizes) = (vec![32], vec![(MIB, 6), (12 * MIB, 1)]);
    if std::env::var("SLOW_LINK").is_ok_and(|form| form == "all") {
        links = vec![4, 12, 32];
        sizes = vec![(64 * KIB, 320), (256 * KIB, 60), (MIB, 20), (16 * MIB - KIB, 2)];
    }
    for megabits in links {
        for &(size, outcomes) in &sizes {
            let Some(lab) = lab(promise).await else { return };
            try_it(&lab, megabits, size, outcomes).await;
        }
    }
}
