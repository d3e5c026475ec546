//! The routes of the API.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use http::header::CONTENT_TYPE;
use tower_idempotency::store::Store;

use super::{change, read, stats};
use crate::site::Site;

/// The description, as it is served.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// Returns all routes, each with its path.
fn routes<St: Store>() -> [(&'static str, MethodRouter<Arc<Site<St>>>); 9] {
    [
        ("/api/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI))),
        ("/api/stats", get(stats::get)),
        ("/api/operations", get(read::list)),
        ("/api/operations/{id}", get(read::inspect)),
        ("/api/operations/{id}/outcome", get(read::outcome)),
        ("/api/disputed", get(read::disputed)),
        ("/api/find", post(read::find)),
        ("/api/changes", post(change::apply)),
        ("/api/purge", post(change::purge)),
    ]
}

pub(crate) fn router<St: Store>() -> Router<Arc<Site<St>>> {
    routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tower_idempotency::MemoryStore;

    use super::*;

    #[test]
    fn each_path_is_described_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let described = described["paths"].as_object().unwrap().keys().cloned();
        let routes = routes::<MemoryStore>().map(|(path, _)| path.to_owned());
        assert_eq!(BTreeSet::from(routes), described.collect());
    }
}
