//! The subject that the rules are tried on.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tower_idempotency_shared::Backend;

/// A backend to try the rules on, and what the suite may do with it.
///
/// Only the backend is needed. Each thing more lets the suite see more.
pub struct BackendSubject<B> {
    pub(super) backend: B,
    pub(super) another_process: Option<B>,
    pub(super) another_namespace: Option<B>,
    pub(super) clock: Option<Box<dyn Fn(Duration) + Send + Sync>>,
    pub(super) hold: Option<Box<dyn Fn() -> Release + Send + Sync>>,
    pub(super) restart: Option<Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>>,
    pub(super) undurable: Option<Box<dyn Fn(bool) + Send + Sync>>,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

/// Lets go on what is held back.
pub(super) type Release = Box<dyn FnOnce() + Send>;

impl<B: Backend> BackendSubject<B> {
    /// A subject that has nothing but the backend.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self {
            backend,
            another_process: None,
            another_namespace: None,
            clock: None,
            hold: None,
            restart: None,
            undurable: None,
            kept: Vec::new(),
        }
    }

    /// The same namespace of the same database, as another process has it open.
    #[must_use]
    pub fn another_process(mut self, backend: B) -> Self {
        self.another_process = Some(backend);
        self
    }

    /// Another namespace of the same database.
    #[must_use]
    pub fn another_namespace(mut self, backend: B) -> Self {
        self.another_namespace = Some(backend);
        self
    }

    /// Lets so much time pass by the database's clock. Without it the suite waits for milliseconds to pass by
    /// themselves.
    #[must_use]
    pub fn clock(mut self, pass: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.clock = Some(Box::new(pass));
        self
    }

    /// Holds back the puts of the backend that the subject was made with, as a proxy between it and the database does:
    /// from when `hold` is called until what it returns is called, none arrives. Those of the [other
    /// process](Self::another_process) arrive meanwhile. Without both, the suite makes the calls in another order
    /// instead.
    #[must_use]
    pub fn held_back_by<R>(mut self, hold: impl Fn() -> R + Send + Sync + 'static) -> Self
    where
        R: FnOnce() + Send + 'static,
    {
        self.hold = Some(Box::new(move || Box::new(hold())));
        self
    }

    /// Starts the server again, and ends when it can be reached. The backends of the subject go on being used.
    #[must_use]
    pub fn restarted_by<F>(mut self, restart: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.restart = Some(Box::new(move || Box::pin(restart())));
        self
    }

    /// Lets no write become durable from when `undurable(true)` is called until `undurable(false)` is: the standby that
    /// writes have to reach is stopped, for example. The database can be reached meanwhile. A database that shows no
    /// row before it is durable, such as PostgreSQL or SQLite, needs no such hook.
    #[must_use]
    pub fn undurable_by(mut self, undurable: impl Fn(bool) + Send + Sync + 'static) -> Self {
        self.undurable = Some(Box::new(undurable));
        self
    }

    /// Keeps something for as long as the backends are used, and drops it after them: a temporary directory, a server.
    #[must_use]
    pub fn kept(mut self, kept: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(kept));
        self
    }
}

impl<B: fmt::Debug> fmt::Debug for BackendSubject<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendSubject")
            .field("backend", &self.backend)
            .field("another_process", &self.another_process)
            .field("another_namespace", &self.another_namespace)
            .finish_non_exhaustive()
    }
}
