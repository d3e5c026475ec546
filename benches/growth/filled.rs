//! A store with a number of records, and requests to it.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use axum::Router;
use tempfile::TempDir;
use testkit::bench::exchange::{SMALL, protected, send};
use testkit::bench::load::key;
use testkit::lab::asked::leave_interrupted;
use testkit::lab::disk::{Disk, DiskBuilder as _, Table as _};
use tokio::task::JoinSet;
use tower_idempotency::OnInterrupted;

/// The numbers of requests at once while a store is filled and while it is measured.
pub(crate) const FILLERS: usize = 512;
const CLIENTS: usize = 64;
/// The number of new keys in a round: so few that a small store stays small.
const FIRSTS: usize = 320;
const REPLAYS: usize = 6_400;
/// The number of recent keys, all of them certainly in memory.
const RECENT: usize = 5_000;

/// The kind of key that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// New keys: claimed, run, recorded.
    First,
    /// Keys that were recorded a moment ago.
    Recent,
    /// Any keys.
    Old,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Recent => "replay of a recent key",
            Self::Old => "replay of any key",
        }
    }
}

pub(crate) struct Filled<D> {
    /// The number of records when the store was filled.
    pub(crate) records: usize,
    directory: TempDir,
    pub(crate) store: D,
    app: Router,
    recorded: u64,
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}

fn open<D: Disk>(directory: &Path) -> (D, Router) {
    let store = D::builder().max_records(u64::MAX).open(directory).unwrap();
    let app = protected(SMALL, store.clone(), OnInterrupted::Refuse);
    (store, app)
}

impl<D: Disk> Filled<D> {
    pub(crate) async fn new(records: usize) -> Self {
        let directory = directory();
        let (store, app) = open::<D>(directory.path());
        // Each record is written once, which is quicker.
        let fill = protected(SMALL, store.clone(), OnInterrupted::Rerun);
        send_all(&fill, FILLERS, (0..records as u64).collect()).await;
        Self { records, directory, store, app, recorded: records as u64 }
    }

    /// Leaves so many more operations interrupted.
    pub(crate) async fn interrupt(&self, count: usize) {
        let mut running = JoinSet::new();
        for client in 0..FILLERS {
            let store = self.store.clone();
            running.spawn(async move {
                for number in (client..count).step_by(FILLERS) {
                    leave_interrupted(&store, &format!("interrupted {number}")).await;
                }
            });
        }
        running.join_all().await;
    }

    /// Returns the µs of one exchange of this kind, while many are under way.
    pub(crate) async fn each(&mut self, kind: Kind) -> f64 {
        let recorded = self.recorded;
        let numbers: Vec<u64> = match kind {
            Kind::First => (recorded..recorded + FIRSTS as u64).collect(),
            Kind::Recent => (0..REPLAYS as u64).map(|number| recorded - 1 - number % RECENT as u64).collect(),
            Kind::Old => (0..REPLAYS).map(|_| random(recorded)).collect(),
        };
        if kind == Kind::First {
            self.recorded += FIRSTS as u64;
        }
        let count = numbers.len();
        let began = Instant::now();
        send_all(&self.app, CLIENTS, numbers).await;
        began.elapsed().as_secs_f64() * 1e6 / count as f64
    }

    /// Opens the store again, and returns the seconds that this takes.
    pub(crate) async fn reopen(&mut self) -> f64 {
        let Self { directory, store, app, .. } = self;
        *app = Router::new();
        store.close().await.unwrap();
        let began = Instant::now();
        (*store, *app) = open(directory.path());
        began.elapsed().as_secs_f64()
    }

    /// Closes the store, and returns the seconds that reading all its records takes, each with its checksum. Opening
    /// would have to do so if no lists and totals were kept. The engine is open before.
    pub(crate) async fn read_all(self) -> f64 {
        let Self { directory, store, app, .. } = self;
        drop(app);
        store.close().await.unwrap();
        let mut took = 0.0;
        D::past_the_store(directory.path(), |table| {
            let began = Instant::now();
            for (_, value) in table.scan("") {
                black_box(blake3::hash(&value));
            }
            took = began.elapsed().as_secs_f64();
        });
        took
    }
}

/// Sends charges with these keys, `clients` at once, about in this order.
pub(crate) async fn send_all(app: &Router, clients: usize, numbers: Vec<u64>) {
    let mut running = JoinSet::new();
    for client in 0..clients {
        let (app, share) = (app.clone(), numbers.iter().copied().skip(client).step_by(clients).collect::<Vec<_>>());
        running.spawn(async move {
            for number in share {
                send(&app, Some(&key(number))).await;
            }
        });
    }
    running.join_all().await;
}

pub(crate) fn random(bound: u64) -> u64 {
    testkit::dice::seed() % bound
}
