//! The meaning of a handler's answer, or of its error, for the key: the one place that decides it. A replay comes here,
//! too: `is_final` says whether its head has to say that the effect is unknown.
//!
//! The rules, which [`Judge`] keeps:
//! 1. The handler's mark wins: [`Unsure`], [`Secret`], [`Keep`], [`Release`], and [`Invalid`] where the profile gives
//!    it a meaning. Of several marks the first in this order counts, so that there is no second effect.
//! 2. An answer without a mark is left to [`Classify`], which sees the head and the trailers. An answer that is passed
//!    on before it is complete is judged by its head.
//! 3. Then the body counts, of an answer that was read whole, if a [`BodyJudge`] was set: by the application, or else
//!    by the profile.
//! 4. If that does not say that nothing was done, an answer is unknown if its body failed, if it is shorter than its
//!    head says, or if it is gRPC's and has no status.
//! 5. Only a final answer that was read to its end is recorded. Any other final answer is consumed: the request never
//!    runs again, and the answer is not replayed. So is one with a [`Secret`], of which nothing is read.
//! 6. The answer to a request that a handler sends says nothing of that handler's own effect. So what another layer
//!    refuses, and the handler passes on, is unknown, and `request.rs` takes the marks out of an answer that another
//!    exchange encloses.

use std::any::Any;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::response::Parts;
use http::{Extensions, HeaderMap, StatusCode};
use http_body::Body;
use tower_idempotency_meaning::{Answer, BodyJudge, Says, grpc_status};

use super::marks::{Invalid, Keep, Release, Secret, Unsure, is_secret};
use super::snapshot::Recorder;
use crate::engine::{Cause, End, OnInterrupted};
use crate::server::bodies::collect::{Collected, is_cut};
use crate::server::effect::Effect;
use crate::server::header::lines;
use crate::server::not_applied;
use crate::server::reject::rejection::Rejection;

/// The meaning of an answer, or of an error of the inner service: what it says about the effect.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Meaning {
    /// This is the outcome, success or not: it is recorded and replayed.
    Final,
    /// Nothing happened: the key is freed, and a retry runs.
    NotStarted,
    /// The effect is unknown: the operation is interrupted, and a retry gets what the policy says.
    Unknown,
}

/// Decides what answers mean that their handler has not marked.
///
/// A closure that takes the head and the trailers, and returns a [`Meaning`] or an `Option` of one, is a classifier.
/// `None` leaves an answer to the default: what the layer's [`Profile`](crate::server::Profile) says of a 5xx, else
/// [`Meaning::of_answer`], or under [`Rerun`](OnInterrupted::Rerun) [`Meaning::of_answer_under_rerun`]:
/// ```
/// use http::response::Parts;
/// use http::{HeaderMap, StatusCode};
/// use tower_idempotency::Meaning;
/// use tower_idempotency::{IdempotencyLayer, MemoryStore};
///
/// let layer = IdempotencyLayer::new(MemoryStore::new()).classify(|parts: &Parts, _: Option<&HeaderMap>| {
///     // Here only the admission check answers so, before anything else.
///     (parts.status == StatusCode::SERVICE_UNAVAILABLE).then_some(Meaning::NotStarted)
/// });
/// ```
/// Errors of the inner service are unknown unless [`error`](Self::error) says otherwise. With tower's load shed inside:
/// ```
/// use std::any::Any;
/// use tower::BoxError;
/// use tower::load_shed::error::Overloaded;
/// use tower_idempotency::server::Classify;
/// use tower_idempotency::Meaning;
///
/// struct Shedding;
///
/// impl Classify for Shedding {
///     fn error(&self, error: &dyn Any) -> Meaning {
///         match error.downcast_ref::<BoxError>() {
///             Some(error) if error.is::<Overloaded>() => Meaning::NotStarted,
///             _ => Meaning::Unknown,
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what answers mean",
    note = "a closure needs the types of its arguments: `|parts: &Parts, trailers: Option<&HeaderMap>|`, with \
            `http::response::Parts` and `http::HeaderMap`",
    note = "it returns a `Meaning` or an `Option<Meaning>`"
)]
pub trait Classify: Send + Sync + 'static {
    /// Returns what an answer means; `None` leaves it to the policy's default. `trailers` are those of its body, or
    /// `None` if it has none, fails, or is passed on before it is complete. This is called at most once for an answer,
    /// and not if the handler has marked it; a panic counts as the handler's. Default: `None`.
    fn answer(&self, parts: &Parts, trailers: Option<&HeaderMap>) -> Option<Meaning> {
        let _ = (parts, trailers);
        None
    }

    /// Returns what the body of an answer says, of which [`answer`](Self::answer) has said nothing and whose body was
    /// read whole. A [`BodyJudge`] reads JSON-RPC or GraphQL. Default: `None`, so that the status counts.
    fn body(&self, answer: &Answer<'_>) -> Option<Says> {
        let _ = answer;
        None
    }

    /// Returns what an error of the inner service means; `error` is of that service's error type. An error can't be
    /// replayed, so [`Meaning::Final`] counts as unknown. Default: unknown.
    fn error(&self, error: &dyn Any) -> Meaning {
        let _ = error;
        Meaning::Unknown
    }
}

impl<F, M> Classify for F
where
    F: Fn(&Parts, Option<&HeaderMap>) -> M + Send + Sync + 'static,
    M: Into<Option<Meaning>>,
{
    fn answer(&self, parts: &Parts, trailers: Option<&HeaderMap>) -> Option<Meaning> {
        self(parts, trailers).into()
    }
}

/// A judge of bodies is a classifier: `layer.classify(BodyJudge::graphql())`.
impl Classify for BodyJudge {
    fn body(&self, answer: &Answer<'_>) -> Option<Says> {
        self.judge(answer)
    }
}

/// Returns whether another layer has refused, or has said what became of its operation.
fn is_of_a_layer(parts: &Parts) -> bool {
    parts.extensions.get::<Rejection>().is_some() || lines(&parts.headers, Effect::HEADER).next().is_some()
}

impl Meaning {
    /// Returns what an answer means by default, unless the policy is [`Rerun`](OnInterrupted::Rerun).
    ///
    /// [`guide::meanings`](mod@crate::guide::meanings#what-a-status-means) has the list of statuses, also of gRPC's,
    /// which are in the trailers, or in the head of an answer without a body. What another idempotency layer has
    /// refused, and the handler passes on, is unknown. A 400 whose body says `use_dpop_nonce` is final here, because
    /// only the layer sees the body.
    pub fn of_answer(parts: &Parts, trailers: Option<&HeaderMap>) -> Self {
        if is_of_a_layer(parts) { Self::Unknown } else { Self::of_status(parts, trailers) }
    }

    /// Returns what an answer means that says this; `None` if it is as a 500.
    fn of_says(says: Says) -> Option<Self> {
        match says {
            Says::NotStarted | Says::Unauthenticated | Says::TryLater(_) => Some(Self::NotStarted),
            Says::Done | Says::Refused => Some(Self::Final),
            Says::Failed => None,
            // Also what a later release of the judge may say.
            _ => Some(Self::Unknown),
        }
    }

    /// Returns what the status says.
    fn of_status(parts: &Parts, trailers: Option<&HeaderMap>) -> Self {
        let status = grpc_status(&parts.headers, trailers);
        match status.and_then(|_| of_grpc(parts, trailers)) {
            _ if not_applied::is_unknown(parts.status) => Self::Unknown,
            Some(says) => Self::of_says(says).unwrap_or(Self::Final),
            // In the head of another answer, it is one that was passed on. The answer's own status counts, unless this
            // one is CANCELLED, UNKNOWN or DEADLINE_EXCEEDED.
            None if matches!(status, Some(b"1" | b"2" | b"4")) => Self::Unknown,
            None if not_applied::by_head(parts) => Self::NotStarted,
            None => Self::Final,
        }
    }

    /// Returns what an answer means by default under [`Rerun`](OnInterrupted::Rerun): what
    /// [`of_answer`](Self::of_answer) says, and each 5xx that would be final is unknown, so that a retry runs, as is
    /// gRPC's `INTERNAL`, `UNAVAILABLE` and `DATA_LOSS`.
    pub fn of_answer_under_rerun(parts: &Parts, trailers: Option<&HeaderMap>) -> Self {
        match Self::of_answer(parts, trailers) {
            Self::Final if is_server_error(parts, trailers) => Self::Unknown,
            meaning => meaning,
        }
    }
}

/// Returns what the status of a gRPC answer says.
fn of_grpc(parts: &Parts, trailers: Option<&HeaderMap>) -> Option<Says> {
    BodyJudge::grpc().judge(&Answer::new(parts.status, &parts.headers, &[]).with_trailers(trailers))
}

/// Returns whether the server says that it has failed.
fn is_server_error(parts: &Parts, trailers: Option<&HeaderMap>) -> bool {
    let has_status = || grpc_status(&parts.headers, trailers).is_some();
    parts.status.is_server_error() || has_status() && of_grpc(parts, trailers) == Some(Says::Failed)
}

/// How a run ends, and what its answer says about the operation, unless it is the outcome.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) end: End,
    pub(crate) effect: Option<Effect>,
    /// What the body says of another try, if it says something. Otherwise the status does.
    pub(crate) retry: Option<bool>,
}

/// Says how a run ends, by what its handler produced.
pub(crate) struct Judge<'a> {
    /// The application's classifier; `None` leaves all answers to the defaults of [`Meaning`].
    pub(crate) classify: Option<&'a dyn Classify>,
    /// The profile's judge of bodies, for what the classifier says nothing of.
    pub(crate) body: Option<&'a BodyJudge>,
    /// It chooses between the two defaults.
    pub(crate) on_interrupted: OnInterrupted,
    pub(crate) recorder: &'a Recorder,
    /// What the mark [`Invalid`] says, if it says something.
    pub(crate) invalid: Option<Meaning>,
    /// What a 5xx without a mark means, if it is not what [`Meaning::of_answer`] says.
    pub(crate) server_error: Option<Meaning>,
    /// The statuses that free the key and would be final by [`Meaning::of_answer`].
    pub(crate) frees: &'static [u16],
}

impl Judge<'_> {
    /// Returns the end of a run whose handler failed.
    pub(crate) fn of_error(&self, error: &dyn Any) -> End {
        match self.classify.map(|classify| classify.error(error)) {
            Some(Meaning::NotStarted) => End::Released,
            Some(Meaning::Final | Meaning::Unknown) | None => End::Interrupted { cause: Cause::Failed },
        }
    }

    /// Judges a run whose handler has answered. `body` is what was collected of the answer's body, or `None` if it was
    /// not read.
    pub(crate) fn of_answer<B: Body>(&self, parts: &Parts, body: Option<&Collected<B>>) -> Judged {
        let status = parts.status.as_u16();
        let (whole, trailers) = match body {
            Some(Collected::Whole { data, trailers }) => (Some(data), trailers.as_ref()),
            Some(Collected::Over { .. } | Collected::Failed { .. }) | None => (None, None),
        };
        let unknown = |end| Judged { end, effect: Some(Effect::Unknown), retry: None };
        let mut retry = None;
        let (meaning, is_default) = match (self.of_marks(&parts.extensions), body) {
            (Some(mark), _) => (mark, false),
            (None, body) => {
                let has_failed = matches!(body, Some(Collected::Failed { .. }));
                let is_cut = has_failed || whole.is_some_and(|data| is_cut(parts, data.len(), trailers));
                let says = whole.filter(|_| !is_cut).and_then(|body| self.says(parts, trailers, body));
                retry = match says {
                    Some(Says::TryLater(_)) => Some(true),
                    // The status of an error says by itself whether a retry is of use.
                    _ if !parts.status.is_success() => None,
                    Some(Says::NotStarted | Says::Unauthenticated) => Some(false),
                    _ => None,
                };
                match self.classified(parts, trailers, whole, says) {
                    // What says that nothing was done says so in its head.
                    said @ (Meaning::NotStarted, _) => said,
                    _ if is_cut => return unknown(End::Interrupted { cause: Cause::Broken }),
                    said => said,
                }
            }
        };
        let record = |data| self.recorder.encode(parts.status, &parts.headers, data, trailers);
        match meaning {
            // An answer that was not read to its end is consumed. One whose status says otherwise is final because the
            // application says so: it may have had an effect.
            Meaning::Final => {
                let effect = (!self.is_final(parts, trailers, whole)).then_some(Effect::Unknown);
                Judged { end: whole.map(record).map_or(End::Consumed { status }, End::Outcome), effect, retry: None }
            }
            Meaning::NotStarted => Judged { end: End::Released, effect: Some(Effect::None), retry },
            // A plain error of the server's under `Rerun`: it is unknown, and no reason to look.
            Meaning::Unknown if is_default && Meaning::of_answer(parts, trailers) == Meaning::Final => {
                match self.on_interrupted {
                    OnInterrupted::Rerun => unknown(End::Released),
                    OnInterrupted::Refuse => unknown(End::Interrupted { cause: Cause::Answered(status) }),
                }
            }
            Meaning::Unknown => {
                // The proxy's own answers have another cause than that the service said so.
                let cause = parts.extensions.get().copied().unwrap_or(Cause::Answered(status));
                unknown(End::Interrupted { cause })
            }
        }
    }

    /// Returns what the handler's marks say, if there are any.
    fn of_marks(&self, marks: &Extensions) -> Option<Meaning> {
        // Most answers have no extensions at all.
        if marks.is_empty() {
            None
        } else if marks.get::<Unsure>().is_some() {
            Some(Meaning::Unknown)
        } else if marks.get::<Secret>().is_some() || marks.get::<Keep>().is_some() {
            Some(Meaning::Final)
        } else if marks.get::<Release>().is_some() {
            Some(Meaning::NotStarted)
        } else {
            self.invalid.filter(|_| marks.get::<Invalid>().is_some())
        }
    }

    /// Returns whether an answer is judged by its head alone, so that its body need not be read: it is marked as one
    /// that is not recorded, or is a stream.
    pub(crate) fn needs_no_body(&self, parts: &Parts) -> bool {
        matches!(self.of_marks(&parts.extensions), Some(Meaning::NotStarted | Meaning::Unknown))
            || must_not_be_read(parts)
    }

    /// Returns whether an answer is a stream that its handler has not marked.
    pub(crate) fn is_unmarked_stream(&self, parts: &Parts) -> bool {
        is_stream(parts)
            && parts.status.is_success()
            && self.of_marks(&parts.extensions).is_none()
            && !is_secret(&parts.extensions)
            && !is_of_a_layer(parts)
    }

    /// Returns what the body of an answer without a mark says, unless the classifier has the last word by the head.
    #[inline]
    fn says(&self, parts: &Parts, trailers: Option<&HeaderMap>, body: &Bytes) -> Option<Says> {
        let Self { classify, body: of_profile, .. } = self;
        if classify.is_none() && of_profile.is_none() || is_of_a_layer(parts) {
            return None;
        }
        let answer = Answer::new(parts.status, &parts.headers, body).with_trailers(trailers);
        let of_classify = || classify.and_then(|classify| classify.body(&answer));
        of_classify().or_else(|| of_profile.and_then(|judge| judge.judge(&answer)))
    }

    /// Returns what an answer without a mark means, and whether the default says so, because neither the application's
    /// classifier nor the body, which `says` this, does. `whole` is the body, if that was read to its end.
    fn classified(
        &self,
        parts: &Parts,
        trailers: Option<&HeaderMap>,
        whole: Option<&Bytes>,
        says: Option<Says>,
    ) -> (Meaning, bool) {
        if let Some(classified) = self.classify.and_then(|classify| classify.answer(parts, trailers)) {
            return (classified, false);
        }
        if let Some(said) = says.and_then(Meaning::of_says) {
            return (said, false);
        }
        // What is said by now is that the server failed.
        let has_failed = || says.is_some() || is_server_error(parts, trailers);
        let is_refusing = self.on_interrupted == OnInterrupted::Refuse;
        let of_status = match Meaning::of_answer(parts, trailers) {
            // The body comes before the status: it is as a 500.
            Meaning::NotStarted if says.is_some() => Meaning::Final,
            meaning => meaning,
        };
        let frees = || says.is_none() && self.frees.contains(&parts.status.as_u16());
        let meaning = match (of_status, self.server_error) {
            (Meaning::Final, _) if not_applied::asks_for_nonce(parts, whole) => Meaning::NotStarted,
            (Meaning::Final, _) if frees() => Meaning::NotStarted,
            (Meaning::NotStarted, _) => Meaning::NotStarted,
            (Meaning::Final, _) if !is_refusing && has_failed() => Meaning::Unknown,
            (_, Some(server_error)) if is_refusing && has_failed() => server_error,
            (meaning, _) => meaning,
        };
        (meaning, true)
    }

    /// Returns whether a recorded answer says what became of its operation. One that says that nothing was done, or
    /// that it is unknown, was recorded because the application has said so, and may have had an effect.
    #[inline]
    pub(crate) fn is_final(&self, parts: &Parts, trailers: Option<&HeaderMap>, whole: Option<&Bytes>) -> bool {
        if self.is_plain(parts.status, &parts.headers, trailers) {
            return true;
        }
        let says = whole.and_then(|body| self.says(parts, trailers, body));
        says.and_then(Meaning::of_says).is_none_or(|said| said == Meaning::Final)
            && Meaning::of_status(parts, trailers) == Meaning::Final
            && !not_applied::asks_for_nonce(parts, whole)
    }

    /// Returns whether an answer is a success, and nothing but its status is to be read. Most answers are.
    #[inline]
    pub(crate) fn is_plain(&self, status: StatusCode, headers: &HeaderMap, trailers: Option<&HeaderMap>) -> bool {
        let reads_bodies = self.classify.is_some() || self.body.is_some();
        status.is_success() && !reads_bodies && grpc_status(headers, trailers).is_none()
    }
}

/// Returns whether nothing of an answer is read: it is a stream, or shows a secret.
pub(crate) fn must_not_be_read(parts: &Parts) -> bool {
    is_stream(parts) || is_secret(&parts.extensions)
}

/// Returns whether an answer goes on for as long as the client reads it.
fn is_stream(parts: &Parts) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    let event_stream =
        |value: &HeaderValue| value.as_bytes().get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME));
    parts.status == StatusCode::SWITCHING_PROTOCOLS
        || lines(&parts.headers, CONTENT_TYPE).next().is_some_and(event_stream)
}
