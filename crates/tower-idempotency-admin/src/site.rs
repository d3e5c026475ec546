//! What the handlers share.

use std::error::Error;
use std::fmt;

use axum::response::Response;
use futures_util::future::BoxFuture;
use http::request::Parts;
use tower_idempotency::Scope;
use tower_idempotency::operations::{OperationRecord, Operations};
use tower_idempotency::store::Store;

use crate::access::Actor;
use crate::latencies::Latencies;
use crate::overview::Overview;
use crate::text::hex;
use crate::timeout::{Kept, Unread, in_time};

type Authorize = dyn Fn(Parts) -> BoxFuture<'static, Result<Actor, Response>> + Send + Sync;
type ScopeFrom = dyn Fn(&[&str]) -> Result<Option<Scope>, NoScope> + Send + Sync;
/// Why what was entered names no owner.
pub(crate) type NoScope = Box<dyn Error + Send + Sync>;

/// The operations, the application's hooks, and what is kept of the store's last answers.
pub(crate) struct Site<St> {
    pub(crate) operations: Operations<St>,
    pub(crate) authorize: Box<Authorize>,
    pub(crate) scope_from: Box<ScopeFrom>,
    pub(crate) latencies: Option<Latencies>,
    /// The steps for which handlers derive keys.
    pub(crate) steps: Vec<String>,
    #[cfg(feature = "outbox")]
    pub(crate) outboxes: Vec<crate::outbox::Named>,
    /// A text of this process alone: the counts of another one must not be compared with its own.
    pub(crate) instance: String,
    overview: Kept<Overview>,
}

impl<St: Store> Site<St> {
    pub(crate) fn new(operations: Operations<St>, authorize: Box<Authorize>) -> Self {
        let mut instance = [0; 8];
        // Without random numbers, all processes have one name, and the graphs of several look odd.
        let _ = getrandom::fill(&mut instance);
        Self {
            operations,
            authorize,
            scope_from: Box::new(scope_of),
            latencies: None,
            steps: Vec::new(),
            #[cfg(feature = "outbox")]
            outboxes: Vec::new(),
            instance: hex(&instance),
            overview: Kept::new(),
        }
    }

    /// Returns the keys that the operation's run derives, each with its step. A damaged record has none.
    pub(crate) fn derived_keys<'a>(
        &'a self,
        operation: &'a OperationRecord,
    ) -> impl Iterator<Item = (&'a str, String)> {
        self.steps.iter().filter_map(|step| Some((step.as_str(), operation.derived_key(step)?)))
    }

    /// Returns how many operations there are. One request asks the store, and those that come meanwhile wait for it.
    pub(crate) async fn overview(&self) -> Result<Overview, Unread> {
        in_time(self.overview.or(Overview::of(&self.operations))).await
    }

    /// Forgets the overview, after a change.
    pub(crate) async fn look_again(&self) {
        self.overview.forget().await;
    }
}

/// Returns the scope of these parts: an account, or a tenant and a user. No parts: no scope.
fn scope_of(parts: &[&str]) -> Result<Option<Scope>, NoScope> {
    let mut parts = parts.iter();
    let Some(first) = parts.next() else { return Ok(None) };
    Ok(Some(parts.try_fold(Scope::new(first)?, |scope, part| scope.and(part))?))
}

/// Shows neither the hooks nor the counts.
impl<St> fmt::Debug for Site<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").finish_non_exhaustive()
    }
}
