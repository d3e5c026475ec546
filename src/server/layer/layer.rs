//! The layer: a store, and how it is used; what it says of itself; and the three decisions that every service has to
//! take, which are the first section of `docs/options.md`. The other options are in the other files of this room.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[cfg(feature = "utoipa")]
use http::Method;
use http::Response;
#[cfg(feature = "axum")]
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde_json::Value;
#[cfg(feature = "utoipa")]
use utoipa::openapi::OpenApi;

use crate::engine::{Drained, Engine, OnInterrupted, Reconciler, Stats, drain};
use crate::key::Scope;
use crate::server::answer::snapshot::{Recorder, outcome_of_answer};
use crate::server::bodies::body::{KeepBody, SendBody};
use crate::server::describe::cors::CorsHeaders;
#[cfg(feature = "utoipa")]
use crate::server::describe::openapi;
use crate::server::gate::scope::IntoScope;
use crate::server::layer_state::LayerState;
use crate::server::options::{Hook, Options};
use crate::server::warnings::{self, WrongName};
use crate::store::Store;

/// Makes retried requests safe: the first request with a key runs, the others get its answer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "memory")] {
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// use axum::{Router, body::{Body, to_bytes}, routing::post};
/// use http::Request;
/// use tower::ServiceExt as _;
/// use tower_idempotency::{IdempotencyLayer, MemoryStore};
///
/// static CHARGES: AtomicU32 = AtomicU32::new(0);
/// let charge = || async { format!("charge {}", CHARGES.fetch_add(1, Ordering::Relaxed) + 1) };
/// let app: Router = Router::new()
///     .route("/charges", post(charge))
///     .route_layer(IdempotencyLayer::new(MemoryStore::new()));
///
/// let post = || Request::post("/charges").header("Idempotency-Key", "order-42");
/// let request = || post().body(Body::empty());
/// let first = app.clone().oneshot(request()?).await?;
/// let retry = app.oneshot(request()?).await?;
///
/// assert_eq!(retry.headers()["Idempotent-Replayed"], "true");
/// assert_eq!(to_bytes(first.into_body(), 64).await?, "charge 1");
/// assert_eq!(to_bytes(retry.into_body(), 64).await?, "charge 1");
/// # }
/// # Ok(())
/// # }
/// ```
///
/// Clones share the store. Layers over one store, with the same or other options, know each other's runs.
///
/// `M` is the body mode: `KeepBody` carries axum's bodies, and `AnyBody`, which [`any_body`](Self::any_body) sets,
/// carries every body.
#[must_use]
pub struct IdempotencyLayer<St, M = KeepBody> {
    store: Arc<St>,
    options: Arc<Options>,
    /// The engine and the options, once the layer is used. The services that it makes share it, and so do its clones.
    state: Arc<OnceLock<Arc<LayerState<St>>>>,
    mode: PhantomData<fn() -> M>,
}

impl<St: Store> IdempotencyLayer<St> {
    /// Creates a layer over `store` with the default options.
    pub fn new(store: St) -> Self {
        let (store, options, state) = (Arc::new(store), Arc::default(), Arc::default());
        Self { store, options, state, mode: PhantomData }
    }
}

impl<St, M> IdempotencyLayer<St, M> {
    /// Returns the same layer in the mode that the caller expects.
    pub(crate) fn in_mode<N>(self) -> IdempotencyLayer<St, N> {
        let Self { store, options, state, .. } = self;
        IdempotencyLayer { store, options, state, mode: PhantomData }
    }

    /// Returns a layer with changed options. Its engine will be another one; the store, with the runs in it, stays the
    /// same.
    pub(in crate::server) fn with(self, change: impl FnOnce(&mut Options)) -> Self {
        let Self { store, mut options, mode, .. } = self;
        change(Arc::make_mut(&mut options));
        Self { store, options, state: Arc::default(), mode }
    }

    /// Returns the engine and the options. They are made when they are first asked for.
    pub(in crate::server) fn state(&self) -> &Arc<LayerState<St>> {
        let Self { store, options, state, .. } = self;
        state.get_or_init(|| Arc::new(LayerState::new(Arc::clone(store), Arc::clone(options))))
    }

    /// Looks whether [`header_name`](Self::header_name), [`replay_header_name`](Self::replay_header_name),
    /// [`outcome_header_name`](Self::outcome_header_name) and [`credential_cookies`](Self::credential_cookies) have
    /// names that can be meant. A layer with another one panics when it is put around a service, so call this before if
    /// the names come from outside.
    ///
    /// # Errors
    /// [`WrongName`] for the first header of HTTP's, of the layer's own or of another option, and for the first name
    /// that no cookie can have.
    pub fn check(&self) -> Result<(), WrongName> {
        warnings::check(&self.options)
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &St {
        &self.store
    }
}

/// # What the layer says of itself
impl<St, M> IdempotencyLayer<St, M> {
    /// Returns what clients can find out: the routes, as [`discoverable`](Self::discoverable) names them; the profile,
    /// the header of the key and whether it is required, the retention, and what a retry can expect. What an error
    /// means is left out where a [`classify`](Self::classify) decides it.
    /// [`guide::profiles`](mod@crate::guide::profiles) has an example.
    #[must_use]
    pub fn discovery(&self) -> Value {
        self.state().discovery()
    }

    /// Returns a router with the route `/.well-known/idempotency`, which answers with [`discovery`](Self::discovery) as
    /// JSON. Merge it into the application's outermost router, after its options are set. Where several layers are in
    /// one application, write such a route by hand, with the [`discovery`](Self::discovery) of each.
    #[cfg(feature = "axum")]
    pub fn well_known<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        let discovery = self.discovery().to_string();
        let answer = move || std::future::ready(([(CONTENT_TYPE, "application/json")], discovery.clone()));
        axum::Router::new().route("/.well-known/idempotency", axum::routing::get(answer))
    }

    /// Returns the headers of this layer that scripts of other origins need, for a CORS layer outside. Add those of
    /// your API, such as `Content-Type`.
    ///
    /// ```
    /// # use tower_idempotency::{IdempotencyLayer, MemoryStore};
    /// let headers = IdempotencyLayer::new(MemoryStore::new()).cors_headers();
    /// assert_eq!(headers.allow, ["idempotency-key", "idempotency-probe"]);
    /// assert_eq!(headers.expose, ["idempotent-replayed", "idempotency-effect", "retry-after", "link"]);
    /// ```
    #[must_use]
    pub fn cors_headers(&self) -> CorsHeaders {
        CorsHeaders::of(&self.options)
    }

    /// Adds what this layer does to an OpenAPI document: to all operations with a method that it covers.
    ///
    /// - The parameter of the key, required if [`require_key`](Self::require_key) is set and
    ///   [`key_from`](Self::key_from) is not.
    /// - A response for each status with which the layer rejects requests, with an example of each kind: 400, 408, 409,
    ///   413, 422, 500 and 503 by default. They are made by calling the function of
    ///   [`render_rejection`](Self::render_rejection), if there is one. The statuses of your own rejections, from
    ///   `scope`, are yours to document.
    /// - The headers of answers: the mark of a replay and the header of
    ///   [`outcome_header_name`](Self::outcome_header_name) on the responses that your handler gives, `Retry-After` and
    ///   `Link` on rejections.
    /// - The schema `IdempotencyProblem` among the components.
    /// - What generators of clients read: `x-fern-idempotent` and `x-fern-idempotency-headers` for Fern. Where a key is
    ///   required, also `x-speakeasy-retries` for Speakeasy: connection errors and 503 are tried again, for an hour or
    ///   half of the [`retention`](Self::retention) at most. Stainless reads its configuration instead.
    ///
    /// What the document says already stays: a response of the same status gets the rejections in addition, and one
    /// that is a reference to a component becomes a copy of it first. A parameter of the same name, an extension or a
    /// schema of the same name is kept. A reference to another document can't be added to.
    ///
    /// A document does not say what the function of [`covers`](Self::covers) does. If you have set one, use
    /// [`document_where`](Self::document_where).
    ///
    /// ```
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore};
    /// use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathItem, PathsBuilder};
    /// use utoipa::openapi::{OpenApi, OpenApiBuilder, ResponseBuilder};
    ///
    /// // As a rule, `#[derive(OpenApi)]` or utoipa-axum makes it.
    /// let charge = OperationBuilder::new().response("200", ResponseBuilder::new().description("The charge"));
    /// let charges = PathItem::new(HttpMethod::Post, charge);
    /// let mut api: OpenApi = OpenApiBuilder::new().paths(PathsBuilder::new().path("/charges", charges)).build();
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).require_key(true);
    /// layer.document(&mut api);
    ///
    /// let charge = &serde_json::to_value(&api)?["paths"]["/charges"]["post"];
    /// assert_eq!(charge["parameters"][0]["name"], "Idempotency-Key");
    /// assert!(charge["responses"]["200"]["headers"].get("Idempotent-Replayed").is_some());
    /// assert!(charge["responses"]["409"]["headers"].get("Retry-After").is_some());
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[cfg(feature = "utoipa")]
    pub fn document(&self, openapi: &mut OpenApi) {
        self.document_where(openapi, |_, _| true);
    }

    /// Adds what this layer does to the operations of an OpenAPI document for which `is_covered` returns true, of those
    /// with a method that the layer covers. The function is given the operation's method and its path as the document
    /// has it, such as `/charges/{id}`. Everything else is as for [`document`](Self::document).
    ///
    /// ```
    /// # use tower_idempotency::{IdempotencyLayer, MemoryStore};
    /// # let mut api = utoipa::openapi::OpenApi::default();
    /// let layer = IdempotencyLayer::new(MemoryStore::new()).covers(|parts| parts.uri.path().starts_with("/v1/"));
    /// layer.document_where(&mut api, |_, path| path.starts_with("/v1/"));
    /// ```
    #[cfg(feature = "utoipa")]
    pub fn document_where(&self, openapi: &mut OpenApi, is_covered: impl Fn(&Method, &str) -> bool) {
        openapi::document(self.state(), openapi, is_covered);
    }

    /// Returns a scope of a request's credentials: the headers and cookies that [say who
    /// asks](crate::guide::promises#headers-that-say-who-asks), as this layer's options have them. `None` if the
    /// request has none. For a [`scope`](Self::scope) by which keys belong to credentials:
    ///
    /// ```
    /// use http::request::Parts;
    /// use tower_idempotency::{IdempotencyLayer, MemoryStore};
    ///
    /// let layer = IdempotencyLayer::new(MemoryStore::new());
    /// let of = layer.clone();
    /// let layer = layer.scope(move |parts: &Parts| of.scope_of_credentials(parts));
    /// ```
    ///
    /// **A retry with other credentials is then another operation, and runs.** Use it only where a client's credentials
    /// stay the same between the attempts of one operation: tokens that are renewed do not, nor do `Authorization` with
    /// AWS signatures or Digest, `X-WSSE`, and assertions that a gateway signs anew. A request that has only a
    /// `Signature` (RFC 9421) has no scope.
    #[must_use]
    pub fn scope_of_credentials(&self, parts: &Parts) -> Option<Scope> {
        let Options { sameness, header_name, .. } = &*self.options;
        sameness.credentials.scope(parts, header_name)
    }
}

/// # For operators
impl<St: Store, M> IdempotencyLayer<St, M> {
    /// Refuses new keys from now on (503 `shutting-down`; replays are still given), and waits at most `timeout` for
    /// the runs under way on all layers over this store, and for the outcomes that could not be recorded when their
    /// runs ended and are tried again. Returns how many of each are left. Over a store that several processes share,
    /// handlers that another process may run again are dropped shortly before.
    ///
    /// New keys stay refused for as long as the store is open.
    ///
    /// # Cancel safety
    /// If the future is dropped, new keys are still refused.
    pub async fn drain(&self, timeout: Duration) -> Drained {
        drain(self.state().engine.store.slots(), timeout).await
    }

    /// Returns what this process has counted over this store.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state().engine.store.slots().stats()
    }

    pub(crate) fn engine(&self) -> &Arc<Engine<St>> {
        &self.state().engine
    }

    /// Returns what records this layer's answers.
    pub(crate) fn recorder(&self) -> &Arc<Recorder> {
        &self.state().options.recorder
    }
}

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

impl<St, M> Clone for IdempotencyLayer<St, M> {
    fn clone(&self) -> Self {
        let (store, options, state) = (Arc::clone(&self.store), Arc::clone(&self.options), Arc::clone(&self.state));
        Self { store, options, state, mode: PhantomData }
    }
}

impl<St: fmt::Debug, M> fmt::Debug for IdempotencyLayer<St, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, options, .. } = self;
        f.debug_struct("IdempotencyLayer").field("store", store).field("options", options).finish()
    }
}
