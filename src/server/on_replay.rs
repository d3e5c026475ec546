//! Asks the application before a recorded answer is given again. What it is shown of the request is taken before the
//! engine takes the request.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use tokio::time::{Instant, timeout};

use super::answer::meaning::Judge;
use super::answer::{marks, snapshot};
use super::effect::Effect;
use super::header::lines;
use super::not_applied::is_of_answers;
use super::reject::rejection::Rejection;
use crate::engine::{Engine, Verdict};
use crate::panics::panic_message;
use crate::slots::{Event, LogThrottle, once_a_minute};
use crate::store::Store;

/// How long the application may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Limits the log lines of hooks that fail, for all layers of the process together.
static FAILED: LogThrottle = LogThrottle::new();

/// What a retry gets in place of a plain replay: the function of
/// [`on_replay`](crate::IdempotencyLayer::on_replay) returns it. The record stays as it is.
#[non_exhaustive]
pub enum Replay {
    /// The recorded answer.
    Give,
    /// A refusal. Its `Idempotency-Effect` is `done`, with the status of the recorded answer, whatever the rejection
    /// says: without that, a client would take a 403 for one before the effect, and might use a new key. It is
    /// `unknown` if the recorded answer says so, or if the request may be sent again
    /// ([`retry_with_same_key`](Rejection::retry_with_same_key)).
    Refuse(Rejection),
    /// This answer, with the recorded trailers. It is marked as a replay, as the recorded one would be; its extensions
    /// and an `Idempotency-Effect` are left out. An interim status (1xx), or a `Content-Length` that is not the body's
    /// length, refuses the request with 503, as a panic does. An exchange that passes on one that is
    /// [`Secret`](crate::Secret) does not store it.
    Replace(Response<Bytes>),
}

// The answer may have personal data, so its body is not shown.
impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Give => f.write_str("Give"),
            Self::Refuse(rejection) => f.debug_tuple("Refuse").field(rejection).finish(),
            Self::Replace(answer) => f.debug_tuple("Replace").field(&answer.status()).finish(),
        }
    }
}

/// What a client reads where a rejection without words of its own would say that nothing was done.
const DONE: &str = "The operation was done before, and its answer is not given.";

pub(super) type OnReplay = Arc<dyn Fn(Parts, Response<Bytes>) -> BoxFuture<'static, Replay> + Send + Sync>;

/// What the application has said of a replay, and the recorded trailers.
pub(super) type Instead = Box<(Replay, Option<HeaderMap>)>;

/// What it takes to ask the application before a replay. The request itself is gone by then.
pub(super) struct Asking {
    hook: OnReplay,
    parts: Parts,
    began: Instant,
}

impl Asking {
    /// It is boxed, because few requests are asked about.
    pub(super) fn of(hook: &OnReplay, parts: &Parts, began: Instant) -> Box<Self> {
        Box::new(Self { hook: Arc::clone(hook), parts: parts.clone(), began })
    }

    /// Asks what the request gets in place of the replay of this outcome. Counts what is no refusal.
    pub(super) async fn about<St: Store>(
        self: Box<Self>,
        outcome: Bytes,
        engine: &Engine<St>,
        judge: Judge<'_>,
    ) -> Option<Instead> {
        // What can't be read is refused anyway.
        let (stored, trailers) = snapshot::decode(&outcome)?;
        let replay = ask(self.hook, self.parts, stored, trailers.as_ref(), &judge).await;
        if !matches!(replay, Replay::Refuse(_)) {
            engine.store.slots().telemetry.happened(Event::Replayed(self.began));
        }
        Some(Box::new((replay, trailers)))
    }
}

/// Returns the outcome that a request has met.
pub(super) fn recorded<T>(verdict: &Verdict<T>) -> Option<Bytes> {
    match verdict {
        Verdict::Outcome { outcome, is_own: false, .. } => Some(outcome.clone()),
        _ => None,
    }
}

/// Asks what a request gets in place of this answer. A function that panics or takes too long refuses it.
async fn ask(
    hook: OnReplay,
    parts: Parts,
    stored: Response<Bytes>,
    trailers: Option<&HeaderMap>,
    judge: &Judge<'_>,
) -> Replay {
    let (head, body) = stored.into_parts();
    let (status, is_final) = (head.status, judge.is_final(&head, trailers, Some(&body)));
    let stored = Response::from_parts(head, body);
    let asked = AssertUnwindSafe(async move { hook(parts, stored).await }).catch_unwind();
    let replay = match timeout(ASK_TIMEOUT, asked).await {
        Ok(Ok(Replay::Replace(answer))) if !can_be_sent(&answer) => {
            let status = answer.status().as_u16();
            once_a_minute!(
                FAILED,
                error,
                status,
                "the function of `on_replay` gave an interim answer, or one of another length than it declares"
            );
            Replay::Refuse(not_asked())
        }
        Ok(Ok(replay)) => replay,
        Ok(Err(panic)) => {
            let panic = panic_message(&*panic);
            once_a_minute!(FAILED, error, panic, "the function of `on_replay` panicked");
            Replay::Refuse(not_asked())
        }
        Err(_) => {
            once_a_minute!(FAILED, error, "the function of `on_replay` took longer than 5 seconds");
            Replay::Refuse(not_asked())
        }
    };
    match replay {
        Replay::Refuse(rejection) => {
            // After `done`, no client sends the request again.
            let is_done = is_final && !rejection.retry_with_same_key;
            let effect = if is_done { Effect::Done } else { Effect::Unknown };
            let is_wrong = rejection.detail == Rejection::NOTHING_WAS_DONE;
            let detail = if is_wrong { DONE.to_owned() } else { rejection.detail };
            Replay::Refuse(Rejection { effect, detail, original_status: Some(status), ..rejection })
        }
        Replay::Replace(mut answer) => {
            // They would be read as what another layer says of another operation.
            answer.headers_mut().remove(Effect::HEADER);
            marks::clear(answer.extensions_mut());
            Replay::Replace(answer)
        }
        replay => replay,
    }
}

/// Returns whether a server can send this answer: its status ends an answer, and it has the length that
/// it declares, unless its status says that it has no body (section 8.6).
fn can_be_sent(answer: &Response<Bytes>) -> bool {
    let has_body = !matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = answer.body().len().to_string();
    let fits = |declared: &HeaderValue| declared.as_bytes() == length.as_bytes();
    is_of_answers(answer.status())
        && (!has_body && answer.body().is_empty() || lines(answer.headers(), CONTENT_LENGTH).all(fits))
}

/// Refuses a replay about which the application has not decided.
fn not_asked() -> Rejection {
    let detail =
        "The operation has ended, and its answer can't be given now. Send the request again with the same key.";
    Rejection::custom(StatusCode::SERVICE_UNAVAILABLE, "The answer can't be given now", detail).after(1)
}
