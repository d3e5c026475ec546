//! The same handler, behind our layer and behind the alternatives, over one server.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cratestack_sqlx::SqlxIdempotencyStore;
use peers::process;
use peers::stores::{CONNECTIONS, postgres};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::bench::exchange::{SMALL, bare, protected};
use tower_idempotency::OnInterrupted;

use crate::by_hand;

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Ours,
    /// Two statements, and nothing else.
    ByHand,
    /// The same, with a connection for each of 64 clients.
    ByHandWithMany,
    /// A quick hand-written middleware.
    Sqlx,
    Cratestack,
}

/// Serves the contender of this name over the database of `url`, until the process is killed.
pub(crate) fn serve(name: &str, url: &str) {
    let contender = Contender::ALL.into_iter().find(|contender| contender.name() == name).expect("a contender");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { process::serve(contender.app(url).await).await });
}

impl Contender {
    const ALL: [Self; 5] = [Self::Ours, Self::ByHand, Self::ByHandWithMany, Self::Sqlx, Self::Cratestack];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::ByHand => "minimum by hand",
            Self::ByHandWithMany => "minimum by hand, 64 connections",
            Self::Sqlx => "middleware by hand, sqlx",
            Self::Cratestack => "cratestack",
        }
    }

    /// Returns the handler behind the contender, over the database of `url`.
    pub(crate) async fn app(self, url: &str) -> Router {
        match self {
            Self::Ours => protected(SMALL, postgres(url).await, OnInterrupted::Refuse),
            Self::ByHand => by_hand::minimum(SMALL, url, CONNECTIONS).await,
            Self::ByHandWithMany => by_hand::minimum(SMALL, url, 64).await,
            Self::Sqlx => by_hand::middleware(bare(SMALL), sqlx_pool(url).await).await,
            Self::Cratestack => {
                let store = SqlxIdempotencyStore::new(sqlx_pool(url).await);
                store.ensure_schema().await.expect("a table");
                let layer = cratestack_axum::idempotency::IdempotencyLayer::new(Arc::new(store), DAY);
                let layer = layer.with_principal_fingerprint(|_| "merchant".to_owned());
                bare(SMALL).layer(layer).with_state(())
            }
        }
    }
}

/// Returns a pool in its fastest setting: it does not test a connection before use.
async fn sqlx_pool(url: &str) -> PgPool {
    let options = PgPoolOptions::new().max_connections(CONNECTIONS as u32).test_before_acquire(false);
    options.connect(&format!("{url}?sslmode=disable")).await.expect("the database answers")
}
