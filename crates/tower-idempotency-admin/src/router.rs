//! The router.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::response::Response;
use axum::{Router, middleware};
use http::request::Parts;
use tower_idempotency::Scope;
use tower_idempotency::operations::Operations;
use tower_idempotency::store::Store;

use crate::access::Actor;
use crate::guard::guard;
use crate::latencies::Latencies;
use crate::site::{NoScope, Site};
use crate::{api, page};

/// The longest body of a request: more than the default of a layer's `max_response_body`.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// Builds the router of the operators' page.
#[derive(Debug)]
#[must_use = "call `router`"]
pub struct AdminPage<St>(Site<St>);

impl<St: Store> AdminPage<St> {
    /// Creates the page over `operations`, which `layer.operations()` and `once.operations()` return.
    ///
    /// `authorize` is called for each request, with its head, extensions included. It says who calls, and what they may
    /// do. Its `Err` is the answer to a caller that it does not know: a 401 that asks for credentials, or a redirect to
    /// where they sign in. A known caller without [`Access`](crate::Access) gets a 403.
    pub fn new<F, Fut>(operations: Operations<St>, authorize: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Actor, Response>> + Send + 'static,
    {
        Self(Site::new(operations, Box::new(move |parts| Box::pin(authorize(parts)))))
    }

    /// Sets the observer whose times the page draws. It has to observe the store, too: see [`Latencies`]. Default: the
    /// page draws rates alone.
    pub fn latencies(mut self, latencies: Latencies) -> Self {
        self.0.latencies = Some(latencies);
        self
    }

    /// Sets how the owner of a key, as support staff know it, becomes the scope of the layer's option `scope`. It gets
    /// the lines that they enter, without blank ones. `None`: the key belongs to no scope. The text of an error is
    /// shown to them; it should not repeat what they entered. Default: each line is a part of the scope.
    ///
    /// ```
    /// # use tower_idempotency::{IdempotencyLayer, MemoryStore, Scope};
    /// # use tower_idempotency_admin::{Access, Actor, AdminPage};
    /// # let layer = IdempotencyLayer::new(MemoryStore::new());
    /// # let authorize = async |_| Ok(Actor::new("operator", Access::READ));
    /// // The layer's scope is the number of the account; staff enter `ACME-17`.
    /// let page = AdminPage::new(layer.operations(), authorize).scope_from(|lines| {
    ///     let number = lines.first().and_then(|line| line.strip_prefix("ACME-"));
    ///     Ok(Some(Scope::new(number.ok_or("An account begins with ACME-.")?)?))
    /// });
    /// ```
    pub fn scope_from(
        mut self,
        scope_from: impl Fn(&[&str]) -> Result<Option<Scope>, NoScope> + Send + Sync + 'static,
    ) -> Self {
        self.0.scope_from = Box::new(scope_from);
        self
    }

    /// Sets the steps for which handlers [derive keys](tower_idempotency::IdempotencyContext::derived_key). Each
    /// operation shows its derived keys, by which staff find it in the ledger, or at the provider. Default: none.
    pub fn steps(mut self, steps: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.steps = steps.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a section for the calls of an outbox, under this name: how many have not ended, and those that wait for an
    /// operator, who needs [`Permission::Outbox`](crate::Permission::Outbox) to change them. It shows neither keys nor
    /// paths nor bodies. May be called again, for another outbox. Default: none.
    ///
    /// Needs the feature `outbox-postgres` or `outbox-sled`.
    #[cfg(feature = "outbox")]
    pub fn outbox(mut self, name: impl Into<String>, outbox: impl tower_idempotency_outbox::Outbox) -> Self {
        self.0.outboxes.push(crate::outbox::Named::new(name.into(), outbox));
        self
    }

    /// Returns the router, to be nested under a path of your application. It has no fallback.
    #[must_use = "nest it"]
    pub fn router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let site = Arc::new(self.0);
        let routes = page::router().merge(api::router());
        let guard = middleware::from_fn_with_state(Arc::clone(&site), guard);
        routes.layer(DefaultBodyLimit::max(MAX_BODY)).layer(guard).with_state(site)
    }
}
