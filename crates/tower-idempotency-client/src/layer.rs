//! The layer, and the methods that set its options.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderName};
use retry_policies::policies::ExponentialBackoff;
use retry_policies::{Jitter, RetryPolicy};
use tower::Layer;
use tower::retry::budget::{Budget, TpsBudget};
use tower_idempotency_meaning::BodyJudge;

use crate::options::Options;
use crate::uses::Uses;
use crate::{InvalidKey, Key, KeyedRetry, Observer};

/// Gives each call with an unsafe method one idempotency key, and retries it with that key.
///
/// All services that one layer makes, and all clones of it, share its budget and its memory of keys. So make one layer
/// for each API, and clone it. Accounts are told apart by the request's headers for credentials. If an inner service
/// adds them, or they have names of the API's own, make a layer for each account.
#[derive(Clone)]
pub struct KeyedRetryLayer {
    pub(crate) options: Arc<Options>,
}

impl KeyedRetryLayer {
    /// Returns a layer with the defaults, which each method names.
    #[must_use]
    pub fn new() -> Self {
        let backoff = ExponentialBackoff::builder()
            .retry_bounds(Duration::from_millis(500), Duration::from_secs(8))
            .jitter(Jitter::Full)
            .build_with_max_retries(u32::MAX);
        Self {
            options: Arc::new(Options {
                header: HeaderName::from_static("idempotency-key"),
                replay_header: HeaderName::from_static("idempotent-replayed"),
                is_quoted: false,
                choose_key: None,
                attempt_timeout: Duration::from_secs(30),
                deadline: Duration::from_secs(60),
                backoff: Arc::new(backoff),
                budget: Arc::new(TpsBudget::default()),
                max_answer: 1 << 20,
                judge: None,
                has_redirects: true,
                has_probes: false,
                uses: Arc::new(Uses::new()),
                observer: None,
            }),
        }
    }

    /// Sets the header of the key. The default is `Idempotency-Key`.
    #[must_use]
    pub fn header_name(self, name: HeaderName) -> Self {
        self.with(|options| options.header = name)
    }

    /// Sets the header by which the server marks a replay, with the value `true`. The default is `Idempotent-Replayed`.
    #[must_use]
    pub fn replay_header_name(self, name: HeaderName) -> Self {
        self.with(|options| options.replay_header = name)
    }

    /// Sends the key in double quotes, as draft-ietf-httpapi-idempotency-key-header has it. By default it is sent bare,
    /// which nearly all APIs expect. A key that the caller has written into the header gets this form, too.
    #[must_use]
    pub fn quoted(self, quoted: bool) -> Self {
        self.with(|options| options.is_quoted = quoted)
    }

    /// Sets the function that chooses the key of a call without one. The default is [`Key::random`].
    ///
    /// It gets the request's extensions: what the application has put there, such as the order's id. It gets nothing
    /// else of the request, so that no key is derived from a credential. It is called once for each call, not for each
    /// attempt.
    #[must_use]
    pub fn keys(self, choose: impl Fn(&Extensions) -> Result<Key, InvalidKey> + Send + Sync + 'static) -> Self {
        self.with(|options| options.choose_key = Some(Arc::new(choose)))
    }

    /// Sets how long one attempt may take, until its answer is read. The default is 30 s.
    ///
    /// It also ends an attempt that the client below never answers: hyper 1.12 may lose a request that it is given at
    /// the moment when its connection ends.
    #[must_use]
    pub fn attempt_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.attempt_timeout = timeout)
    }

    /// Sets how long all attempts of a call and the waits between them may take. The default is 60 s. Stay well below
    /// the time for which the server remembers a key.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|options| options.deadline = deadline)
    }

    /// Sets how long to wait before a retry, and how many there may be. The default is a random time between zero and a
    /// bound (full jitter) that doubles from 0.5 to 8 s, without a limit but the deadline.
    ///
    /// Where a server sends `Retry-After`, that time comes first, and this one is added.
    #[must_use]
    pub fn backoff(self, backoff: impl RetryPolicy + Send + Sync + 'static) -> Self {
        self.with(|options| options.backoff = Arc::new(backoff))
    }

    /// Sets the budget from which all calls pay for their retries. The default is tower's [`TpsBudget`]: 10 retries a
    /// second, and 20 % of the calls of the last ten seconds.
    #[must_use]
    pub fn budget(self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.with(|options| options.budget = Arc::new(budget))
    }

    /// Sets up to which size an answer is read within its attempt, in bytes. The default is 1 MiB.
    ///
    /// An answer that breaks off while it is read is asked for again, with the same key. What is longer is passed on as
    /// it comes, and so is an event stream. Rejections in JSON, gRPC's answers, and with a [`judge`](Self::judge) all
    /// others, are read up to 64 KiB in any case. Where answers come slowly, such as
    /// lines of JSON over minutes, set 0: else the timeout of the attempt ends them.
    #[must_use]
    pub fn max_answer(self, bytes: usize) -> Self {
        self.with(|options| options.max_answer = bytes)
    }

    /// Sets what reads the bodies of answers, for an API that says "no" and "try again" behind a 200, such as JSON-RPC
    /// and GraphQL. The default is that the status counts; gRPC is judged in any case.
    ///
    /// It comes after `Idempotency-Effect` and before the status. A replay and what a redirect has led to are judged,
    /// too. A body that is longer than [`max_answer`](Self::max_answer) and 64 KiB, or is no JSON, says nothing.
    /// ```
    /// use tower_idempotency_client::{BodyJudge, KeyedRetryLayer};
    ///
    /// let layer = KeyedRetryLayer::new().judge(BodyJudge::graphql());
    /// ```
    #[must_use]
    pub fn judge(self, judge: BodyJudge) -> Self {
        self.with(|options| options.judge = Some(judge))
    }

    /// Promises that the client below sends each request once: it follows no redirects, and has no retries of its own
    /// beyond those of requests that were not processed, which reqwest has by default. The default is that it may.
    ///
    /// It matters for reqwest, which follows them unless it is built with `redirect::Policy::none()`, and whose errors
    /// don't say whether they come from another origin. Without this promise, an attempt of reqwest that got no answer
    /// is not repeated ([`Reason::Redirect`](crate::Reason::Redirect)), and what is known of it is
    /// [`Unknown`](crate::Known::Unknown). What comes after a redirect that was followed is the answer, whatever it
    /// says.
    #[must_use]
    pub fn without_redirects(self) -> Self {
        self.with(|options| options.has_redirects = false)
    }

    /// Promises that the API answers probes: it never runs a request with `Idempotency-Probe: ?1`, and answers it with
    /// what a retry would get. A server with tower-idempotency does, and names the header as `probe_header` in its
    /// `/.well-known/idempotency`. The default is that it may not.
    ///
    /// With this promise, a call that would end as [`Unknown`](crate::Known::Unknown), because there may be no further
    /// attempt, sends one probe before, also after the deadline: for at most 5 s, `attempt_timeout`, or a quarter of
    /// the deadline. If the operation has been answered by now, that is the answer. Where the budget for retries is
    /// used up, there is no probe. The API's `routes` alone answer probes: on another one, it runs as a retry would.
    #[must_use]
    pub fn with_probes(self) -> Self {
        self.with(|options| options.has_probes = true)
    }

    /// Sets what learns how calls go: see [`Observer`]. The default is nothing.
    #[must_use]
    pub fn observe(self, observer: impl Observer) -> Self {
        self.with(|options| options.observer = Some(Arc::new(observer)))
    }

    fn with(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(Arc::make_mut(&mut self.options));
        self
    }
}

impl Default for KeyedRetryLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for KeyedRetryLayer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeyedRetryLayer")
            .field("header", &self.options.header)
            .field("attempt_timeout", &self.options.attempt_timeout)
            .field("deadline", &self.options.deadline)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for KeyedRetryLayer {
    type Service = KeyedRetry<S>;

    fn layer(&self, inner: S) -> KeyedRetry<S> {
        KeyedRetry { inner, options: self.options.clone() }
    }
}
