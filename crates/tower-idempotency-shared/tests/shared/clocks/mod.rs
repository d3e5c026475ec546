//! Wrong clocks: the database's, and those of the processes.

mod fences;
mod runs;

use std::time::Duration;

use testkit::lab::steps::{Claimed, Hold, Steps as _, Wish, wish};
use testkit::lab::{Lab, id};
use tokio::time::sleep;
use tower_idempotency::OnInterrupted;
use tower_idempotency::clock::Timestamp;
use tower_idempotency_conformance::memory_backend::MemoryBackend;
use tower_idempotency_shared::{SharedStore, SharedStoreBuilder};

use crate::world::{Effects, LEASE, SetClock};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: i64 = 3_600_000;

/// A database and two processes, each on a machine of its own.
pub(super) struct World {
    pub(super) database: SetClock,
    pub(super) here: MemoryBackend,
    pub(super) walls: [SetClock; 2],
    pub(super) stores: [SharedStore<MemoryBackend>; 2],
    pub(super) effects: Effects,
}

impl World {
    pub(super) async fn new() -> Self {
        let database = SetClock::default();
        let here = MemoryBackend::with_clock(database.clone());
        let walls = [database.another_process(), database.another_process()];
        let stores = [open(&here, &walls[0]).await, open(&here.another_process(), &walls[1]).await];
        sleep(LEASE * 5 / 4 + SECOND * 3).await;
        Self { database, here, walls, stores, effects: Effects::default() }
    }

    pub(super) fn server(&self, number: usize) -> Lab {
        self.effects.server(&self.stores[number], OnInterrupted::Refuse)
    }

    /// An operation that was interrupted, and is forgotten after this time.
    pub(super) async fn interrupted(&self, kept: Duration) -> Hold {
        let wish = Wish { interrupted_retention: kept, ..wish("k") };
        let Claimed::Fresh(run) = self.stores[0].claim(wish).await.unwrap() else { panic!("it is there") };
        self.stores[0].interrupt(run.id, run.fence).await.unwrap();
        run
    }

    /// The time until which the row of the operation is kept.
    pub(super) fn expires(&self) -> Timestamp {
        self.here.database().rows("").iter().find(|row| row.id == id("k")).expect("it has a row").expires
    }
}

pub(super) fn builder(wall: &SetClock) -> SharedStoreBuilder {
    SharedStoreBuilder::default().clock(wall.clone())
}

pub(super) async fn open(backend: &MemoryBackend, wall: &SetClock) -> SharedStore<MemoryBackend> {
    builder(wall).open(backend.clone()).await.unwrap()
}
