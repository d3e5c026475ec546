//! The options that decide what operators see of the layer's requests.

use std::sync::Arc;

use http::HeaderName;
use http::request::Parts;
use tracing::Level;

use super::layer::IdempotencyLayer;
use super::options::Hook;
use crate::store::Store;

/// # What operators see
impl<St: Store, M> IdempotencyLayer<St, M> {
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
}
