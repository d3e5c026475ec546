//! The options of the layer, and their defaults, with the questions that each step asks of them: whether a method is
//! covered, which scope a key has, which id both make, what an answer is named.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};

use super::answer::meaning::Classify;
use super::answer::snapshot::{self, Recorder};
use super::fingerprint::identify::Sameness;
use super::fingerprint::target::Target;
use super::header::lines;
use super::key_from::KeyFrom;
use super::on_replay::OnReplay;
use super::profile::Profile;
use super::reject::rejection::Rejection;
use crate::engine::{Policy, ReadStatus, Reconciler, WrapRun};
use crate::key::{Key, RecordId, Scope};

type Covers = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;
/// Returns the scope of a request's key, or rejects the request.
type ScopeOf = Arc<dyn Fn(&Parts) -> Result<Option<Scope>, Rejection> + Send + Sync>;
/// Returns the application's name for the operation of a request.
type LabelOf = Arc<dyn Fn(&Parts) -> Option<String> + Send + Sync>;
type Render = Arc<dyn Fn(&Rejection) -> Response<Bytes> + Send + Sync>;
/// Makes a reconciler whose answers the given recorder turns into outcomes. It is called whenever an option changes,
/// because each option of the recorder counts, whether it is set before the reconciler or after it.
type Reconcile = Arc<dyn Fn(&Arc<Recorder>) -> Reconciler<Bytes> + Send + Sync>;

/// A function of the application's. `Debug` shows only that it is set.
#[derive(Clone)]
pub(super) struct Hook<F>(pub(super) F);

/// All options of a layer. A field is set by the method of its name in `layer/`, which says what it means, unless the
/// field's own comment names the methods.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) profile: Arc<Profile>,
    pub(super) header_name: HeaderName,
    pub(super) methods: Vec<Method>,
    pub(super) covers: Option<Hook<Covers>>,
    pub(super) require_key: bool,
    pub(super) strict_keys: bool,
    /// `None`: only the header has the key.
    pub(super) key_from: Option<KeyFrom>,
    /// `None`: a request's credentials say whose its key is.
    pub(super) scope: Option<Hook<ScopeOf>>,
    pub(super) label: Option<Hook<LabelOf>>,
    /// The options of runs: `on_in_flight`, `on_interrupted`, `retention`, `outcome_retention`,
    /// `interrupted_retention`, `max_run`, `max_runs`, `fail_open` and the levels. `LayerState::new` gives the engine a
    /// copy.
    pub(super) policy: Policy,
    /// Makes the policy's reconciler, whose answers are recorded as these options say: `reconcile_with`.
    pub(super) reconcile: Option<Hook<Reconcile>>,
    /// `None`: each replay is given.
    pub(super) on_replay: Option<Hook<OnReplay>>,
    /// `None`: `Meaning` has the defaults.
    pub(super) classify: Option<Hook<Arc<dyn Classify>>>,
    /// The rule by which two requests are the same: `fingerprint_headers`, `fingerprint_body`, `credential_headers`
    /// and `credential_cookies`.
    pub(super) sameness: Sameness,
    /// In bytes, for one request.
    pub(super) max_request_body: usize,
    /// In bytes, for all request bodies that are read at a time. `bodies/budget.rs` keeps to it.
    pub(super) max_buffered: usize,
    pub(super) outcome_body_timeout: Duration,
    /// Zero: no stream is an answer.
    pub(super) max_stream: Duration,
    pub(super) max_stream_bytes: usize,
    /// Records the parts of an answer that are kept: `kept_headers`, `replay_header_name` and `max_response_body`.
    /// Handlers' contexts share it.
    pub(super) recorder: Arc<Recorder>,
    pub(super) problem_base: Arc<String>,
    pub(super) render_rejection: Option<Hook<Render>>,
    /// `None`: no answer says what became of its request.
    pub(super) outcome_header_name: Option<HeaderName>,
    /// The routes that clients find in the description: `discoverable`.
    pub(super) routes: Arc<[String]>,
    pub(super) wrap_run: Option<Hook<WrapRun>>,
}

/// The methods that change something in most APIs.
pub(super) const USUAL: [Method; 4] = [Method::POST, Method::PATCH, Method::PUT, Method::DELETE];

const MIB: usize = 1024 * 1024;

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Arc::default(),
            header_name: HeaderName::from_static("idempotency-key"),
            methods: vec![Method::POST, Method::PATCH],
            covers: None,
            require_key: false,
            strict_keys: false,
            key_from: None,
            scope: None,
            label: None,
            policy: Policy::default(),
            reconcile: None,
            on_replay: None,
            classify: None,
            sameness: Sameness::default(),
            max_request_body: MIB,
            max_buffered: 256 * MIB,
            outcome_body_timeout: Duration::from_secs(10),
            max_stream: Duration::ZERO,
            max_stream_bytes: 8 * MIB,
            recorder: Arc::default(),
            problem_base: Arc::new(Rejection::PROBLEM_BASE.to_owned()),
            render_rejection: None,
            outcome_header_name: None,
            routes: Arc::default(),
            wrap_run: None,
        }
    }
}

impl Options {
    /// Returns the policy, with its reconciler, if there is one.
    pub(super) fn policy(&self) -> Policy {
        let mut policy = self.policy.clone();
        policy.asks_before_replay = self.on_replay.is_some();
        policy.status = ReadStatus(|outcome| snapshot::status(outcome).map(|status| status.as_u16()));
        if let Some(reconcile) = &self.reconcile {
            policy.reconcile_with(reconcile(&self.recorder));
        }
        policy
    }

    /// Returns whether requests with this method have keys, if `covers` does not leave them out.
    #[inline]
    pub(super) fn covers_method(&self, method: &Method) -> bool {
        let is_covered =
            self.methods.iter().any(|covered| covered == method) || self.require_key && can_be_covered(method);
        // MCP ends a session by DELETE.
        is_covered && (self.profile.calls.is_none() || *method == Method::POST)
    }

    /// Returns the covered method from which one differs in the case of its letters alone. Methods are case-sensitive
    /// (RFC 9110, section 9.1), but many services take `patch` for PATCH, and `fetch` sends it as it is.
    pub(super) fn covered_in_other_letters(&self, method: &Method) -> Option<Method> {
        if self.methods.contains(method) {
            return None;
        }
        let is_like = |covered: &&Method| covered.as_str().eq_ignore_ascii_case(method.as_str());
        // Where every unsafe method is covered, no one is written in small letters.
        let is_any = self.require_key && method.as_str().bytes().any(|byte| byte.is_ascii_lowercase());
        let of_any = || is_any.then(|| method.as_str().to_ascii_uppercase().parse().ok()).flatten();
        self.methods.iter().find(is_like).cloned().or_else(of_any)
    }

    /// The scope that says whose the key of a request is, if one does.
    pub(super) fn scope_of(&self, parts: &Parts) -> Result<Option<Scope>, Rejection> {
        // This is the application's function. A rejection that it returns ends the request.
        self.scope.as_ref().map_or(Ok(None), |scope| scope(parts))
    }

    /// The path that is a part of an operation's id, if one is.
    pub(super) fn path_of_id(&self, parts: &Parts) -> Option<Box<str>> {
        self.profile.key_per_path.then(|| Target::of(parts).path().into())
    }

    /// The id of the operation that `key` names in this scope, for a request to this path.
    pub(super) fn record_id(scope: Option<&Scope>, key: &Key, path: Option<&str>) -> Result<RecordId, Rejection> {
        let Some(path) = path else { return Ok(RecordId::new(scope, key)) };
        // The path is a last part of the scope. Who asks is said by the scope itself, or else by the credentials.
        let of_path = match scope {
            Some(scope) => scope.clone().and(path)?,
            None => Scope::new(path)?,
        };
        Ok(RecordId::new(Some(&of_path), key))
    }

    /// Says in an error whether the same request may get another answer, if the profile has a header for that.
    pub(super) fn say_retry(&self, status: StatusCode, headers: &mut HeaderMap, retry: bool) {
        if let Some(name) = &self.profile.retry_header
            && (status.is_client_error() || status.is_server_error())
        {
            headers.insert(name.clone(), HeaderValue::from_static(if retry { "true" } else { "false" }));
        }
    }

    /// Returns the header by which the answer to a covered request repeats its key, if the profile says so. It is
    /// boxed, because few profiles do.
    pub(super) fn echo(&self, headers: &HeaderMap) -> Option<Box<(HeaderName, HeaderValue)>> {
        let mut keys = lines(headers, &self.header_name);
        let only = || keys.next().filter(|_| keys.next().is_none()).cloned();
        self.profile.echo_key.then(only).flatten().map(|key| Box::new((self.header_name.clone(), key)))
    }

    /// Names in an answer what became of its request, if the application has named a header for that.
    pub(super) fn name_outcome<B>(&self, response: &mut Response<B>, outcome: &'static str) {
        if let Some(name) = &self.outcome_header_name {
            response.headers_mut().insert(name.clone(), HeaderValue::from_static(outcome));
        }
    }
}

/// Returns whether requests with this method may have keys: safe methods and CONNECT never have.
pub(super) fn can_be_covered(method: &Method) -> bool {
    !method.is_safe() && *method != Method::CONNECT
}

// A hook is called like the function in it.
impl<F> Deref for Hook<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.0
    }
}

impl<F> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set")
    }
}
