//! What each profile expects of a server, and where it says so.

/// The rules that a check may concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A retry gets the result of the first request, and has no effect of its own.
    Retry,
    /// A request that comes while the first one runs.
    InFlight,
    /// The key belongs to another request.
    Reused,
    /// Whose a key is.
    Scope,
    /// A request without a key, where one is required.
    Missing,
    /// How a key is written.
    Syntax,
    /// What becomes of errors.
    Errors,
    /// How long a key is remembered.
    Retention,
    /// The answer repeats the key.
    Echo,
    /// How an answer says that it is a replay.
    Marker,
    /// How a client looks without running anything.
    Probe,
    /// The rules of HTTP, which hold in each profile: what a request is for; what a connection carries; fields.
    Target,
    Connection,
    Fields,
    /// Under which `id` a call of JSON-RPC is answered.
    Id,
}

/// A profile, as a client sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    pub(crate) name: &'static str,
    pub(crate) is_key_required: bool,
    pub(crate) does_echo: bool,
    /// Whether the same key on another path is another operation.
    pub(crate) is_key_per_path: bool,
    /// Whether keys are UUIDs of version 7, in either case.
    pub(crate) are_keys_uuids: bool,
    /// Whether a replay has the headers of the first answer, besides status and body.
    pub(crate) replays_headers: bool,
    /// Whether a replay's body may show what has changed since.
    pub(crate) may_show_newer: bool,
    /// Whether JSON is compared by its meaning.
    pub(crate) compares_meaning: bool,
    /// The status of a key that belongs to another request.
    pub(crate) reused: u16,
    /// The code that a body says then.
    pub(crate) reused_code: Option<&'static str>,
    /// The status of a request whose first copy still runs.
    pub(crate) in_flight: u16,
    pub(crate) in_flight_code: Option<&'static str>,
    pub(crate) missing_code: Option<&'static str>,
    /// Whether a 500 is an outcome, which is replayed.
    pub(crate) replays_500: Option<bool>,
    /// The name of the document, and the paragraph of each rule.
    document: &'static str,
    paragraphs: fn(Rule) -> &'static str,
}

const DRAFT: Dialect = Dialect {
    name: "draft",
    is_key_required: false,
    does_echo: false,
    is_key_per_path: false,
    are_keys_uuids: false,
    replays_headers: true,
    may_show_newer: false,
    compares_meaning: false,
    reused: 422,
    reused_code: None,
    in_flight: 409,
    in_flight_code: None,
    missing_code: None,
    replays_500: None,
    document: "draft-ietf-httpapi-idempotency-key-header-07",
    paragraphs: |rule| match rule {
        Rule::Retry => "section 2.6: a retry gets the result of the completed operation, success or error",
        Rule::InFlight => "section 2.7: 409 while the original request is being processed",
        Rule::Reused => "sections 2.2 and 2.7: 422 for a key that is reused with another payload",
        Rule::Scope => "section 5: keys are looked up together with who asks, so that no client reads another's answer",
        Rule::Missing => "section 2.7: 400 if the header is missing where it is required",
        Rule::Syntax => "section 2.1: the value is a String of structured fields (RFC 9651)",
        Rule::Errors => {
            "section 2.6: the result may be an error; section 2.7 leaves other errors to the API's documentation"
        }
        Rule::Retention => "section 2.3: the expiry is published",
        _ => "answers repeat the key",
    },
};

const STRIPE: Dialect = Dialect {
    name: "stripe",
    does_echo: true,
    replays_headers: false,
    reused: 400,
    reused_code: Some("idempotency_error"),
    in_flight_code: Some("idempotency_key_in_use"),
    replays_500: Some(true),
    document: "docs.stripe.com, \"Idempotent requests\" and \"Errors\"",
    paragraphs: |rule| match rule {
        Rule::Retry => "the status and the body of the first request are saved, and subsequent requests get them",
        Rule::InFlight => {
            "409 idempotency_key_in_use; nothing is saved for a request that conflicts with one under way"
        }
        Rule::Reused => "parameters that differ from those of the first request are an error of type idempotency_error",
        Rule::Scope => "keys belong to an account",
        Rule::Missing => "a key is not required",
        Rule::Syntax => "a key has up to 255 characters",
        Rule::Errors => "a result is saved whether it succeeds or fails, 500 included; validation errors are not saved",
        Rule::Retention => "a key may be removed once it is at least 24 hours old",
        _ => "answers repeat the key",
    },
    ..DRAFT
};

const ACP: Dialect = Dialect {
    name: "acp",
    is_key_required: true,
    does_echo: true,
    is_key_per_path: true,
    compares_meaning: true,
    reused_code: Some("idempotency_conflict"),
    in_flight_code: Some("idempotency_in_flight"),
    missing_code: Some("idempotency_key_required"),
    replays_500: Some(false),
    document: "Agentic Commerce Protocol, RFC agentic checkout",
    paragraphs: |rule| match rule {
        Rule::Retry => "section 6.3: the original response with the same status, and no side effect again",
        Rule::InFlight => "section 6.4: 409 idempotency_in_flight with Retry-After in seconds",
        Rule::Reused => {
            "sections 6.2 and 6.4: 422 idempotency_conflict for another body; JSON is compared by its meaning"
        }
        Rule::Scope => "section 6.1: a key belongs to the authenticated identity and the path",
        Rule::Missing => "section 6.1: 400 idempotency_key_required",
        Rule::Syntax => "section 6.1: an opaque string of at most 255 characters",
        Rule::Errors => "section 6.5: a 5xx is never stored",
        Rule::Retention => "section 6.6: at least 24 hours",
        _ => "section 3.1: Idempotency-Key is repeated on each answer to a POST",
    },
    ..DRAFT
};

const ICEBERG: Dialect = Dialect {
    name: "iceberg",
    are_keys_uuids: true,
    replays_headers: false,
    may_show_newer: true,
    in_flight: 503,
    replays_500: Some(false),
    document: "Apache Iceberg, REST catalog, OpenAPI document",
    paragraphs: |rule| match rule {
        Rule::Retry => {
            "parameter idempotency-key: no additional effects, and an equivalent final response, whose body may reflect \
             a newer state"
        }
        Rule::InFlight => {
            "operation updateTable and response ServiceUnavailableResponse: a 409 is a failed commit, and a 503 is \
             repeated only with Retry-After"
        }
        Rule::Reused => "parameter idempotency-key: no reuse across different operations",
        Rule::Scope => "parameter idempotency-key: keys are globally unique",
        Rule::Missing => "parameter idempotency-key: a key is not required",
        Rule::Syntax => "parameter idempotency-key: a UUIDv7 in string form (RFC 9562), which has no case (section 4)",
        Rule::Errors => {
            "parameter idempotency-key: 200, 201, 204 and deterministic terminal 4xx are replayed, and no 5xx is"
        }
        Rule::Retention => {
            "schema CatalogConfig, idempotency-key-lifetime: retries are accepted for at least this time"
        }
        _ => "answers repeat the key",
    },
    ..DRAFT
};

/// A refusal is an error of JSON-RPC under 200, because the official SDKs hide others from their caller.
const MCP: Dialect = Dialect {
    name: "mcp",
    replays_headers: false,
    reused: 200,
    in_flight: 200,
    document: "Model Context Protocol, revisions 2025-06-18 and 2026-07-28; no document says how a call has a key",
    paragraphs: |rule| match rule {
        Rule::Retry => {
            "ToolAnnotations, idempotentHint: calling the tool repeatedly with the same arguments has no additional effect"
        }
        Rule::InFlight => "a call that comes while the first one runs waits for it, or is an error that says so",
        Rule::Reused => "a key with other arguments is an error, and no result",
        Rule::Scope => "section \"Session Management\" and security: what one user has is not another's",
        Rule::Errors => "CallToolResult, isError: an error of the tool is a result",
        Rule::Retention => "the server says how long it keeps keys",
        _ => "a key is a text of up to 255 characters",
    },
    ..DRAFT
};

impl Dialect {
    /// The profiles.
    pub(crate) const ALL: [Self; 5] = [DRAFT, STRIPE, ACP, ICEBERG, MCP];

    /// Whether a tool is called.
    pub(crate) fn is_of_tools(&self) -> bool {
        self.name == MCP.name
    }

    /// A key that was never used.
    pub(crate) fn new_key(&self) -> String {
        let uuid = if self.are_keys_uuids { uuid::Uuid::now_v7() } else { uuid::Uuid::new_v4() };
        uuid.to_string()
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name == name)
    }

    /// The profiles of these names, which head the columns of a table.
    #[cfg(test)]
    pub(crate) fn columns<const N: usize>(names: [&str; N]) -> [Self; N] {
        names.map(|name| Self::named(name).unwrap())
    }

    /// Where the profile says a rule, and what.
    pub(crate) fn paragraph(&self, rule: Rule) -> String {
        let of_all = match rule {
            Rule::Marker => {
                "no document asks for it; `Idempotent-Replayed: true` is Stripe's header, and the commonest"
            }
            Rule::Probe => "no document asks for it; the server's own description says that it answers probes",
            Rule::Target => "RFC 9110, sections 7.1 and 9.1: method and target, its query included, say what is asked",
            Rule::Connection => "RFC 9112, section 9.3: a connection of HTTP/1.1 goes on unless one side says `close`",
            Rule::Id => "JSON-RPC 2.0, section 5: the `id` of an answer is that of its request",
            Rule::Fields => "RFC 9110: Date (section 6.6.1), fields of one connection (7.6.1), Content-Length (8.6)",
            rule => return format!("{}: {}", self.document, (self.paragraphs)(rule)),
        };
        of_all.to_owned()
    }
}
