//! The subject that the rules are tried on.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tower_idempotency::store::Store;

/// A store to try the rules on, and what the suite may do with it.
///
/// Only the store is needed. Each thing more lets the suite see more.
pub struct StoreSubject<St> {
    pub(super) store: Arc<St>,
    pub(super) another_process: Option<St>,
    pub(super) clock: Option<Box<dyn Fn(Duration) + Send + Sync>>,
    pub(super) reopen: Option<Reopen<St>>,
    pub(super) most_records: Option<usize>,
    pub(super) longest_outcome: usize,
    // It is dropped last.
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

type Reopen<St> = Box<dyn Fn() -> BoxFuture<'static, St> + Send + Sync>;

/// The length that a layer records by default, and room for the head of an answer.
const USUAL: usize = (1 << 20) + (1 << 16);

impl<St: Store> StoreSubject<St> {
    /// A subject that has nothing but the store.
    #[must_use]
    pub fn new(store: St) -> Self {
        let (another_process, clock, reopen, most_records) = (None, None, None, None);
        Self {
            store: Arc::new(store),
            another_process,
            clock,
            reopen,
            most_records,
            longest_outcome: USUAL,
            kept: Vec::new(),
        }
    }

    /// The same records, as another process has them open.
    #[must_use]
    pub fn another_process(mut self, store: St) -> Self {
        self.another_process = Some(store);
        self
    }

    /// Lets so much time pass by the store's clock, which otherwise does not move. Without it the suite waits for a
    /// second or two to pass by themselves.
    #[must_use]
    pub fn clock(mut self, pass: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.clock = Some(Box::new(pass));
        self
    }

    /// Opens the records again. The suite closes the store before.
    #[must_use]
    pub fn reopened_by<F>(mut self, reopen: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = St> + Send + 'static,
    {
        self.reopen = Some(Box::new(move || Box::pin(reopen())));
        self
    }

    /// Sets how many records the store takes before it is full. At least 1,000, which other rules need.
    #[must_use]
    pub fn most_records(mut self, records: usize) -> Self {
        self.most_records = Some(records);
        self
    }

    /// The longest outcome that is tried, in bytes; it is written twice. Default: 1 MiB and 64 KiB.
    #[must_use]
    pub fn longest_outcome(mut self, bytes: usize) -> Self {
        self.longest_outcome = bytes;
        self
    }

    /// Keeps something for as long as the stores are used, and drops it after them: a temporary directory, a server.
    #[must_use]
    pub fn kept(mut self, kept: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(kept));
        self
    }
}

impl<St: fmt::Debug> fmt::Debug for StoreSubject<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSubject")
            .field("store", &self.store)
            .field("another_process", &self.another_process)
            .finish_non_exhaustive()
    }
}
