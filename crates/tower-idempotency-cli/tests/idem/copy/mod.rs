//! Records that move to another store.
//!
//! - `answers.rs`: what retries get, and what operators see, is the same.
//! - `refused.rs`: a copy that would lose or overwrite something is refused or says so.
//! - `redis.rs`: the same over Redis.
//! - `interrupted.rs`: a copy that was killed is made again.

mod answers;
mod interrupted;
mod redis;
mod refused;

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tower_idempotency::engine::ClaimPolicy;
use tower_idempotency::internals::{
    self, Claim, Completion, Fence, Operation, Origin, Record, Records as _, Reply, RunResult, Stepped, Transition,
};
use tower_idempotency::store::Store as _;
use tower_idempotency::{AnyStore, Fingerprint, RecordId};

use crate::program::json;
use crate::service::{Service, directory, id};

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// A place for a store of one engine. There is none at first.
pub(crate) struct Place {
    engine: &'static str,
    directory: TempDir,
}

impl Place {
    pub(crate) fn of(engine: &'static str) -> Self {
        Self { engine, directory: directory() }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("store")
    }

    /// As the command line names it.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.engine, self.path().display())
    }

    pub(crate) async fn opened(&self) -> AnyStore {
        AnyStore::connect(&self.name()).await.unwrap()
    }

    /// Opens the store for a while.
    pub(crate) async fn with<T>(&self, during: impl AsyncFnOnce(&AnyStore) -> T) -> T {
        let store = self.opened().await;
        let result = during(&store).await;
        store.close().await.unwrap();
        result
    }

    /// Serves these requests, each of a path, a key and a body.
    pub(crate) async fn serves(&self, requests: &[(&str, &str, &str)]) {
        self.with(async |store| {
            let service = Service::over(store.clone());
            for (path, key, body) in requests {
                service.send(path, key, body).await;
            }
        })
        .await;
    }
}

/// The ids of the records that a command names as damaged, in their order.
pub(crate) fn damaged(said: &serde_json::Value) -> Vec<String> {
    let damaged = said["damaged"].as_array().unwrap().iter();
    let mut ids: Vec<_> = damaged.map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// The right of a run, and the operation that it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    pub(crate) id: RecordId,
    fence: Fence,
    attempt: u32,
}

fn operation(id: RecordId) -> Operation {
    Operation { id, fingerprint: Fingerprint::of(b"message"), origin: Origin::default() }
}

/// Claims a key, past all layers.
pub(crate) async fn claim(store: &AnyStore, id: RecordId) -> Hold {
    let claim = Claim {
        operation: operation(id),
        policy: ClaimPolicy::Rerun,
        may_repeat: false,
        bound: HOUR,
        interrupted_retention: HOUR,
        timeout: HOUR,
    };
    let Stepped { reply: Reply::Taken, record: Some(Record { fence, attempt, .. }) } =
        store.apply(id, Transition::Claim(claim)).await.unwrap()
    else {
        panic!("it is taken")
    };
    Hold { id, fence, attempt }
}

/// Completes a run, past all layers.
pub(crate) async fn complete(store: &AnyStore, hold: Hold, result: RunResult, retention: Duration) {
    let Hold { id, fence, attempt } = hold;
    let (operation, hold) = (operation(id), internals::Hold { fence, attempt });
    let completion = Completion { operation, hold, result, retention, began: None };
    assert_eq!(store.apply(id, Transition::Complete(completion)).await.unwrap().reply, Reply::Taken);
}

/// All operations of a store, as `ls` lists them, without what depends on the present time.
pub(crate) fn listed(store: &str) -> Vec<Value> {
    let listed = json(0, &["ls", store, "--limit", "1000"]);
    let mut operations = listed["operations"].as_array().unwrap().clone();
    operations.iter_mut().for_each(|one| one["seconds_in_state"] = Value::Null);
    operations.sort_by_key(|one| one["id"].as_str().unwrap().to_owned());
    operations
}

pub(crate) fn ids(keys: &[&str]) -> Vec<String> {
    let mut ids: Vec<_> = keys.iter().map(|key| id(key).to_string()).collect();
    ids.sort();
    ids
}
