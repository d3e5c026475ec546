//! The three decisions that every service has to take: the first section of `docs/options.md`.

use std::sync::Arc;

use http::Response;
use http::request::Parts;

use super::layer::IdempotencyLayer;
use crate::engine::{OnInterrupted, Reconciler};
use crate::server::answer::snapshot::{Recorder, outcome_of_answer};
use crate::server::bodies::body::SendBody;
use crate::server::gate::scope::IntoScope;
use crate::server::options::Hook;

/// Options. [`guide::options`](mod@crate::guide::options) lists them. If an option is set twice, the last call counts;
/// lists are replaced, not added to.
///
/// **Every service has to take three decisions: [`scope`](Self::scope) says whose a key is,
/// [`require_key`](Self::require_key) whether a request may come without one, and
/// [`on_interrupted`](Self::on_interrupted), or [`reconcile_with`](Self::reconcile_with), what a retry gets if it is
/// unknown how the first run ended.** All others have defaults that rarely change.
///
/// # Three decisions
impl<St, M> IdempotencyLayer<St, M> {
    /// Sets the function that says to whom a key belongs: the account, tenant or principal, as some layer outside has
    /// established it. The function returns a [`Scope`](crate::Scope), an `Option` of one, or a `Result` of either. If
    /// it returns a rejection, the request is answered with that. Default: no scope. Without one, the request's
    /// credentials ([`CREDENTIAL_HEADERS`](crate::server::CREDENTIAL_HEADERS)) must be the same in a retry.
    /// [`guide::security`](mod@crate::guide::security#scope) says when to set it.
    /// ```
    /// use http::StatusCode;
    /// use http::request::Parts;
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore, Rejection, Scope};
    ///
    /// /// An authentication layer outside puts it into the request's extensions.
    /// #[derive(Clone)]
    /// struct Account(String);
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).scope(|parts: &Parts| {
    ///     let Some(Account(id)) = parts.extensions.get() else {
    ///         return Err(Rejection::from(StatusCode::UNAUTHORIZED));
    ///     };
    ///     Ok(Scope::new(id)?)
    /// });
    /// ```
    pub fn scope<T: IntoScope>(self, scope: impl Fn(&Parts) -> T + Send + Sync + 'static) -> Self {
        self.with(|options| options.scope = Some(Hook(Arc::new(move |parts| scope(parts).into_scope()))))
    }

    /// Sets whether requests without a key are refused (400 `key-missing`). Then every request is covered whose method
    /// is neither safe nor CONNECT, whatever [`methods`](Self::methods) names, unless [`covers`](Self::covers) leaves
    /// it out. Default: false; covered requests without a key pass through.
    pub fn require_key(self, require: bool) -> Self {
        self.with(|options| options.require_key = require)
    }

    /// Sets what a retry gets when the run before it was interrupted. Of this and
    /// [`reconcile_with`](Self::reconcile_with), the last call counts. Default: [`OnInterrupted::Refuse`].
    pub fn on_interrupted(self, on_interrupted: OnInterrupted) -> Self {
        self.with(|options| {
            options.reconcile = None;
            options.policy.set_on_interrupted(on_interrupted);
        })
    }

    /// Sets the reconciler, which is asked about an interrupted run when its request is sent again. The request is
    /// refused (`outcome-unknown`) if the reconciler does not know. The answer that the reconciler gives is recorded
    /// and replayed like a handler's. Its body is read as a handler's is; an answer whose body fails, or is longer than
    /// [`max_response_body`](Self::max_response_body), counts as unknown. Default: there is no reconciler.
    ///
    /// The same key and the same request, sent again after the [`retention`](Self::retention), are another operation
    /// with the same derived key. What the reconciler finds is of this operation if it is no older than
    /// [`began`](crate::store::InterruptedRun::began) minus half of the retention.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// # use std::time::{Duration, SystemTime};
    /// use axum::response::{IntoResponse as _, Response};
    /// use tower_idempotency::clock::Timestamp;
    /// use tower_idempotency::engine::{Reconciled, Reconciler};
    /// use tower_idempotency::store::InterruptedRun;
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore};
    /// const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
    /// # struct Charge { at: SystemTime, receipt: String }
    /// # async fn look_up(key: &str) -> Result<Option<Charge>, std::io::Error> { Ok(None) }
    /// let reconciler = Reconciler::<Response>::new(|run: InterruptedRun| async move {
    ///     let Some(key) = run.derived_key("charge") else { return Reconciled::StillUnknown };
    ///     let is_earlier = |at| Timestamp::from(at).plus(RETENTION / 2) < run.began;
    ///     match look_up(&key).await {
    ///         Ok(Some(charge)) if is_earlier(charge.at) => Reconciled::StillUnknown,
    ///         Ok(Some(charge)) => Reconciled::Outcome(charge.receipt.into_response()),
    ///         Ok(None) => Reconciled::RunAgain, // only because this provider cannot still be charging
    ///         Err(_) => Reconciled::StillUnknown,
    ///     }
    /// });
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).retention(RETENTION).reconcile_with(reconciler);
    /// # let _ = layer;
    /// # }
    /// ```
    pub fn reconcile_with<B: SendBody>(self, reconciler: Reconciler<Response<B>>) -> Self {
        self.with(|options| {
            // The recorder is an argument, because options that are set later may change it.
            let recording = move |recorder: &Arc<Recorder>| {
                let recorder = Arc::clone(recorder);
                reconciler.map(move |answer| outcome_of_answer(Arc::clone(&recorder), answer))
            };
            options.reconcile = Some(Hook(Arc::new(recording)));
        })
    }
}
