//! The facts that a handler can ask about its own run. The layer asks, too, before the run: a request that a handler
//! sends on has the context of the exchange that it is in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Extensions, Uri};

use crate::engine::{Rerun, RunContext};
use crate::key::{Key, RecordId};
use crate::record::Fence;
use crate::server::answer::snapshot::Recorder;
use crate::slots::Slots;

/// Answers a handler's questions about its own run: the key, the attempt, the fence, and keys for what it calls in
/// turn.
///
/// It is a request extension, by which another layer over the same store, further inside, recognises that the request
/// is in an exchange already. In axum (feature `axum`) it is an extractor too: `Option<IdempotencyContext>` is `None`
/// for requests without a key; the bare extractor answers 500 for them and says what is missing.
///
/// # Requests that a handler sends
/// A handler may copy its own request's head into a new request and send that through a layer. If the new request has a
/// key of its own, it is an exchange of its own; without a key it has no context. It belongs to the handler's run, so
/// that it is let through while the process shuts down. The marks of its answer say nothing of the handler's own
/// effect. If the layer is on a nested router, leave axum's `OriginalUri` out of the copy: it says where the handler's
/// request was sent, and with it the layer cannot know which of two parameters of the nested path was meant.
#[derive(Clone)]
pub struct IdempotencyContext {
    /// The key of the exchange's own request. A request with another key is a sub-request.
    key: Key,
    /// The engine's part: record id, fence, attempt, and the run's transaction.
    pub(crate) run: RunContext,
    // The slots of the store of this exchange, by which a second layer over that store recognises it.
    slots: Arc<Slots>,
    // The URI to which the client sent the request, as the request says.
    seen: Uri,
    // The path that is a part of the record's id, if one is.
    path_of_id: Option<Box<str>>,
    answers_retries: bool,
    // It records an answer that is committed with its effect.
    pub(crate) recorder: Arc<Recorder>,
    // The exchange around this one.
    outer: Option<Arc<Self>>,
    copied: Copied,
}

/// `true` in a clone of the context, which is not in the extensions of the exchange's own request. A handler clones it
/// with its request's extensions, and axum's extractor clones it.
struct Copied(bool);

impl Clone for Copied {
    fn clone(&self) -> Self {
        Self(true)
    }
}

impl IdempotencyContext {
    /// Puts the context of a new exchange into a request's head. The context that was there becomes its outer one.
    pub(crate) fn replace(
        parts: &mut Parts,
        key: Key,
        run: RunContext,
        slots: Arc<Slots>,
        (seen, path_of_id): (Uri, Option<Box<str>>),
        recorder: Arc<Recorder>,
        answers_retries: bool,
    ) {
        let outer = parts.extensions.remove().map(Arc::new);
        let copied = Copied(false);
        let context = Self { key, run, slots, seen, path_of_id, answers_retries, recorder, outer, copied };
        parts.extensions.insert(context);
    }

    /// This exchange and those around it, the innermost first.
    fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |context| context.outer.as_deref())
    }

    /// Those of [`all`](Self::all) over the store of these slots whose runs go on. A context that outlived its run
    /// protects nothing.
    pub(crate) fn goes_on_in(&self, slots: &Arc<Slots>) -> impl Iterator<Item = &Self> {
        self.all().filter(|context| Arc::ptr_eq(&context.slots, slots) && !context.run.is_over())
    }

    /// Returns whether the request with this context is one that a handler, or what it calls, has sent: its head is a
    /// copy, or it has another key than the exchange.
    pub(crate) fn is_of_sub_request(&self, key: &Key) -> bool {
        self.copied.0 || self.key != *key
    }

    /// Removes a copy from a request that is in no exchange. Its handler would take the copy for its own context.
    #[inline]
    pub(crate) fn remove_copy(extensions: &mut Extensions) {
        if extensions.get::<Self>().is_some_and(|context| context.copied.0) {
            extensions.remove::<Self>();
        }
    }

    /// Returns the path that is a part of the record's id, if one is.
    pub(crate) fn path_of_id(&self) -> Option<&str> {
        self.path_of_id.as_deref()
    }

    /// Returns whether the request of this exchange, or of one around it, said that its client had sent it to `uri`.
    pub(crate) fn has_seen(&self, uri: &Uri) -> bool {
        self.all().any(|context| context.seen == *uri)
    }

    /// Returns whether a retry may get more than a refusal if this run leaves its operation unknown: it runs
    /// ([`Rerun`](crate::OnInterrupted::Rerun)), or the application is asked
    /// ([`reconcile_with`](crate::IdempotencyLayer::reconcile_with)).
    #[must_use]
    pub fn answers_retries(&self) -> bool {
        self.answers_retries
    }

    /// The key. A secret: not for logs.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The digest of scope and key, as operators see it.
    #[must_use]
    pub fn record_id(&self) -> RecordId {
        self.run.record_id()
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

    /// Returns whether the run is protected: its claim is recorded, or its store makes up for that. False for a run
    /// that [`fail_open`](crate::IdempotencyLayer::fail_open) lets go ahead while the store can't be reached; a retry
    /// of its request may run again.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        self.fence() != Fence(0)
    }

    /// Returns how long other processes still take this one for alive: see [`RunContext::lease_left`].
    #[must_use]
    pub fn lease_left(&self) -> Option<Duration> {
        self.run.lease_left()
    }

    /// Returns whether the operation may have run before.
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
    /// Leaves out the URI, whose query may say more than a log should.
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

    const MISSING: &str = "IdempotencyContext: the request is in no exchange. It has no idempotency key, or no \
        IdempotencyLayer covers this route and method. Extract Option<IdempotencyContext>, or set `require_key` on the \
        layer, or look at its options `header_name`, `methods` and `covers`.";

    impl<S: Send + Sync> FromRequestParts<S> for IdempotencyContext {
        type Rejection = (StatusCode, &'static str);

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
            parts.extensions.get::<Self>().cloned().ok_or((StatusCode::INTERNAL_SERVER_ERROR, MISSING))
        }
    }

    impl<S: Send + Sync> OptionalFromRequestParts<S> for IdempotencyContext {
        type Rejection = std::convert::Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
            Ok(parts.extensions.get::<Self>().cloned())
        }
    }
}
