//! Profiles: what the clients of an API expect of its idempotency keys, as one value.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use http::{Response, StatusCode};
use tower_idempotency_meaning::BodyJudge;

use super::answer::meaning::Meaning;
use super::answer::snapshot::REPLAYED;
use super::fingerprint::identify::FingerprintBody;
use super::header::KeyForm;
use super::key_from::KeyFrom;
use super::reject::envelope;
use super::reject::rejection::{Rejection, RejectionKind, Row};
use super::rpc::calls::RpcCalls;

/// What the clients of an API expect of its idempotency keys: statuses, codes, headers, and which requests are the
/// same.
///
/// [`draft`](Self::draft) is the default, [`stripe`](Self::stripe), [`acp`](Self::acp) and [`iceberg`](Self::iceberg)
/// are those of widespread APIs. Change the fields of one of them for a dialect of your own:
/// ```
/// use http::{HeaderName, StatusCode};
/// use tower_idempotency::server::Profile;
/// use tower_idempotency::{IdempotencyLayer, MemoryStore, RejectionKind};
///
/// let mut acme = Profile::stripe();
/// acme.name = "acme";
/// acme.require_key = true;
/// acme.codes = &[(RejectionKind::KeyReused, StatusCode::CONFLICT, "duplicate_request")];
/// let layer = IdempotencyLayer::new(MemoryStore::new()).profile(acme);
/// ```
/// [`guide::profiles`](mod@crate::guide::profiles) compares the four.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Profile {
    /// The name by which [`well_known`](crate::IdempotencyLayer::well_known) tells clients which profile it is.
    pub name: &'static str,
    /// Whether covered requests without a key are refused. It sets the option
    /// [`require_key`](crate::IdempotencyLayer::require_key).
    pub require_key: bool,
    /// Whether the layer's answers to covered requests repeat the key, as the client has sent it. What is answered
    /// outside of the layer does not, nor does an error of the inner service.
    pub echo_key: bool,
    /// Whether the same key on another path is another operation. If not, it is a reused key. Paths are compared byte
    /// by byte. **A change of this makes other records**: a retry of a request from before the change runs again. Wait
    /// for the retention in between, or give the layer another store or [`scope`](crate::IdempotencyLayer::scope).
    pub key_per_path: bool,
    /// How bodies are compared. It sets the option [`fingerprint_body`](crate::IdempotencyLayer::fingerprint_body).
    pub fingerprint_body: FingerprintBody,
    /// The rejections that have a status and a code of their own. All others have the status that
    /// [`problem`](crate::problem) names, and their slug as code, with `_` for `-`.
    pub codes: &'static [(RejectionKind, StatusCode, &'static str)],
    /// The form of rejections. [`render_rejection`](crate::IdempotencyLayer::render_rejection) comes before it.
    pub envelope: Envelope,
    /// The header that marks a replay. It sets the option
    /// [`replay_header_name`](crate::IdempotencyLayer::replay_header_name).
    pub replay_header: HeaderName,
    /// The header by which rejections and replayed errors say whether the same request may get another answer: `true`
    /// or `false`.
    pub retry_header: Option<HeaderName>,
    /// What a 5xx means that its handler has not marked, and for which
    /// [`classify`](crate::IdempotencyLayer::classify) returns `None`, unless the policy is
    /// [`Rerun`](crate::OnInterrupted::Rerun). `None`: what [`Meaning::of_answer`] says.
    pub server_error: Option<Meaning>,
    /// The statuses of an unmarked answer by which the clients know that nothing was done, besides those that
    /// [say so everywhere](mod@crate::guide::meanings#what-a-status-means): they free the key, unless
    /// [`classify`](crate::IdempotencyLayer::classify) says otherwise. Those that are unknown there, such as 502, stay
    /// unknown.
    pub frees: &'static [u16],
    /// Which requests have keys, where they are calls of JSON-RPC. `None`: they are none. If set, answers of the
    /// layer's own have the `id` of the call, and [`key_from`](Self::key_from) has to be set, too.
    pub calls: Option<RpcCalls>,
    /// Where bodies have their keys. It sets the option [`key_from`](crate::IdempotencyLayer::key_from).
    pub key_from: Option<KeyFrom>,
    /// The longest time of a stream that is recorded. It sets the option
    /// [`max_stream`](crate::IdempotencyLayer::max_stream).
    pub max_stream: Duration,
    /// What reads the bodies of answers whose handler has not marked them, and of which
    /// [`classify`](crate::IdempotencyLayer::classify) says nothing. `None`: their status counts.
    pub judge: Option<BodyJudge>,
    /// The form of keys. A key of another form is refused. **A change of this may make other records**: a retry of a
    /// request from before the change may run again.
    pub key_form: KeyForm,
    /// What an answer means that is marked as [`Invalid`](crate::Invalid). [`Meaning::NotStarted`] frees the key for
    /// the corrected request. `None`: what it means without the mark.
    pub invalid: Option<Meaning>,
    /// The least [`retention`](crate::IdempotencyLayer::retention) that the profile's clients count on. A shorter one
    /// that is set is raised to it, as is a shorter
    /// [`interrupted_retention`](crate::IdempotencyLayer::interrupted_retention).
    pub min_retention: Duration,
}

/// The places of keys in calls of JSON-RPC, as protocols name them: the arguments of the Agentic Commerce Protocol, the
/// Universal Commerce Protocol and the Ad Context Protocol, which are all that a model sets; MCP's `_meta`; and the
/// closed proposal SEP-3182. A refusal names them in this order.
const KEYS: [&str; 8] = [
    "/params/arguments/idempotency_key",
    "/params/arguments/idempotencyKey",
    "/params/_meta/idempotencyKey",
    "/params/_meta/idempotency_key",
    "/params/_meta/idempotency-key",
    "/params/idempotencyKey",
    "/params/arguments/meta/idempotency_key",
    "/params/arguments/meta/idempotency-key",
];

/// What may be new in each attempt of a call.
const NEW_EACH_TIME: [&str; 9] = [
    "/id",
    "/params/_meta/progressToken",
    "/params/_meta/traceparent",
    "/params/_meta/tracestate",
    "/params/_meta/baggage",
    // Of MCP's client, which may be updated between two attempts.
    "/params/_meta/io.modelcontextprotocol~1protocolVersion",
    "/params/_meta/io.modelcontextprotocol~1clientInfo",
    "/params/_meta/io.modelcontextprotocol~1clientCapabilities",
    "/params/_meta/io.modelcontextprotocol~1logLevel",
];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A 503 and a 500 leave an Iceberg client's commit unknown, and a 503 with `Retry-After` has it try again by itself.
const ICEBERG_CODES: &[Row] = &[
    (RejectionKind::KeyMissing, StatusCode::BAD_REQUEST, "BadRequestException"),
    (RejectionKind::KeyMalformed, StatusCode::BAD_REQUEST, "BadRequestException"),
    (RejectionKind::KeyReused, StatusCode::UNPROCESSABLE_ENTITY, "IdempotencyKeyReusedException"),
    (RejectionKind::CredentialsChanged, StatusCode::UNPROCESSABLE_ENTITY, "IdempotencyCredentialsChangedException"),
    // After a 400, a client deletes the files of its commit, of which an earlier try may be under way.
    (RejectionKind::BodyIncomplete, StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException"),
    (RejectionKind::InFlight, StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException"),
    (RejectionKind::StoreUnavailable, StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException"),
    (RejectionKind::StoreFull, StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException"),
    (RejectionKind::Overloaded, StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException"),
    (RejectionKind::ShuttingDown, StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException"),
    (RejectionKind::OutcomeUnknown, StatusCode::INTERNAL_SERVER_ERROR, "CommitStateUnknownException"),
    (RejectionKind::NotReplayable, StatusCode::INTERNAL_SERVER_ERROR, "CommitStateUnknownException"),
    (RejectionKind::NotVerifiable, StatusCode::INTERNAL_SERVER_ERROR, "CommitStateUnknownException"),
];

impl Profile {
    /// The default: draft-ietf-httpapi-idempotency-key-header, with rejections as problem details (RFC 9457).
    #[must_use]
    pub fn draft() -> Self {
        Self {
            name: "draft",
            require_key: false,
            echo_key: false,
            key_per_path: false,
            fingerprint_body: FingerprintBody::Bytes,
            codes: &[],
            envelope: Envelope::Problem,
            replay_header: REPLAYED,
            retry_header: None,
            server_error: None,
            frees: &[],
            calls: None,
            key_from: None,
            max_stream: Duration::ZERO,
            judge: None,
            key_form: KeyForm::Any,
            invalid: None,
            min_retention: Duration::ZERO,
        }
    }

    /// That of Stripe's API v1, whose official clients work with it as they are.
    ///
    /// A reused key is a 400 `idempotency_error`, as is a key of other credentials. A request in flight is a 409
    /// `idempotency_key_in_use`. `stripe-should-retry` says whether a retry helps. Validation errors free the key. As
    /// with Stripe, a 500 is an outcome, and is replayed.
    #[must_use]
    pub fn stripe() -> Self {
        Self {
            name: "stripe",
            echo_key: true,
            codes: &[
                (RejectionKind::KeyReused, StatusCode::BAD_REQUEST, "idempotency_key_reused"),
                (RejectionKind::CredentialsChanged, StatusCode::BAD_REQUEST, "credentials_changed"),
                (RejectionKind::InFlight, StatusCode::CONFLICT, "idempotency_key_in_use"),
            ],
            envelope: Envelope::Stripe,
            retry_header: Some(HeaderName::from_static("stripe-should-retry")),
            invalid: Some(Meaning::NotStarted),
            min_retention: DAY,
            ..Self::draft()
        }
    }

    /// That of the Agentic Commerce Protocol (agentic checkout, section 6).
    ///
    /// **It deviates in one rule.** A 5xx without a mark is unknown, where the protocol lets the retry run.
    /// [`guide::profiles`](mod@crate::guide::profiles) says why, and how to follow the protocol.
    ///
    /// Set a [`scope`](crate::IdempotencyLayer::scope): the protocol gives each authenticated identity its own keys.
    /// What names the endpoint, host and query, has to be the same in a retry, as has the media type.
    #[must_use]
    pub fn acp() -> Self {
        Self {
            name: "acp",
            require_key: true,
            echo_key: true,
            key_per_path: true,
            fingerprint_body: FingerprintBody::CanonicalJson,
            codes: &[
                (RejectionKind::KeyMissing, StatusCode::BAD_REQUEST, "idempotency_key_required"),
                (RejectionKind::KeyReused, StatusCode::UNPROCESSABLE_ENTITY, "idempotency_conflict"),
                (RejectionKind::InFlight, StatusCode::CONFLICT, "idempotency_in_flight"),
            ],
            envelope: Envelope::Flat,
            server_error: Some(Meaning::Unknown),
            min_retention: DAY,
            ..Self::draft()
        }
    }

    /// That of Apache Iceberg's REST catalog: parameter `idempotency-key` of its OpenAPI document.
    ///
    /// Keys are UUIDs of version 7. No 5xx is replayed, and a 419 frees the key. No refusal is a 409: a client takes it
    /// for a failed commit, and deletes the files of one that may still take place.
    ///
    /// **It deviates in one rule.** A 5xx without a mark is unknown, where the specification lets the retry run.
    /// [`guide::profiles`](mod@crate::guide::profiles#the-rest-catalog-of-apache-iceberg) says why, which
    /// [`methods`](crate::IdempotencyLayer::methods) to cover, and how the config answer says the retention.
    #[must_use]
    pub fn iceberg() -> Self {
        Self {
            name: "iceberg",
            codes: ICEBERG_CODES,
            envelope: Envelope::Iceberg,
            server_error: Some(Meaning::Unknown),
            frees: &[419],
            key_form: KeyForm::UuidV7,
            ..Self::draft()
        }
    }

    /// That of JSON-RPC 2.0 over HTTP: each call may have a key, in the header or in one of the places that protocols
    /// name: see [`guide::agents`](mod@crate::guide::agents). Two calls are the same if their method and their
    /// parameters are, without the key, the `id` and what is new in each attempt.
    #[must_use]
    pub fn json_rpc() -> Self {
        let place = |pointer: &&str| KeyFrom::json_pointer(pointer).ok();
        let without = FingerprintBody::json_without(KEYS.into_iter().chain(NEW_EACH_TIME));
        Self {
            name: "json-rpc",
            calls: Some(RpcCalls::All),
            key_from: Some(KeyFrom::any_of(KEYS.iter().filter_map(place))),
            fingerprint_body: without.unwrap_or(FingerprintBody::CanonicalJson),
            envelope: Envelope::JsonRpc,
            judge: Some(BodyJudge::json_rpc()),
            ..Self::draft()
        }
    }

    /// That of tools over MCP, for the streamable HTTP transport: as [`json_rpc`](Self::json_rpc), but only calls of
    /// tools have keys, and a `text/event-stream` that answers one within 9 minutes is recorded. All other messages
    /// are passed on, also under [`require_key`](crate::IdempotencyLayer::require_key).
    #[must_use]
    pub fn mcp() -> Self {
        // Less than `max_run`, so that a longer stream is passed on, and not cut.
        let max_stream = Duration::from_secs(9 * 60);
        // Servers refuse so what is no call to them, such as one of a session that they have forgotten, and some of
        // them without JSON-RPC. With another head, or in another session, the same call runs.
        let frees = BodyJudge::UNREAD;
        Self { name: "mcp", calls: Some(RpcCalls::Tools), max_stream, frees, ..Self::json_rpc() }
    }

    /// Gives a rejection the status and the code that the profile has for its kind.
    pub(super) fn name(&self, rejection: &mut Rejection) {
        // After a 4xx, an Iceberg client deletes the files of its commit, which took place before this replay.
        let is_done = rejection.original_status.is_some() && !rejection.retry_with_same_key;
        let kind = match (&self.envelope, rejection.kind) {
            (Envelope::Iceberg, RejectionKind::Custom) if is_done => RejectionKind::NotReplayable,
            (_, kind) => kind,
        };
        rejection.row = self.codes.iter().find(|(of, ..)| *of == kind);
        rejection.status = rejection.row.map_or(rejection.status, |(_, status, _)| *status);
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::draft()
    }
}

/// The form of a rejection.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Envelope {
    /// Problem details (RFC 9457): see [`problem`](crate::problem).
    Problem,
    /// Problem details with a member `error` in the form of Stripe's API: an object with `type`, `code` and `message`.
    Stripe,
    /// An object with `type`, `code` and `message`, as the Agentic Commerce Protocol has it.
    Flat,
    /// An object `error` with `message`, `type` and, as `code`, the status, as Apache Iceberg's REST catalog has it.
    Iceberg,
    /// An error of JSON-RPC 2.0, whose `data` has the members of the problem, `effect` and `retry_after` in seconds. If
    /// the call is known, it has the call's `id`, and the status is 200: clients take any other status for a failure of
    /// the transport.
    JsonRpc,
    /// What a function makes of the rejection, with `Retry-After` and `Idempotency-Effect` in the head.
    Custom(fn(&Rejection) -> Response<Bytes>),
}

impl Envelope {
    /// Renders a rejection in this form: what a [`render_rejection`](crate::IdempotencyLayer::render_rejection) of your
    /// own can start from.
    #[must_use]
    pub fn render(&self, rejection: &Rejection) -> Response<Bytes> {
        match self {
            Self::Problem => rejection.render(),
            Self::Stripe => envelope::stripe(rejection),
            Self::Flat => envelope::flat(rejection),
            Self::Iceberg => envelope::iceberg(rejection),
            Self::JsonRpc => envelope::json_rpc(rejection),
            Self::Custom(render) => {
                let mut response = render(rejection);
                rejection.say(response.headers_mut());
                response
            }
        }
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Problem => "Problem",
            Self::Stripe => "Stripe",
            Self::Flat => "Flat",
            Self::Iceberg => "Iceberg",
            Self::JsonRpc => "JsonRpc",
            Self::Custom(_) => "Custom",
        })
    }
}
