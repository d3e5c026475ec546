//! The same handler, behind our layer and by hand, over one server; and behind our layer over PostgreSQL.

use std::time::Duration;

use axum::Router;
use peers::process;
use peers::stores::{LEASE, postgres};
use testkit::bench::exchange::{SMALL, protected};
use tower_idempotency::OnInterrupted;
use tower_idempotency_redis::{Durability, RedisBackend, RedisStore};

use crate::by_hand::{Way, minimum};

/// The number of connections of a contender: the backend's default.
const CONNECTIONS: usize = 8;
/// Both processors are busy: no connection is dropped because an answer is late.
const PATIENT: Duration = Duration::from_secs(10);
const ONE_REPLICA: Durability = Durability::Replicas { count: 1, fsync: false };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Ours,
    /// Two commands, and nothing else.
    ByHand,
    ByHandInScripts,
    /// Each write waits for a replica.
    OursReplicated,
    ByHandReplicated,
    OnPostgres,
}

/// Serves the contender of this name over the server of `url`, until the process is killed.
pub(crate) fn serve(name: &str, url: &str) {
    let contenders = [Contender::Ours, Contender::ByHand];
    let contender = contenders.into_iter().find(|contender| contender.name() == name).expect("a contender");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { process::serve(contender.app(url).await).await });
}

impl Contender {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::ByHand => "minimum by hand",
            Self::ByHandInScripts => "minimum by hand, scripts",
            Self::OursReplicated => "ours, one replica",
            Self::ByHandReplicated => "minimum by hand, WAIT 1",
            Self::OnPostgres => "ours on PostgreSQL",
        }
    }

    /// Returns the handler behind the contender, over the server of `url`.
    pub(crate) async fn app(self, url: &str) -> Router {
        match self {
            Self::Ours => protected(SMALL, store(url, Durability::Memory).await, OnInterrupted::Refuse),
            Self::ByHand => minimum(SMALL, url, CONNECTIONS, Way::Set).await,
            Self::ByHandInScripts => minimum(SMALL, url, CONNECTIONS, Way::Script).await,
            Self::OursReplicated => protected(SMALL, store(url, ONE_REPLICA).await, OnInterrupted::Refuse),
            Self::ByHandReplicated => minimum(SMALL, url, CONNECTIONS, Way::SetAndWait).await,
            Self::OnPostgres => protected(SMALL, postgres(url).await, OnInterrupted::Refuse),
        }
    }
}

/// Opens a store like one in a process of its own.
pub(crate) async fn store(url: &str, durability: Durability) -> RedisStore {
    let builder = RedisStore::builder().lease(LEASE);
    builder.open(backend(url, durability).await).await.expect("the server answers")
}

pub(crate) async fn backend(url: &str, durability: Durability) -> RedisBackend {
    let builder = RedisBackend::from_url(url).expect("a URL").durability(durability).expect("a count");
    builder.connections(CONNECTIONS).response_timeout(PATIENT).open().await.expect("the server answers")
}
