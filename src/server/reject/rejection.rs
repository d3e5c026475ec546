//! A rejection: the kinds there are, and how one reads as an answer (RFC 9457).
//!
//! The module `reasons.rs` decides when a request is rejected, and with which words.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LINK, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;

use crate::engine::{Stats, name};
use crate::key::{EmptyScope, RecordId};
use crate::record::Origin;
use crate::server::effect::Effect;
use crate::slots::REFUSALS;

/// Defines the kinds by rows. Each row has a kind's slug, the status that its rejections have by default, what they say
/// about the operation, and its title. The order of the rows is the order of the counts in the telemetry, which no
/// store keeps.
macro_rules! kinds {
    ($($kind:ident, $slug:expr, $status:ident, $effect:ident, $title:literal;)*) => {
        /// The kind of a rejection. Its [`slug`](Self::slug) ends the problem's `type`; each is described in
        /// [`problem`](crate::problem).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "each is described, once, in the module `problem`")]
        pub enum RejectionKind {
            $($kind,)*
            /// The application's own, from its function `scope` or `on_replay`; or the layer's, of a method in other
            /// letters than a covered one.
            Custom,
        }

        impl RejectionKind {
            /// All but `Custom`.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Returns the slug, the default status, the default effect and the title.
            const fn row(self) -> (&'static str, StatusCode, Effect, &'static str) {
                match self {
                    $(Self::$kind => ($slug, StatusCode::$status, Effect::$effect, $title),)*
                    // The application says status and title in `Rejection::custom`. It refuses before a run.
                    Self::Custom => ("custom", StatusCode::INTERNAL_SERVER_ERROR, Effect::None, ""),
                }
            }
        }
    };
}

kinds! {
    KeyMissing, "key-missing", BAD_REQUEST, None, "The idempotency key is missing";
    KeyMalformed, "key-malformed", BAD_REQUEST, None, "The idempotency key is malformed";
    BodyTooLarge, "body-too-large", PAYLOAD_TOO_LARGE, None, "The request body is too large";
    BodyIncomplete, "body-incomplete", BAD_REQUEST, None, "The request body is incomplete";
    StoreUnavailable, name::STORE_UNAVAILABLE, SERVICE_UNAVAILABLE, None, "The store is unavailable";
    StoreFull, name::STORE_FULL, SERVICE_UNAVAILABLE, None, "The store is full";
    Overloaded, name::OVERLOADED, SERVICE_UNAVAILABLE, None, "The server is overloaded";
    ShuttingDown, name::SHUTTING_DOWN, SERVICE_UNAVAILABLE, None, "The server is shutting down";
    KeyReused, name::KEY_REUSED, UNPROCESSABLE_ENTITY, Unknown, "The idempotency key was used before";
    CredentialsChanged, name::CREDENTIALS_CHANGED, UNPROCESSABLE_ENTITY, Unknown, "The idempotency key was used with other credentials";
    NotVerifiable, name::NOT_VERIFIABLE, CONFLICT, Unknown, "The request can't be compared with the recorded one";
    NotFound, "not-found", NOT_FOUND, Unknown, "The idempotency key is not known";
    InFlight, name::IN_FLIGHT, CONFLICT, Pending, "The request is in flight";
    NotReplayable, name::NOT_REPLAYABLE, CONFLICT, Done, "The answer can't be replayed";
    OutcomeUnknown, name::OUTCOME_UNKNOWN, CONFLICT, Unknown, "The outcome is unknown";
}

impl RejectionKind {
    /// The stable name of the problem: the last part of its `type`.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        self.row().0
    }

    /// The index of its count in the store's telemetry.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

// The telemetry has a count for each kind.
const _: () = assert!(RejectionKind::Custom.index() < REFUSALS);

impl Stats {
    /// Requests refused by a layer with this kind of rejection.
    #[must_use]
    pub fn refused(&self, kind: RejectionKind) -> u64 {
        self.refused[kind.index()]
    }
}

/// Status and code that a profile has for a kind of rejection.
pub(crate) type Row = (RejectionKind, StatusCode, &'static str);

/// A rejection: why a request was not run and not answered from a record. The answer's extensions have it, for layers
/// outside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// The kind of rejection.
    pub kind: RejectionKind,
    /// The answer's status.
    pub status: StatusCode,
    /// What the answer says about the operation.
    pub effect: Effect,
    /// The kind in a few words, which don't change.
    pub title: &'static str,
    /// A text that says what happened this time, and what to do.
    pub detail: String,
    /// `true` if the same request with the same key may be answered otherwise later. If not, the detail says whether a
    /// new key is safe.
    pub retry_with_same_key: bool,
    /// After which time to try again. `Retry-After` says it in whole seconds, rounded up, and at least 1.
    pub retry_after: Option<Duration>,
    /// The status of the answer that could not be stored, or is not kept any longer.
    pub original_status: Option<StatusCode>,
    /// The operation, if an operator can settle it. The answer has its [first eight hex digits](RecordId::short), as
    /// logs do, so that a client's ticket can be matched with them.
    pub record_id: Option<RecordId>,
    // The origin of that operation.
    pub(crate) origin: Origin,
    // The layer sets both when it rejects a request.
    pub(crate) problem_base: Option<Arc<String>>,
    pub(crate) row: Option<&'static Row>,
}

/// The members of an RFC 9457 problem, ours included.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    retry_with_same_key: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
}

impl Rejection {
    /// The base of the problem types' addresses, unless [`problem_base`](crate::IdempotencyLayer::problem_base) sets
    /// another one.
    pub const PROBLEM_BASE: &'static str =
        "https://docs.rs/tower-idempotency/latest/tower_idempotency/problem/index.html#";

    /// What a rejection says that has no words of its own.
    pub(crate) const NOTHING_WAS_DONE: &'static str = "Nothing was done.";

    /// Creates a rejection after which a retry with the same key is of no use; the methods below change that.
    pub(crate) fn new(kind: RejectionKind, detail: impl Into<String>) -> Self {
        let (_, status, effect, title) = kind.row();
        Self {
            kind,
            status,
            effect,
            title,
            detail: detail.into(),
            retry_with_same_key: false,
            retry_after: None,
            original_status: None,
            record_id: None,
            origin: Origin::default(),
            problem_base: None,
            row: None,
        }
    }

    /// A rejection of the application's own, for its `scope` function: 401 for a request that names no account, say. It
    /// says that nothing was done; set [`effect`](Self::effect) where that is not so. Of one for
    /// [`on_replay`](crate::IdempotencyLayer::on_replay), the layer says that the operation was done.
    #[must_use]
    pub fn custom(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, ..Self::new(RejectionKind::Custom, detail) }
    }

    /// The value of `Retry-After`. After 0 seconds a client would try again at once.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        let rounded_up = |pause: Duration| pause.as_secs().saturating_add(u64::from(pause.subsec_nanos() > 0));
        self.retry_after.map(|pause| rounded_up(pause).max(1))
    }

    /// Notes that the same request may be tried again with the same key. The detail stays as it is.
    pub(crate) fn same_key(mut self) -> Self {
        self.retry_with_same_key = true;
        self
    }

    /// Returns the same rejection, of a probe. That nothing was done for the probe says nothing of the operation.
    pub(crate) fn of_probe(self) -> Self {
        if self.effect != Effect::None {
            return self;
        }
        let detail = self.detail.replace("Nothing was done; try", "Try").replace(Self::NOTHING_WAS_DONE, "");
        let detail = format!("{} This does not say what became of the operation.", detail.trim());
        Self { effect: Effect::Unknown, detail: detail.trim_start().to_owned(), ..self }
    }

    /// Names the operation, which only an operator can settle. This is for a request that is known to be the
    /// operation's own, or whose answer is the same for every request with its key.
    pub(crate) fn for_the_operator(mut self, id: &RecordId) -> Self {
        self.record_id = Some(*id);
        self
    }

    /// Gives the rejection the origin of that operation. Only a request with the same fingerprint gets it.
    pub(crate) fn of(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// Returns the [label](crate::IdempotencyLayer::label) of the operation that an operator can settle, if it has one.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.origin.label()
    }

    /// Sets the pause before the next try, which may have the same key.
    pub(crate) fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(Duration::from_secs(seconds));
        self.same_key()
    }

    /// The beginning of the problem's `type`, as the layer has it set.
    #[must_use]
    pub fn problem_base(&self) -> &str {
        self.problem_base.as_ref().map_or(Self::PROBLEM_BASE, |base| base.as_str())
    }

    /// The code of the rejection in the layer's [`Profile`](crate::server::Profile), or else its slug with `_` for `-`.
    /// A custom rejection has that of its status, such as `unauthorized`.
    #[must_use]
    pub fn code(&self) -> Cow<'static, str> {
        if let Some((.., code)) = self.row {
            return Cow::Borrowed(code);
        }
        match self.status.canonical_reason() {
            Some(reason) if self.kind == RejectionKind::Custom => reason.to_lowercase().replace([' ', '-'], "_").into(),
            _ => self.kind.slug().replace('-', "_").into(),
        }
    }

    /// The problem's `type`: the base and the slug.
    #[must_use]
    pub fn type_uri(&self) -> String {
        [self.problem_base(), self.kind.slug()].concat()
    }

    /// The problem's members as JSON: what a hook of your own can start from.
    #[must_use]
    pub fn problem(&self) -> serde_json::Value {
        // Texts and numbers can always be written as JSON.
        serde_json::to_value(self.members(&self.type_uri())).unwrap_or_default()
    }

    fn members<'a>(&'a self, r#type: &'a str) -> Problem<'a> {
        Problem {
            r#type,
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            retry_with_same_key: self.retry_with_same_key,
            original_status: self.original_status.map(|status| status.as_u16()),
            record_id: self.record_id.as_ref().map(RecordId::short),
            label: self.label(),
        }
    }

    /// The answer: `application/problem+json`, with a `Link` to its description, `Idempotency-Effect`, and
    /// `Retry-After` where that helps.
    #[must_use]
    pub fn render(&self) -> Response<Bytes> {
        // The `type`, and around it what makes it a `Link`.
        let link = ["<", self.problem_base(), self.kind.slug(), ">; rel=\"describedby\""].concat();
        let uri = &link[1..=self.problem_base().len() + self.kind.slug().len()];
        // Most problems have room in it. Texts and numbers can always be written as JSON.
        let mut body = Vec::with_capacity(1024);
        let _is_written = serde_json::to_writer(&mut body, &self.members(uri));
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // A base that no header can have leaves the `Link` out. The body has the `type` in any case.
        if let Ok(link) = HeaderValue::try_from(link) {
            headers.insert(LINK, link);
        }
        self.say(headers);
        response
    }

    /// Says in the head of an answer, in whatever form, when to try again and what the rejection says about the
    /// operation.
    pub(crate) fn say(&self, headers: &mut HeaderMap) {
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        self.effect.say(headers, Some(self.retry_with_same_key), self.original_status);
    }
}

/// A [custom](Rejection::custom) rejection with the status's own words.
impl From<StatusCode> for Rejection {
    fn from(status: StatusCode) -> Self {
        let title = status.canonical_reason().unwrap_or("The request is rejected");
        Self::custom(status, title, Self::NOTHING_WAS_DONE)
    }
}

/// 401: the request has not been authenticated where the [`scope`](crate::IdempotencyLayer::scope) needs it.
impl From<EmptyScope> for Rejection {
    fn from(empty: EmptyScope) -> Self {
        Self::custom(StatusCode::UNAUTHORIZED, "The request names no principal", empty.to_string())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.slug(), self.detail)
    }
}

impl std::error::Error for Rejection {}
