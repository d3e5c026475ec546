//! A database whose calls go wrong in ways that the one in memory has not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::store::shared::memory_backend::MemoryBackend;
use tower_idempotency::store::shared::{
    Answer, Backend, BackendError, BoxStream, Guarantee, Row, Shared, SharedBuilder, Write,
};
use tower_idempotency::store::{Health, Store as _};
use tower_idempotency::{IdempotencyLayer, RecordId};

use crate::common::lab::Lab;
use crate::world::{LEASE, database};

/// What happens to every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tamper {
    Nothing,
    /// The process has too many calls under way.
    Crowds,
}

#[derive(Debug, Clone)]
struct Tampered {
    database: MemoryBackend,
    tamper: Arc<Mutex<Tamper>>,
}

impl Tampered {
    /// A process over such a database, once it trusts the leases of others.
    async fn process() -> (Self, Shared<Self>) {
        let backend = Self { database: database(), tamper: Arc::new(Mutex::new(Tamper::Nothing)) };
        let store = SharedBuilder::default().open(backend.clone()).await.unwrap();
        tokio::time::sleep(LEASE / 3 + Duration::from_secs(1)).await;
        (backend, store)
    }

    fn set(&self, tamper: Tamper) {
        *self.tamper.lock().unwrap() = tamper;
    }

    fn tamper(&self) -> Result<(), BackendError> {
        let tamper = *self.tamper.lock().unwrap();
        match tamper {
            Tamper::Nothing => Ok(()),
            Tamper::Crowds => Err(BackendError::Crowded("the test said so".into())),
        }
    }
}

impl Backend for Tampered {
    async fn get(&self, ids: &[RecordId]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        self.tamper()?;
        self.database.get(ids).await
    }

    async fn put(&self, writes: &[Write]) -> Result<Answer<Vec<Option<Row>>>, BackendError> {
        self.tamper()?;
        self.database.put(writes).await
    }

    async fn list(&self, after: Option<(Timestamp, RecordId)>, limit: usize) -> Result<Answer<Vec<Row>>, BackendError> {
        self.tamper()?;
        self.database.list(after, limit).await
    }

    async fn delete_expired(&self, limit: usize) -> Result<usize, BackendError> {
        self.tamper()?;
        self.database.delete_expired(limit).await
    }

    fn changes(&self) -> BoxStream<'static, RecordId> {
        self.database.changes()
    }

    async fn guarantee(&self) -> Result<Guarantee, BackendError> {
        self.tamper()?;
        self.database.guarantee().await
    }
}

// Seeded faults: such a call counts as a failure of the database; its write is given up.
#[tokio::test(start_paused = true)]
async fn a_call_that_finds_no_connection_free_is_no_failure_of_the_database() {
    let (backend, store) = Tampered::process().await;
    let lab = Lab::counting(IdempotencyLayer::new(store.clone()));
    backend.set(Tamper::Crowds);
    let first = join_all((0..9).map(|number| {
        let lab = lab.clone();
        async move { lab.post(&format!("k{number}"), "a").await }
    }));
    let (answers, ()) = tokio::join!(first, async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(store.health(), Health::Good);
        backend.set(Tamper::Nothing);
    });
    assert!(answers.iter().all(|answer| answer.text().starts_with("effect")), "{answers:?}");
    assert_eq!(store.health(), Health::Good);
}
