//! A link to the server that carries few bytes a second, and outcomes that are large for it.
//!
//! The short form is one link and a few outcomes. `SLOW_LINK=all` tries 4, 12 and 32 Mbit/s with outcomes of 64 KiB to
//! almost 16 MiB, and takes some ten minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep_until;
use tower_idempotency::engine::{EffectError, OnceError, Outcome};
use tower_idempotency::store::shared::SharedBuilder;
use tower_idempotency::{Fingerprint, OnInFlight, Once};
use tower_idempotency_postgres::{PostgresBackend, PostgresStore};

use super::lab::{Lab, id, lab};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Stands between a backend and the server, and carries so many bytes a second each way.
struct Throttle {
    url: String,
    sent: Arc<AtomicU64>,
    task: AbortHandle,
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

    /// Passes on what one side says. Connections that have something to say take turns.
    async fn pass_on(self: Arc<Self>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> std::io::Result<()> {
        let mut bytes = vec![0; 8 * KIB];
        loop {
            let count = from.read(&mut bytes).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            let takes = Duration::from_nanos(count as u64 * 1_000_000_000 / self.bytes_per_second);
            let mut free = self.free.lock().await;
            *free = (*free).max(tokio::time::Instant::now()) + takes;
            sleep_until(*free).await;
            drop(free);
            self.carried.fetch_add(count as u64, Ordering::Relaxed);
            to.write_all(&bytes[..count]).await?;
        }
    }
}

impl Throttle {
    async fn to(url: &str, megabits: u64) -> Self {
        let (before, rest) = url.split_once('@').unwrap();
        let (server, after) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{before}@{}/{after}", listener.local_addr().unwrap());
        let [there, back] = [(); 2].map(|()| Lane::new(megabits * 1_000_000 / 8));
        let (server, sent) = (server.to_owned(), Arc::clone(&there.carried));
        let task = tokio::spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (server, there, back) = (server.clone(), Arc::clone(&there), Arc::clone(&back));
                ways.spawn(async move {
                    let server = TcpStream::connect(server).await?;
                    server.set_nodelay(true)?;
                    client.set_nodelay(true)?;
                    let ((asks, answered), (answers, asked)) = (client.into_split(), server.into_split());
                    // One that has gone takes the other with it, as a reset does.
                    tokio::try_join!(there.pass_on(asks, asked), back.pass_on(answers, answered)).map(drop)
                });
            }
        });
        Self { url, sent, task: task.abort_handle() }
    }

    /// A process that reaches the rows of `lab` over it, with the settings that a user has by default.
    async fn process(&self, lab: &Lab) -> PostgresStore {
        let backend = PostgresBackend::from_url(&self.url).unwrap().namespace(&lab.namespace).unwrap();
        SharedBuilder::default().open(backend.open().await.unwrap()).await.unwrap()
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs operation `number`, whose outcome has so many bytes.
async fn run(store: &PostgresStore, number: u64, size: usize) -> Result<Outcome, OnceError<std::io::Error>> {
    let effect = move |_| async move { Ok::<_, EffectError<std::io::Error>>(Bytes::from(vec![b'x'; size])) };
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
                assert_eq!(outcome.bytes.len(), size, "{what}");
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
