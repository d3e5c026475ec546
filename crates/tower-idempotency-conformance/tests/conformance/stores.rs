//! Each store keeps the contract of stores: in memory, in sled, in fjall, over a database that several processes share,
//! and behind `AnyStore`.

use std::time::Duration;

use tokio::time::Instant;
use tower_idempotency::AnyStore;
use tower_idempotency::MemoryStore;
use tower_idempotency::clock::{Clock, ManualClock, Timestamp};
use tower_idempotency::store::Store;
use tower_idempotency::test_util::TestStore;
use tower_idempotency_conformance::memory_backend::MemoryBackend;
use tower_idempotency_conformance::store::{StoreSubject, all};
use tower_idempotency_shared::SharedStore;

const LONGEST: usize = 16 << 20;
const MOST: usize = 2_000;

fn by_hand() -> ManualClock {
    ManualClock::new(Timestamp::from_millis(1_790_000_000_000))
}

fn with_clock<St: Store>(store: St, clock: ManualClock) -> StoreSubject<St> {
    StoreSubject::new(store).clock(move |by: Duration| clock.advance(by)).longest_outcome(LONGEST)
}

mod memory {
    use super::*;

    async fn subject() -> StoreSubject<MemoryStore> {
        let clock = by_hand();
        let store = MemoryStore::builder().clock(clock.clone()).max_records(MOST).build();
        with_clock(store, clock).most_records(MOST)
    }

    tower_idempotency_conformance::store_conformance!(subject);
}

/// The store of tests of handlers behaves as one on disk.
mod test_store {
    use super::*;

    async fn subject() -> StoreSubject<TestStore> {
        let clock = by_hand();
        let store = TestStore::with_clock(clock.clone());
        let disk = store.clone();
        with_clock(store, clock).reopened_by(move || std::future::ready(disk.reopen()))
    }

    tower_idempotency_conformance::store_conformance!(subject);
}

macro_rules! on_disk {
    ($module:ident, $store:ident) => {
        mod $module {
            use tower_idempotency::$store;

            use super::*;

            async fn subject() -> StoreSubject<$store> {
                let (clock, directory) = (by_hand(), tempfile::tempdir().unwrap());
                let (path, time) = (directory.path().to_owned(), clock.clone());
                let open = move || {
                    let builder =
                        $store::builder().clock(time.clone()).max_records(MOST as u64).outcome_cache_bytes(1 << 20);
                    builder.open(&path).unwrap()
                };
                let subject = with_clock(open(), clock).most_records(MOST);
                subject.reopened_by(move || std::future::ready(open())).kept(directory)
            }

            tower_idempotency_conformance::store_conformance!(subject);
        }
    };
}

on_disk!(sled, SledStore);
on_disk!(fjall, FjallStore);

/// Tokio's clock.
#[derive(Debug)]
pub(crate) struct TokioClock(Instant);

impl Default for TokioClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000).plus(self.0.elapsed())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A process over the database. With a short lease it soon trusts the leases of others.
pub(crate) async fn shared(backend: MemoryBackend) -> SharedStore<MemoryBackend> {
    SharedStore::<MemoryBackend>::builder()
        .clock(backend.database().clock())
        .lease(Duration::from_secs(12))
        .open(backend)
        .await
        .unwrap()
}

async fn two_processes(backend: MemoryBackend) -> StoreSubject<SharedStore<MemoryBackend>> {
    let (other, again) = (backend.another_process(), backend.clone());
    let subject =
        StoreSubject::new(shared(backend).await).another_process(shared(other).await).longest_outcome(LONGEST);
    subject.reopened_by(move || shared(again.another_process()))
}

mod shared_by_the_machine_s_clock {
    use super::*;

    async fn subject() -> StoreSubject<SharedStore<MemoryBackend>> {
        two_processes(MemoryBackend::new()).await
    }

    tower_idempotency_conformance::store_conformance!(subject);
}

/// Tokio's paused clock: time advances when all tasks are idle.
mod shared_by_a_paused_clock {
    use super::*;

    async fn subject() -> StoreSubject<SharedStore<MemoryBackend>> {
        two_processes(MemoryBackend::with_clock(TokioClock::default())).await
    }

    tower_idempotency_conformance::store_conformance!(
        #[tokio::test(start_paused = true)]
        subject
    );
}

mod any_store {
    use super::*;

    async fn subject() -> StoreSubject<AnyStore> {
        let backend = MemoryBackend::new();
        let (other, again) = (backend.another_process(), backend.clone());
        let subject =
            StoreSubject::new(AnyStore::new(shared(backend).await)).another_process(AnyStore::new(shared(other).await));
        subject.reopened_by(move || {
            let again = again.another_process();
            async { AnyStore::new(shared(again).await) }
        })
    }

    tower_idempotency_conformance::store_conformance!(subject);
}

/// An embedded store by its URL, with the settings that it has then.
mod any_store_on_disk {
    use super::*;

    async fn subject() -> StoreSubject<AnyStore> {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("fjall:{}", directory.path().join("s").display());
        let open = move || {
            let url = url.clone();
            async move { AnyStore::connect(&url).await.unwrap() }
        };
        StoreSubject::new(open().await).longest_outcome(LONGEST).reopened_by(open).kept(directory)
    }

    tower_idempotency_conformance::store_conformance!(subject);
}

/// A store alone, without any further part that the suite could use, is enough.
#[tokio::test(start_paused = true)]
async fn the_whole_suite_runs_in_one_call_on_a_store_alone() {
    all(async || StoreSubject::new(shared(MemoryBackend::with_clock(TokioClock::default())).await)).await;
}
