//! The layer: a store, and how it is used.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use tower_layer::Layer;

use super::bodies::body::KeepBody;
use super::layer_state::LayerState;
use super::options::Options;
use super::service::IdempotencyService;
use super::warnings::{self, WrongName};
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
    pub(super) fn in_mode<N>(self) -> IdempotencyLayer<St, N> {
        let Self { store, options, state, .. } = self;
        IdempotencyLayer { store, options, state, mode: PhantomData }
    }

    /// Returns a layer with changed options. Its engine will be another one; the store, with the runs in it, stays the
    /// same.
    pub(super) fn with(self, change: impl FnOnce(&mut Options)) -> Self {
        let Self { store, mut options, mode, .. } = self;
        change(Arc::make_mut(&mut options));
        Self { store, options, state: Arc::default(), mode }
    }

    /// Returns the engine and the options. They are made when they are first asked for.
    pub(super) fn state(&self) -> &Arc<LayerState<St>> {
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

impl<S, St: Store, M> Layer<S> for IdempotencyLayer<St, M> {
    type Service = IdempotencyService<S, St, M>;

    /// # Panics
    /// If an option has a name that can't be meant: see [`check`](IdempotencyLayer::check).
    fn layer(&self, inner: S) -> Self::Service {
        if let Err(wrong) = self.check() {
            panic!("{wrong}");
        }
        self.state().warn();
        IdempotencyService::behind(Arc::clone(self.state()), inner)
    }
}

/// Constructors, as in tower-http.
impl<S, St: Store> IdempotencyService<S, St> {
    /// Puts `inner` behind a layer over `store` with the default options.
    #[must_use]
    pub fn new(inner: S, store: St) -> Self {
        Self::layer(store).layer(inner)
    }

    /// Creates a layer over `store` with the default options: see [`IdempotencyLayer::new`].
    pub fn layer(store: St) -> IdempotencyLayer<St> {
        IdempotencyLayer::new(store)
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
