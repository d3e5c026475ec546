//! What can be set on the layer, and what it is by default.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Method, Response};
use tracing::Level;

use super::identify::Sameness;
use super::kept::KeptHeaders;
use super::meaning::Classify;
use super::recorder::Recorder;
use super::rejection::{PROBLEM_BASE, Rejection};
use crate::engine::{OnInFlight, OnInterrupted, Policy, WrapRun};
use crate::key::{Key, RecordId, Scope};

type Hook<F> = Option<Arc<F>>;
type Covers = dyn Fn(&Parts) -> bool + Send + Sync;
type ScopeOf = dyn Fn(&Parts) -> Result<Scope, Rejection> + Send + Sync;
type Render = dyn Fn(&Rejection) -> Response<Bytes> + Send + Sync;

/// All options of a layer.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) header_name: HeaderName,
    pub(super) replay_header_name: HeaderName,
    pub(super) methods: Vec<Method>,
    pub(super) covers: Hook<Covers>,
    pub(super) require_key: bool,
    pub(super) strict_keys: bool,
    pub(super) scope: Hook<ScopeOf>,
    pub(super) policy: Policy,
    /// In the layer's form; the policy has it in the engine's.
    pub(super) on_interrupted: OnInterrupted<Response<Bytes>>,
    pub(super) classify: Hook<dyn Classify>,
    pub(super) sameness: Sameness,
    pub(super) max_request_body: usize,
    pub(super) max_buffered: usize,
    pub(super) max_response_body: usize,
    pub(super) outcome_body_timeout: Duration,
    pub(super) kept_headers: KeptHeaders,
    pub(super) problem_base: Arc<str>,
    pub(super) render_rejection: Hook<Render>,
    pub(super) refusal_level: Level,
    pub(super) replay_level: Level,
    pub(super) wrap_run: Option<WrapRun>,
}

const MIB: usize = 1024 * 1024;

impl Default for Options {
    fn default() -> Self {
        Self {
            header_name: HeaderName::from_static("idempotency-key"),
            replay_header_name: HeaderName::from_static("idempotent-replayed"),
            methods: vec![Method::POST, Method::PATCH],
            covers: None,
            require_key: false,
            strict_keys: false,
            scope: None,
            policy: Policy::default(),
            on_interrupted: OnInterrupted::Refuse,
            classify: None,
            sameness: Sameness::default(),
            max_request_body: MIB,
            max_buffered: 256 * MIB,
            max_response_body: MIB,
            outcome_body_timeout: Duration::from_secs(10),
            kept_headers: KeptHeaders::default(),
            problem_base: PROBLEM_BASE.into(),
            render_rejection: None,
            refusal_level: Level::INFO,
            replay_level: Level::DEBUG,
            wrap_run: None,
        }
    }
}

/// One option, as it is set: for a start-up log, and for the table in the README.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptionLine {
    /// Its name: the layer's method.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What it protects, or what for it is there.
    pub protects: &'static str,
}

impl Options {
    /// How answers are recorded that come from elsewhere than a run.
    pub(super) fn recorder(&self) -> Recorder {
        let (kept_headers, replay_header_name) = (self.kept_headers.clone(), self.replay_header_name.clone());
        Recorder { kept_headers, replay_header_name, max_response_body: self.max_response_body }
    }

    /// The policy, its reconciler's answers recorded as these options say.
    pub(super) fn engine_policy(&self) -> Policy {
        let on_interrupted = match &self.on_interrupted {
            OnInterrupted::Refuse => OnInterrupted::Refuse,
            OnInterrupted::Rerun => OnInterrupted::Rerun,
            OnInterrupted::Reconcile(reconciler) => {
                let recorder = self.recorder();
                OnInterrupted::Reconcile(reconciler.map(move |answer| recorder.record(&answer)))
            }
        };
        Policy { on_interrupted, ..self.policy.clone() }
    }

    /// Which operation a request with `key` is of.
    pub(super) fn record_id(&self, parts: &Parts, key: &Key) -> Result<RecordId, Rejection> {
        let scope = self.scope.as_ref().map(|scope| scope(parts)).transpose()?;
        Ok(RecordId::new(scope.as_ref(), key))
    }

    pub(super) fn render(&self, rejection: &Rejection) -> Response<Bytes> {
        match &self.render_rejection {
            Some(render) => render(rejection),
            None => rejection.render(),
        }
    }

    pub(super) fn describe(&self) -> Vec<OptionLine> {
        let line = |name, value: String, protects| OptionLine { name, value, protects };
        let policy = &self.policy;
        vec![
            line("header_name", self.header_name.to_string(), "the header that carries the key"),
            line("replay_header_name", self.replay_header_name.to_string(), "the header that marks a replay"),
            line("methods", list(&self.methods), "which methods are covered; safe ones never are"),
            line("covers", hook(&self.covers, "every request"), "which requests of these methods are covered"),
            line("require_key", self.require_key.to_string(), "refuses covered requests without a key"),
            line("strict_keys", self.strict_keys.to_string(), "refuses keys that are not quoted"),
            line("scope", hook(&self.scope, "none"), "whose a key is; without it, credentials are compared"),
            line("on_in_flight", in_flight(policy.on_in_flight), "how long a duplicate is held while the first runs"),
            line("on_interrupted", interrupted(&self.on_interrupted), "against a second effect after a crash"),
            line("classify", hook(&self.classify, "by status"), "against taking \"I don't know\" for an outcome"),
            line(
                "fingerprint_headers",
                list(self.sameness.headers()),
                "another account's answer, where a header names it",
            ),
            line(
                "fingerprint_body",
                self.sameness.body().name().into_owned(),
                "retries against refusals for how a body is written",
            ),
            line("retention", time(policy.retention), "how long an outcome is replayed, from completion"),
            line("interrupted_retention", time(policy.interrupted_retention), "how long an unknown outcome is refused"),
            line("max_run", time(policy.max_run), "a key against a handler that hangs"),
            line("max_runs", policy.max_runs.to_string(), "memory, against more runs than this at once"),
            line("max_request_body", size(self.max_request_body), "memory, per request that is read"),
            line("max_buffered", size(self.max_buffered), "memory, over all bodies that are being read"),
            line("max_response_body", size(self.max_response_body), "memory and disk, per outcome"),
            line("outcome_body_timeout", time(self.outcome_body_timeout), "a key against a body that never ends"),
            line("kept_headers", self.kept_headers.describe(), "the next client against headers meant for the first"),
            line("fail_open", policy.fail_open.to_string(), "availability, at the price of protection"),
            line("problem_base", base(&self.problem_base), "the beginning of every problem's type"),
            line("render_rejection", hook(&self.render_rejection, "problem+json"), "how refusals read"),
            line("refusal_level", self.refusal_level.to_string(), "at which level a refusal is logged"),
            line("replay_level", self.replay_level.to_string(), "at which level a replay is logged"),
            line("wrap_run", hook(&self.wrap_run, "none"), "task-locals of the detached run"),
        ]
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.describe();
        f.debug_map().entries(lines.iter().map(|line| (line.name, &line.value))).finish()
    }
}

fn list(values: &[impl ToString]) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    if values.is_empty() { "none".to_owned() } else { values.join(", ") }
}

fn hook<F: ?Sized>(hook: &Hook<F>, default: &str) -> String {
    if hook.is_some() { "set" } else { default }.to_owned()
}

fn base(base: &str) -> String {
    if base == PROBLEM_BASE { "this crate's documentation" } else { base }.to_owned()
}

fn in_flight(policy: OnInFlight) -> String {
    match policy {
        OnInFlight::Wait(patience) => format!("wait {}", time(patience)),
        OnInFlight::Reject => "reject".to_owned(),
    }
}

fn interrupted<O>(policy: &OnInterrupted<O>) -> String {
    match policy {
        OnInterrupted::Refuse => "refuse",
        OnInterrupted::Rerun => "rerun",
        OnInterrupted::Reconcile(_) => "reconcile",
    }
    .to_owned()
}

fn time(duration: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let seconds = duration.as_secs();
    if duration.subsec_nanos() != 0 || seconds == 0 {
        return format!("{duration:?}");
    }
    // Days only from two on: "24 h" is what people say.
    let unit = UNITS.iter().find(|(unit, name)| seconds.is_multiple_of(*unit) && (*name != "d" || seconds > *unit));
    unit.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}

fn size(bytes: usize) -> String {
    if bytes.is_multiple_of(MIB) && bytes > 0 { format!("{} MiB", bytes / MIB) } else { format!("{bytes} B") }
}
