//! The engine alone, for consumers of messages: a redelivered message has one effect and the same outcome (promises 1,
//! 2 and 5).

mod outcomes;
mod redelivered;
mod settled;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::lab::id;
use tower_idempotency::engine::{EffectError, OnceContext, OnceError};
use tower_idempotency::store::Store;
use tower_idempotency::{Fingerprint, Once};

type Failure = OnceError<&'static str>;

const MESSAGE: &[u8] = b"a message";

/// Delivers the message: its effect counts, and `end` decides how it ends.
async fn deliver<St: Store>(
    once: &Once<St, String>,
    effects: &Arc<AtomicUsize>,
    end: Result<&'static str, EffectError<&'static str>>,
) -> Result<(String, bool), Failure> {
    let effects = Arc::clone(effects);
    let effect = move |_: OnceContext<_>| async move {
        effects.fetch_add(1, Ordering::SeqCst);
        end.map(str::to_owned)
    };
    once.run(id("k"), Fingerprint::of(MESSAGE), effect).await.map(|outcome| (outcome.value, outcome.replayed))
}
