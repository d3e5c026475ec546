//! A service whose operations are looked at.

use axum::body::{Body, to_bytes};
use axum::routing::post;
use axum::{Extension, Router};
use http::{Request, StatusCode};
use tempfile::TempDir;
use testkit::Gate;
use tower::ServiceExt as _;
use tower_idempotency::store::Store;
use tower_idempotency::{IdempotencyContext, IdempotencyLayer, Key, RecordId, Scope, SledStore, Unsure};

/// The scope of all its keys.
pub(crate) const ACCOUNT: &str = "account 7";

/// A service over a store.
#[derive(Clone)]
pub(crate) struct Service {
    app: Router,
    /// The runs at `/waits` wait here.
    pub(crate) gate: Gate,
}

impl Service {
    pub(crate) fn over(store: impl Store + Clone) -> Self {
        let gate = Gate::default();
        let waits = {
            let gate = gate.clone();
            move || async move {
                gate.pass().await;
                "waited"
            }
        };
        let layer = IdempotencyLayer::new(store)
            .scope(|parts: &http::request::Parts| {
                let account = parts.headers.get("account").map_or(ACCOUNT, |account| account.to_str().unwrap());
                Scope::new(account).ok()
            })
            .label(|parts| Some(format!("charge {}", parts.uri.path())));
        let app = Router::new()
            .route("/done", post(async |body: String| (StatusCode::CREATED, [("location", "/charges/1")], body)))
            .route("/unsure", post(async || (StatusCode::BAD_GATEWAY, Extension(Unsure), "unknown")))
            .route("/steps", post(steps))
            .route("/waits", post(waits))
            .layer(layer);
        Self { app, gate }
    }

    /// Sends a request, and returns the status, the body, and whether it is a replay.
    pub(crate) async fn send(&self, path: &str, key: &str, body: &str) -> (u16, String, bool) {
        self.send_as(ACCOUNT, path, key, body).await
    }

    pub(crate) async fn send_as(&self, account: &str, path: &str, key: &str, body: &str) -> (u16, String, bool) {
        let request = Request::post(path).header("idempotency-key", key).header("account", account);
        let answer = self.app.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let (status, replayed) = (answer.status().as_u16(), answer.headers().contains_key("idempotent-replayed"));
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap(), replayed)
    }
}

/// Answers with the keys of two steps, and does not know whether they took place.
async fn steps(context: IdempotencyContext) -> (StatusCode, Extension<Unsure>, String) {
    let keys = ["charge", "mail"].map(|step| context.derived_key(step));
    (StatusCode::BAD_GATEWAY, Extension(Unsure), keys.join(" "))
}

/// The id of a key of the service.
pub(crate) fn id(key: &str) -> RecordId {
    RecordId::new(Some(&Scope::new(ACCOUNT).unwrap()), &Key::new(key).unwrap())
}

/// A directory on the disk of the build: the one for temporary files may be in memory.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A sled store of a service that has ended.
pub(crate) struct Closed {
    directory: TempDir,
}

impl Closed {
    /// Serves these requests, each of a path, a key and a body, and ends.
    pub(crate) async fn after(requests: &[(&str, &str, &str)]) -> Self {
        let closed = Self { directory: directory() };
        closed
            .served(async |service, _| {
                for (path, key, body) in requests {
                    service.send(path, key, body).await;
                }
            })
            .await;
        closed
    }

    /// Serves for a while.
    pub(crate) async fn served<T>(&self, during: impl AsyncFnOnce(&Service, &SledStore) -> T) -> T {
        let store = SledStore::open(self.path()).unwrap();
        let service = Service::over(store.clone());
        let result = during(&service, &store).await;
        drop(service);
        store.close().await.unwrap();
        result
    }

    /// Damages the last byte of each of these: `r` and an operation is its record, `c` its answer's last chunk.
    pub(crate) async fn damage(&self, places: &[(&[u8; 1], RecordId)]) {
        self.served(async |_, store| {
            let tree = store.db().unwrap().open_tree("tower-idempotency").unwrap();
            for (kind, id) in places {
                let prefix = [kind.as_slice(), id.as_bytes()].concat();
                let (key, mut value) = tree.scan_prefix(prefix).last().unwrap().unwrap();
                let last = value.len() - 1;
                value[last] ^= 1;
                tree.insert(key, value).unwrap();
            }
            store.sync().await.unwrap();
        })
        .await;
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// As the command line names it.
    pub(crate) fn name(&self) -> String {
        format!("sled:{}", self.path().display())
    }
}
