//! The operators' interface: what they see of the operations, how they find one, and what they change.

mod changes;
mod lists;
mod logged;
mod one;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use testkit::lab::Lab;
use testkit::lab::time::SECOND;
use tower_idempotency::operations::{Action, Answer, Applied, Change, ChangeError, OperationRecord, Operations};
use tower_idempotency::store::Store;
use tower_idempotency::test_util::ManualClock;
use tower_idempotency::{IdempotencyLayer, MemoryStore, Scope};

/// The scope of this account.
fn account(name: &str) -> Scope {
    Scope::new(name).unwrap()
}

/// A layer whose keys belong to the account that the request's header names, and whose labels are the path.
fn layer<St: Store>(store: St) -> IdempotencyLayer<St> {
    let scope = |parts: &Parts| account(parts.headers["account"].to_str().unwrap());
    IdempotencyLayer::new(store).scope(scope).label(|parts: &Parts| format!("label of {}", parts.uri.path()))
}

/// A lab whose answer is a 200 or, under a path that ends with a status, that status.
fn lab<St: Store>(layer: IdempotencyLayer<St>) -> Lab {
    let handler = |uri: http::Uri| async move {
        let status = uri.path().rsplit('/').next().and_then(|status| status.parse().ok());
        (StatusCode::from_u16(status.unwrap_or(200)).unwrap(), format!("body of {uri}"))
    };
    Lab::of(axum::Router::new().fallback(handler).layer(layer))
}

/// Posts to `path` as this account. The handler answers.
async fn send(lab: &Lab, path: &str, account: &str, key: &str) {
    let request = testkit::lab::keyed("POST", path, key).header("account", account);
    let answer = lab.send(request.body("a".into()).unwrap()).await;
    assert!(answer.text().starts_with("body of"), "{answer:?}");
}

/// A store whose clock moves by hand.
fn clocked() -> (MemoryStore, ManualClock) {
    let clock = ManualClock::new(testkit::lab::time::NOON);
    (MemoryStore::builder().clock(clock.clone()).build(), clock)
}

/// Makes a change of this operation as it was seen.
async fn change<St: Store>(
    operations: &Operations<St>,
    seen: &OperationRecord,
    action: Action,
) -> Result<Applied, ChangeError> {
    operations.by("alice").apply(Change::new(seen.id, seen.fence, action)).await
}

fn answer(text: &'static str) -> Action {
    Action::Answer(Answer::Http(Response::new(Bytes::from(text))))
}

/// A moment in which something ages.
fn a_second_passes(clock: &ManualClock) {
    clock.advance(SECOND);
}
