//! Charges behind `axum-idempotent`, set up as its README has it. See `checked/run`.
//!
//! It keeps answers in the session of the client, and thus by account: `POST /login` begins one. A request without a
//! session is not deduplicated, so `checked/run` logs in twice, and sends a cookie with each request.

#[path = "charges/mod.rs"]
mod charges;

use std::sync::Arc;

use axum::routing::post;
use axum_idempotent::{IdempotentLayer, IdempotentOptions};
use ruts::store::Ttl;
use ruts::store::moka::MokaStore;
use ruts::{CookieOptions, Session, SessionLayer};
use tower_cookies::CookieManagerLayer;

/// In seconds.
const DAY: i64 = 86_400;

#[tokio::main]
async fn main() {
    let log_in = async |session: Session<MokaStore>| {
        session.set("user", &1, Ttl::new(DAY).expect("a day"), None).await.expect("a session");
    };
    // The key is required, as in the README.
    let options =
        IdempotentOptions::default().use_idempotency_key_header(Some("Idempotency-Key"), true).expire_after(DAY);
    let store = Arc::new(MokaStore::builder().build());
    // The layer is on the POST alone: it would require a key of a GET, too.
    let app = charges::app(|make| make.layer(IdempotentLayer::<MokaStore>::new(options)))
        .route("/login", post(log_in))
        .layer(SessionLayer::new(store).with_cookie_options(CookieOptions::build().name("session")))
        .layer(CookieManagerLayer::new());
    charges::serve(app).await;
}
