//! What a handler can ask about its own run.

use std::fmt;
use std::sync::Arc;

use http::Uri;

use super::recorder::Recorder;
use crate::engine::{Rerun, RunContext};
use crate::key::{Key, RecordId};
use crate::record::Fence;
use crate::slots::Slots;

/// What a handler can ask about its own run: the key, the attempt, the fence, and keys for what it calls in turn.
///
/// A request extension, by which a layer over the same store further inside knows that the request is in an exchange already. A
/// request that a handler makes of a copy of its own request's head, and sends under a key of its own, is another exchange.
/// Where the layer stands on a nested router, leave axum's `OriginalUri` out of such a copy: it says where the handler's
/// request was sent, and the layer can't tell one nested path from another.
///
/// In axum (feature `axum`) an extractor too: `Option<IdempotencyContext>` is `None` for requests
/// without a key; the bare extractor answers 500 for them and says what is missing.
#[derive(Clone)]
pub struct IdempotencyContext {
    key: Key,
    pub(super) run: RunContext,
    // Whose exchange this is: a second layer over the same store passes through for the same operation.
    slots: Arc<Slots>,
    // Where the request says that its client sent it.
    seen: Uri,
    // How an answer is recorded that is committed with the effect.
    pub(super) recorder: Arc<Recorder>,
}

impl IdempotencyContext {
    pub(super) fn new(key: Key, run: RunContext, slots: Arc<Slots>, seen: Uri, recorder: Arc<Recorder>) -> Self {
        Self { key, run, slots, seen, recorder }
    }

    /// Whether this is of an exchange over the store of these slots.
    pub(super) fn is_of(&self, slots: &Arc<Slots>) -> bool {
        Arc::ptr_eq(&self.slots, slots)
    }

    /// Whether this exchange is that of `id`, and its run goes on: a context that outlived its run protects nothing.
    pub(super) fn encloses(&self, id: &RecordId) -> bool {
        self.run.id() == *id && !self.run.is_over()
    }

    /// Whether this exchange's own request said that its client had sent it there.
    pub(super) fn has_seen(&self, uri: &Uri) -> bool {
        self.seen == *uri
    }

    /// The key. A secret: not for logs.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The digest of scope and key, as operators see it.
    #[must_use]
    pub fn record_id(&self) -> RecordId {
        self.run.id()
    }

    /// The number of this attempt, from 1, as far as earlier ones left a trace.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.run.attempt()
    }

    /// The run's fence: hand it to what the operation changes, so that a later run's change is not undone by this one.
    /// `Fence(0)`, older than any other, for a run that `fail_open` lets go ahead without a store.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.run.fence()
    }

    /// Whether the operation may have run before.
    #[must_use]
    pub fn rerun(&self) -> Rerun {
        self.run.rerun()
    }

    /// An idempotency key for a downstream call: 32 hex digits, the same in every attempt, another for every `step`.
    #[must_use]
    pub fn derived_key(&self, step: &str) -> String {
        self.run.derived_key(step)
    }
}

impl fmt::Debug for IdempotencyContext {
    /// Without the URI: its query may say more than a log should.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyContext").field("key", &self.key).field("run", &self.run).finish_non_exhaustive()
    }
}

#[cfg(feature = "axum")]
mod extract {
    use axum::extract::{FromRequestParts, OptionalFromRequestParts};
    use http::StatusCode;
    use http::request::Parts;

    use super::IdempotencyContext;

    const NO_KEY: &str = "IdempotencyContext: the request has no Idempotency-Key (or the layer reads another header). \
        Extract Option<IdempotencyContext>, or set require_key on the layer.";
    const NO_LAYER: &str = "IdempotencyContext: no IdempotencyLayer covers this route and method. \
        Add one, and check its options `methods` and `covers`.";

    impl<S: Send + Sync> FromRequestParts<S> for IdempotencyContext {
        type Rejection = (StatusCode, &'static str);

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
            let missing = if parts.headers.contains_key("idempotency-key") { NO_LAYER } else { NO_KEY };
            parts.extensions.get::<Self>().cloned().ok_or((StatusCode::INTERNAL_SERVER_ERROR, missing))
        }
    }

    impl<S: Send + Sync> OptionalFromRequestParts<S> for IdempotencyContext {
        type Rejection = std::convert::Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
            Ok(parts.extensions.get::<Self>().cloned())
        }
    }
}
