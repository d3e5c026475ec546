//! Writes that go together in one call.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use testkit::lab::steps::Wish;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Records as _, Reply, Transition};
use tower_idempotency::store::shared::{Answer, Backend, BackendError, Clocks, Guarantee, Row, Write};
use tower_idempotency::{Fingerprint, RecordId};
use tower_idempotency_conformance::memory_backend::{Call, MemoryBackend};

use crate::world::builder;
use crate::world::database;

/// A database, and the ids of each put that it was sent.
#[derive(Debug, Clone)]
struct Recorded {
    database: MemoryBackend,
    puts: Arc<Mutex<Vec<Vec<RecordId>>>>,
}

type Rows = Answer<Vec<Option<Row>>>;

impl Backend for Recorded {
    async fn get(&self, clocks: Clocks, ids: &[RecordId]) -> Result<Rows, BackendError> {
        self.database.get(clocks, ids).await
    }

    async fn put(&self, clocks: Clocks, writes: &[Write]) -> Result<Rows, BackendError> {
        self.puts.lock().unwrap().push(writes.iter().map(|write| write.id).collect());
        self.database.put(clocks, writes).await
    }

    async fn sessions(&self, clocks: Clocks) -> Result<Answer<Vec<Row>>, BackendError> {
        self.database.sessions(clocks).await
    }

    async fn list(
        &self,
        clocks: Clocks,
        alive: &[RecordId],
        after: Option<(Timestamp, RecordId)>,
        limit: usize,
    ) -> Result<Answer<Vec<Row>>, BackendError> {
        self.database.list(clocks, alive, after, limit).await
    }

    async fn delete_expired(&self, clocks: Clocks, limit: usize) -> Result<usize, BackendError> {
        self.database.delete_expired(clocks, limit).await
    }

    fn changes(&self) -> BoxStream<'static, RecordId> {
        self.database.changes()
    }

    async fn guarantee(&self) -> Result<Guarantee, BackendError> {
        self.database.guarantee().await
    }
}

fn id(number: u8) -> RecordId {
    RecordId::from_bytes([number; 32])
}

fn claim(number: u8) -> Transition {
    Transition::Claim(Wish::new(id(number), Fingerprint::of(b"m")).claim())
}

/// A database may take one write of an id in a call: what it does with two would depend on their order.
#[tokio::test(start_paused = true)]
async fn two_writes_of_one_id_never_go_together() {
    let recorded = Recorded { database: database(), puts: Arc::default() };
    let store = builder(&recorded.database).calls(1).open(recorded.clone()).await.unwrap();
    // While the first is on its way, the others gather.
    let hold = recorded.database.hold(Call::Put);
    let claims: Vec<_> = (0..200).map(|at| store.apply(id(at % 7), claim(at % 7))).collect();
    let let_go = async {
        hold.until_held(1).await;
        hold.release();
    };
    let (answers, ()) = tokio::join!(join_all(claims), let_go);
    for number in 0..7 {
        let of_it = answers.iter().skip(number).step_by(7);
        let granted = of_it.filter(|answer| answer.as_ref().is_ok_and(|applied| applied.reply == Reply::Taken)).count();
        assert_eq!(granted, 1, "of id {number}");
    }
    let puts = recorded.puts.lock().unwrap();
    for put in &*puts {
        let ids: HashSet<&RecordId> = put.iter().collect();
        assert_eq!(ids.len(), put.len(), "an id is in a put twice");
    }
    let most = puts.iter().map(Vec::len).max();
    assert_eq!(most, Some(7), "all that may go together does");
}
