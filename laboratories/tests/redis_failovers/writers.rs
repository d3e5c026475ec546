//! Writers that claim rows and complete them, each row once, until it is enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use testkit::process::until;
use testkit::rows::{claim, complete, id, is_done};
use tokio::task::JoinSet;
use tower_idempotency::RecordId;
use tower_idempotency_redis::RedisBackend;
use tower_idempotency_shared::{Backend as _, Clocks, Token, Write};

const WRITERS: usize = 8;
/// The pause before a write is sent again.
const PAUSE: Duration = Duration::from_millis(5);

/// A row whose claim was answered as done.
pub(crate) struct Written {
    pub(crate) id: RecordId,
    /// The token of its outcome, if that was answered as done, too.
    pub(crate) outcome: Option<Token>,
}

/// The writers of one process.
pub(crate) struct Writers {
    shared: Arc<Shared>,
    writing: JoinSet<Vec<Written>>,
}

struct Shared {
    backend: RedisBackend,
    rows: AtomicU64,
    answered: AtomicUsize,
    is_over: AtomicBool,
}

impl Writers {
    pub(crate) fn start(backend: RedisBackend) -> Self {
        let (rows, answered, is_over) = Default::default();
        let shared = Arc::new(Shared { backend, rows, answered, is_over });
        let mut writing = JoinSet::new();
        for _ in 0..WRITERS {
            let shared = Arc::clone(&shared);
            writing.spawn(async move { shared.write().await });
        }
        Self { shared, writing }
    }

    /// Waits until so many more writes are answered.
    pub(crate) async fn more(&self, count: usize) {
        let answered = || self.shared.answered.load(Ordering::SeqCst);
        let enough = answered() + count;
        until("writes are answered", async || answered() >= enough).await;
    }

    /// Ends them, and returns all rows.
    pub(crate) async fn end(self) -> Vec<Written> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.writing.join_all().await.into_iter().flatten().collect()
    }
}

impl Shared {
    async fn write(&self) -> Vec<Written> {
        let mut written = Vec::new();
        while !self.is_over() {
            let claimed = claim(id(self.rows.fetch_add(1, Ordering::SeqCst)));
            if !self.is_answered(&claimed).await {
                continue;
            }
            let outcome = complete(claimed.id, claimed.token);
            // It is refused if the claim is lost.
            let is_complete = self.is_answered(&outcome).await;
            written.push(Written { id: claimed.id, outcome: is_complete.then_some(outcome.token) });
        }
        written
    }

    /// Sends a write again until its answer is known, or all is over. Returns whether it is answered as done.
    async fn is_answered(&self, write: &Write) -> bool {
        loop {
            match self.backend.put(Clocks::default(), std::slice::from_ref(write)).await {
                Ok(answer) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    return is_done(answer.rows[0].as_ref(), write);
                }
                Err(_) if self.is_over() => return false,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}
