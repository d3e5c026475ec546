//! Options that few services need: the last section of `docs/options.md`.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderName;
use http::request::Parts;
use tracing::Level;

use super::layer::IdempotencyLayer;
use crate::server::options::Hook;

/// # Rare options
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets whether only keys in double quotes are taken, which are structured-field Strings. Default: false; keys
    /// without quotes are taken too.
    pub fn strict_keys(self, strict: bool) -> Self {
        self.with(|options| options.strict_keys = strict)
    }

    /// Sets the header that carries the key. Default: `Idempotency-Key`.
    pub fn header_name(self, name: HeaderName) -> Self {
        self.with(|options| options.header_name = name)
    }

    /// Sets the header that marks a replay. Its value is `true`. Default: `Idempotent-Replayed`.
    pub fn replay_header_name(self, name: HeaderName) -> Self {
        self.with(|options| Arc::make_mut(&mut options.recorder).replay_header_name = name)
    }

    /// Names the header by which each answer to a request with a key says what became of it: `ran`, `replayed`, or the
    /// kind of a rejection ([`RejectionKind::slug`](crate::RejectionKind::slug)). Proxies and access logs can count by
    /// it. It is not recorded. A browser's script sees it only if CORS exposes it. Default: no such header.
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore};
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new())
    ///     .outcome_header_name(HeaderName::from_static("idempotency-outcome"));
    /// ```
    pub fn outcome_header_name(self, name: HeaderName) -> Self {
        self.with(|options| options.outcome_header_name = Some(name))
    }

    /// Sets the beginning of every problem's `type`. Default: [`problem`](crate::problem) in the documentation.
    pub fn problem_base(self, base: impl Into<String>) -> Self {
        self.with(|options| options.problem_base = base.into().into())
    }

    /// Sets the function that names an operation for the people who look after it: the route, the account, the
    /// caller's own reference. The label is stored with the operation's first claim and stays. Lists of interrupted
    /// operations show it ([`InterruptedRun::label`](crate::store::InterruptedRun::label)), as do the span of a request
    /// that runs, the events of requests, and the refusals that an operator has to settle. The function is called
    /// before a claim: for each request that may run, and over a shared store for a replay whose record this process
    /// does not have in memory. It may return `None`. Default: no label.
    ///
    /// ```
    /// use http::request::Parts;
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore};
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).label(|parts: &Parts| {
    ///     let order = parts.headers.get("x-order").and_then(|order| order.to_str().ok());
    ///     order.map(|order| format!("{} {}, order {order}", parts.method, parts.uri.path()))
    /// });
    /// ```
    ///
    /// A label has at most 200 bytes; a longer one is cut, and control characters become blanks. It is stored as it is,
    /// and read by operators and by the client that sent the request. What a client chooses, such as a header's value,
    /// may mislead operators. Leave out keys, tokens, payment data, and what your records must not keep of a person.
    pub fn label<L: Into<Option<String>>>(self, label: impl Fn(&Parts) -> L + Send + Sync + 'static) -> Self {
        self.with(|options| options.label = Some(Hook(Arc::new(move |parts| label(parts).into()))))
    }

    /// Sets the level of the event `ran`, which each request leaves whose handler was called. Default: DEBUG.
    pub fn run_level(self, level: Level) -> Self {
        self.with(|options| options.policy.levels.ran = level)
    }

    /// Sets the level of the event `replayed`, which each replay leaves. Default: DEBUG.
    pub fn replay_level(self, level: Level) -> Self {
        self.with(|options| options.policy.levels.replayed = level)
    }

    /// Sets the level of the event `refused`, which each rejection leaves. Of each kind there is at most one such event
    /// a minute, with the `count` of rejections since the last one; the others are at DEBUG, or at this level if it is
    /// TRACE. Default: INFO.
    pub fn rejection_level(self, level: Level) -> Self {
        self.with(|options| options.policy.levels.refused = level)
    }

    /// Sets the function that each run's future passes through before it is spawned. It is called in the requester's
    /// task, so that it can carry task-locals over. If the future is dropped before its first poll, the run never
    /// began. If it is dropped later, the run is interrupted. If it is dropped while its outcome is being written, this
    /// process refuses the key until the retention is over or it restarts. Default: none.
    pub fn wrap_run<F>(self, wrap: impl Fn(BoxFuture<'static, ()>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.with(|options| options.wrap_run = Some(Hook(Arc::new(move |run| Box::pin(wrap(run))))))
    }
}
