//! Processes that claim and complete the same rows, while something is done to the server.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use testkit::process::until;
use tower_idempotency::RecordId;
use tower_idempotency_redis::{RedisBackend, RedisBackendBuilder};
use tower_idempotency_shared::{BackendError, Expect, Row, Token, Write};

use crate::lab::{claim, complete, get, id, is_done, put};

/// The processes, and what they were answered.
pub(crate) struct Writers {
    backends: Vec<RedisBackend>,
    /// The outcomes of the processes whose claim of a row was granted: of one process, if all is well.
    granted: Mutex<BTreeMap<RecordId, Vec<Write>>>,
    /// The tokens of the rows that others met.
    met: Mutex<Vec<(RecordId, Token)>>,
    /// The outcomes that were answered as done.
    completed: Mutex<Vec<Write>>,
    refused: AtomicUsize,
    is_over: AtomicBool,
}

impl Writers {
    /// Four processes.
    pub(crate) async fn new(builder: &RedisBackendBuilder) -> Self {
        let mut backends = Vec::new();
        for _ in 0..4 {
            backends.push(builder.clone().open().await.unwrap());
        }
        let (granted, met, completed) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { backends, granted, met, completed, refused: AtomicUsize::new(0), is_over: AtomicBool::new(false) }
    }

    /// Each process claims one row after the other, and completes those that it was granted, until the
    /// [end](Self::end).
    pub(crate) async fn run(&self) {
        join_all(self.backends.iter().map(|backend| self.process(backend))).await;
    }

    async fn process(&self, backend: &RedisBackend) {
        for number in 0.. {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let claimed = claim(id(number));
            let row = self.answer(backend, &claimed).await;
            if is_done(Some(&row), &claimed) {
                let outcome = complete(claimed.id, claimed.token);
                self.granted.lock().unwrap().entry(claimed.id).or_default().push(outcome.clone());
                let row = self.answer(backend, &outcome).await;
                assert!(is_done(Some(&row), &outcome), "the claim was granted, and is another's: {row:?}");
                self.completed.lock().unwrap().push(outcome);
            } else {
                self.met.lock().unwrap().push((claimed.id, row.token));
            }
            self.look(backend).await;
        }
    }

    /// Sends a write until the answer says what the row is.
    async fn answer(&self, backend: &RedisBackend, write: &Write) -> Row {
        let answered = Mutex::new(None);
        until("an answer", async || match put(backend, write).await {
            Ok(row) => {
                // A claim makes the row, and an outcome finds it.
                *answered.lock().unwrap() = Some(row.expect("the row is lost"));
                true
            }
            Err(error) => {
                self.note(&error);
                false
            }
        })
        .await;
        answered.into_inner().unwrap().expect("it is answered")
    }

    /// What was answered as done is all that is shown from then on.
    async fn look(&self, backend: &RedisBackend) {
        let Some(known) = self.known() else { return };
        match get(backend, known.id).await {
            Ok(row) => assert!(is_done(row.as_ref(), &known), "the outcome is not shown any more: {row:?}"),
            Err(error) => self.note(&error),
        }
    }

    fn note(&self, error: &BackendError) {
        assert!(!matches!(error, BackendError::Never(_) | BackendError::Full(_)), "{error}");
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    /// An outcome that was answered as done some time ago.
    pub(crate) fn known(&self) -> Option<Write> {
        let completed = self.completed.lock().unwrap();
        completed.get(completed.len() / 2).cloned()
    }

    /// The number of calls that were refused so far, or of which it is not known what they did.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Waits until so many more rows are completed.
    pub(crate) async fn complete_more(&self, rows: usize) {
        let completed = || self.completed.lock().unwrap().len();
        let enough = completed() + rows;
        until("more outcomes", async || completed() >= enough).await;
    }

    /// Lets the processes end, each after the row that it has.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Compares what was answered with what `backend` has.
    pub(crate) async fn check(&self, backend: &RedisBackend) {
        let granted = self.granted.lock().unwrap().clone();
        for (id, outcomes) in &granted {
            let [outcome] = outcomes.as_slice() else { panic!("{id} was granted {} times", outcomes.len()) };
            let row = get(backend, *id).await.unwrap();
            assert!(is_done(row.as_ref(), outcome), "the outcome of {id} is lost: {row:?}");
        }
        for (id, token) in self.met.lock().unwrap().iter() {
            let outcome = &granted.get(id).expect("another process has it")[0];
            let is_its = *token == outcome.token || outcome.expect == Expect::Token(*token);
            assert!(is_its, "{id} was shown as no process has written it");
        }
    }
}
