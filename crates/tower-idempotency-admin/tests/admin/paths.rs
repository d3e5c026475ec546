//! The page works under any path.

use axum::Router;
use axum::body::Body;
use http::Request;
use testkit::Answer;
use tower::ServiceExt as _;
use tower_idempotency::MemoryStore;
use tower_idempotency_admin::{Access, AdminPage};

use crate::desk::{authorize, from, layer};

fn page() -> Router {
    AdminPage::new(layer(MemoryStore::new()).operations(), |parts| authorize(parts, Access::ALL)).router()
}

async fn status(app: &Router, uri: &str) -> u16 {
    let request = from(Request::get(uri)).body(Body::empty()).unwrap();
    Answer::of(app.clone().oneshot(request).await.unwrap()).await.status.as_u16()
}

/// All links begin with `?` or `#` (`headers.rs`), so they hold wherever the page is.
#[tokio::test]
async fn the_page_is_there_however_it_is_mounted() {
    let apps = [
        (
            Router::new().nest("/ops/idempotency", page()),
            ["/ops/idempotency", "/ops/idempotency?state=any", "/ops/idempotency/api/stats"],
        ),
        (Router::new().nest("/ops/", page()), ["/ops/", "/ops/?state=any", "/ops/api/stats"]),
        (Router::new().nest_service("/ops", page()), ["/ops", "/ops/", "/ops/api/stats"]),
        (
            Router::new().nest("/a", Router::new().nest("/{tenant}/ops", page())),
            ["/a/7/ops", "/a/7/ops?x", "/a/7/ops/api/stats"],
        ),
        (Router::new().merge(page()), ["/", "/?state=any", "/api/stats"]),
    ];
    for (app, uris) in apps {
        for uri in uris {
            assert_eq!(status(&app, uri).await, 200, "{uri}");
        }
    }
}

#[tokio::test]
async fn the_page_leaves_the_applications_fallback_to_the_application() {
    let app = Router::new().nest("/ops", page()).fallback(async || (http::StatusCode::IM_A_TEAPOT, ""));
    assert_eq!(status(&app, "/ops/nothing").await, 418);
    assert_eq!(status(&app, "/nothing").await, 418);
}
