//! What is examined, and within which limits.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use tower_idempotency_meaning::BodyJudge;

use crate::dialect::Dialect;
use crate::http::address::{Address, AddressError};
use crate::http::message::Message;
use crate::mcp::Tool;
use tool::tool;

/// What is examined: a server, its endpoints, and limits. Read it from TOML with [`Plan::from_toml`].
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) address: Address,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) max_requests: usize,
    /// The names of the checks that run. Empty: all of them.
    pub(crate) only: Vec<String>,
    pub(crate) reset: Option<(Method, String)>,
}

/// One endpoint, and requests of different kinds to it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) dialect: Dialect,
    pub(crate) judge: Option<BodyJudge>,
    /// The tool that is called, over MCP.
    pub(crate) tool: Option<Tool>,
    pub(crate) key_header: String,
    /// The request that succeeds, without a key.
    pub(crate) request: Message,
    /// Another body that is valid.
    pub(crate) other_body: Option<String>,
    pub(crate) other_account: Option<(String, String)>,
    pub(crate) count: Option<Count>,
    /// How long a key is remembered, if that is short enough to wait for.
    pub(crate) retention: Option<Duration>,
    /// What is taken as it is written: another path, bodies that are answered in a way of their own, and commands.
    pub(crate) settings: Settings,
}

/// How effects are counted.
#[derive(Debug, Clone)]
pub(crate) enum Count {
    Request(Method, String),
    /// By what a tool says.
    Tool(Tool),
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The URL names no server.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The text is no TOML, or has a field that is not known. No value is repeated: it may be a secret.
    #[error("line {line} of the plan can't be read: {message}")]
    #[non_exhaustive]
    Toml {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A field has no such value. The value of a header is not repeated.
    #[error("{field}: {value:?} is not {form}")]
    #[non_exhaustive]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it has to be.
        form: &'static str,
    },
    /// There is nothing to examine.
    #[error("the plan has no endpoint: give a url")]
    Empty,
    /// A field of the whole plan is in one of its endpoints.
    #[error("{0} is for the whole plan: write it before the first [[endpoint]]")]
    NotOfEndpoint(&'static str),
    /// The endpoints are of several servers.
    #[error("all endpoints have to be of one server, {0}")]
    SeveralServers(String),
}

/// The form of a plan in a file. The fields of `[[endpoint]]` are those of the file itself, which are the defaults.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// The URL that is examined.
    pub url: Option<String>,
    /// `draft`, `stripe`, `acp`, `iceberg` or `mcp`.
    pub profile: Option<String>,
    /// What reads the bodies of answers that are a 200 and no success: `json-rpc`, `graphql` or `grpc`. Default: none.
    pub judge: Option<String>,
    /// The tool that is called, with `mcp`. Then the bodies are its arguments.
    pub tool: Option<String>,
    /// Where a call of the tool has its key. Default: `json:/params/_meta/idempotencyKey`.
    pub key_from: Option<String>,
    /// The name of the key's header. Default: `Idempotency-Key`.
    pub key_header: Option<String>,
    /// Default: POST.
    pub method: Option<String>,
    /// Headers of each request: `Name: value`.
    pub headers: Vec<String>,
    /// The body of a request that succeeds.
    pub data: Option<String>,
    /// Another body that would succeed. Default: `data` with its first number raised by one.
    pub other_data: Option<String>,
    /// Another path that takes the same body.
    pub other_path: Option<String>,
    /// A header that makes the request another account's: `Authorization: Bearer bob`.
    pub other_account: Option<String>,
    /// How to count effects: `GET /v1/charges?limit=100`, or with `mcp` a tool without arguments, `tool payments`.
    pub count: Option<String>,
    /// A body that is declined by the operation itself.
    pub declined: Option<String>,
    /// A body that leads to a 5xx.
    pub server_error: Option<String>,
    /// A body that leads to a 429.
    pub rate_limited: Option<String>,
    /// A body whose request takes a second or more.
    pub slow: Option<String>,
    /// How long keys are remembered, if that is short enough to wait for: `5s`.
    pub retention: Option<String>,
    /// A command that restarts the server in good order.
    pub restart: Option<String>,
    /// A command that kills the server and starts it again.
    pub kill: Option<String>,
    /// The most requests that are sent in all. Default: 5,000.
    pub max_requests: Option<usize>,
    /// The names of the checks that run, besides `works`. Default: all.
    pub only: Vec<String>,
    /// A request that resets the server before each endpoint: `POST /reset`.
    pub reset: Option<String>,
    /// More endpoints of the same server. What one does not say is as above.
    pub endpoint: Vec<Settings>,
}

/// The longest retention that is waited for.
const MAX_RETENTION: Duration = Duration::from_secs(600);
const MAX_REQUESTS: usize = 5_000;

impl Plan {
    /// Makes a plan of these settings, whose checks may be unknown.
    pub(crate) fn of(settings: Settings) -> Result<Self, PlanError> {
        let max_requests = settings.max_requests.unwrap_or(MAX_REQUESTS);
        let only = settings.only.clone();
        let reset = settings.reset.as_deref().map(|text| asked("reset", text)).transpose()?;
        for own in &settings.endpoint {
            let of_plan = [
                ("max_requests", own.max_requests.is_some()),
                ("only", !own.only.is_empty()),
                ("reset", own.reset.is_some()),
                ("endpoint", !own.endpoint.is_empty()),
            ];
            if let Some((field, _)) = of_plan.into_iter().find(|(_, is_there)| *is_there) {
                return Err(PlanError::NotOfEndpoint(field));
            }
        }
        let mut all: Vec<Settings> = settings.endpoint.iter().map(|own| own.clone().over(&settings)).collect();
        if settings.url.is_some() && settings.endpoint.is_empty() {
            all.push(settings);
        }
        let mut address: Option<Address> = None;
        let mut endpoints = Vec::new();
        for settings in all {
            let Some(url) = &settings.url else { return Err(PlanError::Empty) };
            let (server, target) = Address::of(url)?;
            match &address {
                Some(first) if *first != server => return Err(PlanError::SeveralServers(first.origin())),
                _ => address = Some(server),
            }
            endpoints.push(Endpoint::new(settings, target)?);
        }
        let address = address.ok_or(PlanError::Empty)?;
        Ok(Self { address, endpoints, max_requests, only, reset })
    }

    /// Whether the server is on this machine. Ask the user before any other one is examined.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.address.is_local()
    }

    /// The server, as the beginning of its URLs.
    #[must_use]
    pub fn origin(&self) -> String {
        self.address.origin()
    }
}

impl Settings {
    /// Reads the settings of a plan from TOML.
    ///
    /// # Errors
    /// [`PlanError::Toml`] names the line.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            // A value of the wrong type is between quotes.
            let message = match (error.message().find('"'), error.message().rfind('"')) {
                (Some(first), Some(last)) if first < last => {
                    format!("{}***{}", &error.message()[..=first], &error.message()[last..])
                }
                _ => error.message().to_owned(),
            };
            PlanError::Toml { line: before.matches('\n').count() + 1, message }
        })
    }

    /// Puts these settings over those of a plan, and over each of its endpoints. A header takes the place of the plan's
    /// lines of the same header; the plan's `only` goes on with these.
    #[must_use]
    pub fn over_plan(self, mut plan: Self) -> Self {
        let of_endpoint = Self { max_requests: None, reset: None, ..self.clone() };
        let endpoint = std::mem::take(&mut plan.endpoint).into_iter();
        let endpoint = endpoint.map(|own| Self {
            // What belongs to the whole plan alone is noticed later.
            only: own.only.clone(),
            endpoint: own.endpoint.clone(),
            ..of_endpoint.clone().over(&own)
        });
        let (endpoint, only) = (endpoint.collect(), [&plan.only[..], &self.only].concat());
        Self { endpoint, only, ..self.over(&plan) }
    }

    /// These settings, and what they don't say from others.
    fn over(self, others: &Self) -> Self {
        macro_rules! either {
            ($($field:ident),*) => {
                Self {
                    $($field: self.$field.or_else(|| others.$field.clone()),)*
                    headers: [&inherited(&others.headers, &self.headers)[..], &self.headers].concat(),
                    endpoint: Vec::new(),
                    only: Vec::new(),
                }
            };
        }
        either!(
            url, profile, judge, tool, key_from, key_header, method, data, other_data, other_path, other_account,
            count, declined, server_error, rate_limited, slow, retention, restart, kill, max_requests, reset
        )
    }
}

/// The lines whose header the own ones don't have.
fn inherited(lines: &[String], own: &[String]) -> Vec<String> {
    let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
    lines.iter().filter(|line| !own.iter().any(|own| name(own) == name(line))).cloned().collect()
}

impl Endpoint {
    fn new(settings: Settings, target: String) -> Result<Self, PlanError> {
        let profile = settings.profile.as_deref().unwrap_or("draft");
        let dialect = read("profile", profile, "draft, stripe, acp, iceberg or mcp", Dialect::named)?;
        let tool = tool(&settings, dialect.is_of_tools())?;
        let judge = settings.judge.as_deref().or(tool.as_ref().map(|_| "json-rpc"));
        let judge = judge.map(|name| read("judge", name, "json-rpc, graphql or grpc", |name| name.parse().ok()));
        let body = settings.data.clone().unwrap_or_default();
        let mut headers = settings.headers.iter().map(|line| header("headers", line)).collect::<Result<Vec<_>, _>>()?;
        if !body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            headers.push(("content-type".to_owned(), content_type(&body).to_owned()));
        }
        let method = settings.method.as_deref().unwrap_or("POST");
        let method = read("method", method, "a method in capital letters", in_capitals)?;
        if let Some(path) = &settings.other_path {
            read("other_path", path, "a path, as in /refunds", |path| path.starts_with('/').then_some(()))?;
        }
        let time = "a time of at most 10 minutes, such as 5s or 1m 30s";
        let retention = settings.retention.as_deref().map(|text| read("retention", text, time, duration));
        Ok(Self {
            dialect,
            judge: judge.transpose()?,
            count: settings.count.as_deref().map(|text| count(text, tool.as_ref())).transpose()?,
            tool,
            key_header: settings.key_header.clone().unwrap_or_else(|| "Idempotency-Key".to_owned()),
            other_body: settings.other_data.clone().or_else(|| crate::vary::other(&body)),
            request: Message { method, target, headers, body, id: None },
            other_account: settings.other_account.as_deref().map(|line| header("other_account", line)).transpose()?,
            retention: retention.transpose()?,
            settings,
        })
    }
}

/// The media type of a body, by its first character.
fn content_type(body: &str) -> &'static str {
    if body.trim_start().starts_with(['{', '[']) { "application/json" } else { "application/x-www-form-urlencoded" }
}

/// Reads the value of a field, or says which form it has to have.
pub(crate) fn read<T>(
    field: &'static str,
    value: &str,
    form: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, PlanError> {
    read(value).ok_or_else(|| PlanError::Field { field, value: value.to_owned(), form })
}

/// Reads `5s`.
fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|retention| *retention <= MAX_RETENTION)
}

/// Reads `Name: value`.
fn header(field: &'static str, line: &str) -> Result<(String, String), PlanError> {
    let parts = line.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    let form = "a header, as in \"Authorization: Bearer a\"";
    parts.filter(|(name, _)| !name.is_empty()).ok_or_else(|| PlanError::Field { field, value: "***".to_owned(), form })
}

/// Reads a method. In small letters it is another one to some servers (RFC 9110, section 9.1).
fn in_capitals(text: &str) -> Option<Method> {
    Method::from_bytes(text.as_bytes()).ok().filter(|_| !text.bytes().any(|byte| byte.is_ascii_lowercase()))
}

/// Reads `GET /path`, or `tool NAME`.
fn count(text: &str, tool: Option<&Tool>) -> Result<Count, PlanError> {
    let name = text.trim().strip_prefix("tool ").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    match name.zip(tool) {
        Some((name, tool)) => Ok(Count::Tool(Tool { name, ..tool.clone() })),
        None => asked("count", text).map(|(method, path)| Count::Request(method, path)),
    }
}

/// Reads `GET /path`.
fn asked(field: &'static str, text: &str) -> Result<(Method, String), PlanError> {
    read(field, text, "a method and a path, as in \"GET /charges\"", |text| {
        let (method, path) = text.trim().split_once(' ')?;
        let path = Some(path.trim()).filter(|path| path.starts_with('/'))?;
        Some((in_capitals(method)?, path.to_owned()))
    })
}

#[cfg(test)]
mod tests;
mod tool;
