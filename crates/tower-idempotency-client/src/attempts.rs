//! A call: its attempts, one after the other, until one has an answer or there can be none any more.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http_body::Body;
use retry_policies::RetryDecision;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::options::{Chosen, Options};
use crate::transport::Miss;
use crate::uses::{Before, Use, Uses};
use crate::verdict::{self, Verdict, may_be_rejection};
use crate::{BoxError, CallEnd, Delivery, Error, Key, Known, Reason, ResponseBody};

/// How much of a rejection, and of what is judged, is read at least.
const MAX_READ: usize = 64 << 10;
/// The longest time that a probe may take.
const LOOK: Duration = Duration::from_secs(5);
/// Asks what a retry would get. A server that knows it does not run the request.
pub(crate) const PROBE: (HeaderName, HeaderValue) =
    (HeaderName::from_static("idempotency-probe"), HeaderValue::from_static("?1"));
/// What a time that no clock can represent is taken for.
const AGES: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Sends the request of a call, each time anew.
pub(crate) trait Attempts: Send {
    type Body: Body<Error: Into<BoxError>> + Unpin + Send;

    /// Sends the request, or a probe of it. It is called again only if [`can_repeat`](Self::can_repeat) says so.
    fn send(&mut self, is_probe: bool) -> impl Future<Output = Result<Response<Self::Body>, Box<Miss>>> + Send;

    /// Describes the use of this key for the request, if there is still a request.
    fn describe(&self, uses: &Uses, key: &Key) -> Option<Use>;

    /// Whether there is a body to send once more.
    fn can_repeat(&self) -> bool;

    /// Whether an attempt may follow redirects. Then one that gets no answer may have been sent to another origin.
    fn has_redirects(&self) -> bool {
        false
    }

    /// Whether the last answer comes from elsewhere than the request went to.
    fn is_elsewhere(&self) -> bool {
        false
    }
}

/// A call with a key.
pub(crate) struct Call<A> {
    options: Arc<Options>,
    chosen: Chosen,
    attempts: A,
    began: Instant,
    /// How many attempts have begun.
    made: u32,
    /// What is known of the operation before the attempt that is under way.
    known: Known,
}

impl<A: Attempts> Call<A> {
    pub(crate) fn new(options: Arc<Options>, chosen: Chosen, attempts: A) -> Self {
        Self { options, chosen, attempts, began: Instant::now(), made: 0, known: Known::NotSent }
    }

    /// Makes the call.
    pub(crate) async fn make(&mut self) -> Result<Response<ResponseBody<A::Body>>, Error> {
        let result = self.make_unobserved().await;
        if let Some(observer) = &self.options.observer {
            observer.ended(end(&result), self.made, self.began.elapsed());
        }
        result
    }

    async fn make_unobserved(&mut self) -> Result<Response<ResponseBody<A::Body>>, Error> {
        let own = if self.chosen.is_own { self.begin_use() } else { None };
        match own {
            Some((_, Before::Other)) => return Err(self.error(Reason::KeyReused, None, None)),
            // Whatever has come of an earlier call with this key, nothing that this one meets undoes it.
            Some((_, Before::Same)) => self.known = Known::Unknown,
            Some((_, Before::Nothing)) | None => {}
        }
        self.options.budget.deposit();
        let result = self.attempt_all().await;
        match (own, is_free(&result)) {
            // What an earlier call has remembered is not this one's to forget.
            (Some((this, Before::Nothing)), true) => self.options.uses.forget(this),
            // Another call may have forgotten it meanwhile.
            (Some((this, _)), false) => _ = self.options.uses.begin(this),
            // The caller gets the key to ask again with. What has succeeded needs no other call.
            (None, false) if !result.as_ref().is_ok_and(Delivery::is_success) => _ = self.begin_use(),
            _ => {}
        }
        result
    }

    fn begin_use(&self) -> Option<(Use, Before)> {
        let uses = &self.options.uses;
        self.attempts.describe(uses, &self.chosen.key).map(|this| (this, uses.begin(this)))
    }

    fn error(&self, reason: Reason, source: Option<BoxError>, response: Option<Response<Bytes>>) -> Error {
        Error::new(self.known, reason, source).of_call(self.chosen.key.clone(), self.made, response)
    }

    async fn attempt_all(&mut self) -> Result<Response<ResponseBody<A::Body>>, Error> {
        let mut now = self.began;
        loop {
            self.made += 1;
            if let Some(observer) = &self.options.observer {
                observer.attempt(self.made);
            }
            let until = after(now, self.options.attempt_timeout).min(self.deadline());
            let miss = match self.attempt(until, false).await {
                Ok(answer) => return Ok(answer),
                Err(miss) => miss,
            };
            self.known = match miss.last {
                Some(Reason::NotKept) => miss.known,
                _ => self.known.max(miss.known),
            };
            let next = match miss.last {
                Some(reason) => Err(reason),
                None if !self.attempts.can_repeat() => Err(Reason::SentOnce),
                None => self.next_attempt(miss.after),
            };
            match next {
                Ok(at) => sleep_until(at).await,
                Err(reason) => {
                    let error = self.error(reason, miss.source, miss.response);
                    return if self.may_look(reason, miss.last) {
                        Box::pin(self.look(error)).await
                    } else {
                        Err(error)
                    };
                }
            }
            now = Instant::now();
        }
    }

    /// Whether a probe may say more than is known once there can be no further attempt, for this reason. `last` is the
    /// one that the last attempt itself gives, if it does. Where the budget is used up, the server is not asked more.
    fn may_look(&self, reason: Reason, last: Option<Reason>) -> bool {
        let is_unknown = self.known == Known::Unknown && last.is_none() && reason != Reason::Budget;
        self.options.has_probes && is_unknown && self.attempts.can_repeat() && !self.attempts.has_redirects()
    }

    /// Asks once what has become of the operation. If that does not say more, the call ends with this error.
    async fn look(&mut self, error: Error) -> Result<Response<ResponseBody<A::Body>>, Error> {
        let longest = LOOK.min(self.options.attempt_timeout).min(self.options.deadline / 4);
        let until = Instant::now() + longest;
        match self.attempt(until, true).await {
            Ok(answer) if self.options.is_replay(answer.headers()) || Delivery::is_success(&answer) => Ok(answer),
            Err(miss) => match miss.last {
                Some(reason @ Reason::NotKept) => {
                    self.known = miss.known;
                    Err(self.error(reason, miss.source, miss.response))
                }
                // Its operator knows more by the record's id.
                Some(reason @ Reason::Rejected) => Err(self.error(reason, miss.source, miss.response)),
                _ => Err(error),
            },
            Ok(_) => Err(error),
        }
    }

    /// Makes one attempt, or sends a probe, and reads its answer.
    async fn attempt(&mut self, until: Instant, is_probe: bool) -> Result<Response<ResponseBody<A::Body>>, Box<Miss>> {
        let sent = timeout_at(until, self.attempts.send(is_probe)).await;
        let mut answer = match sent.unwrap_or_else(|elapsed| Err(Miss::lost(elapsed.into()))) {
            Ok(answer) => answer.map(ResponseBody::untouched),
            Err(miss) => return Err(self.lost(miss, None)),
        };
        let limit = self.read_limit(&answer);
        let source = match timeout_at(until, poll_fn(|cx| answer.body_mut().poll_read(cx, limit))).await {
            Ok(Ok(())) => return self.judge(answer),
            Ok(Err(error)) => error.into(),
            Err(elapsed) => elapsed.into(),
        };
        let body = answer.body().bytes_read();
        Err(self.lost(Miss::lost(source), Some(answer.map(|_| body))))
    }

    /// An attempt that got no answer, or one that broke off: this much of it.
    fn lost(&self, mut miss: Box<Miss>, response: Option<Response<Bytes>>) -> Box<Miss> {
        if self.attempts.has_redirects() {
            (miss.known, miss.last) = (Known::Unknown, Some(Reason::Redirect));
        }
        miss.response = response;
        miss
    }

    /// How many bytes of an answer are read before it is passed on.
    fn read_limit<B>(&self, answer: &Response<B>) -> usize {
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // A replay is the answer, whatever its body says.
        let is_replay = self.options.is_replay(answer.headers());
        let may_be_rejection = !is_replay && may_be_rejection(answer.status(), answer.headers());
        let is_read = may_be_rejection || self.options.judges(answer.headers());
        let limit = self.options.max_answer.max(if is_read { MAX_READ } else { 0 });
        // No more than what is declared is read in vain.
        let is_too_long = header(CONTENT_LENGTH).parse().is_ok_and(|length: usize| length > limit);
        let kind = header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        let is_stream = kind.eq_ignore_ascii_case("text/event-stream");
        if is_stream || is_too_long { 0 } else { limit }
    }

    /// Says how the answer came about, if it is the operation's.
    fn judge<B>(&self, mut answer: Response<ResponseBody<B>>) -> Result<Response<ResponseBody<B>>, Box<Miss>> {
        let (status, is_replay) = (answer.status(), self.options.is_replay(answer.headers()));
        let says = self.options.says(&answer);
        let before = verdict::Earlier { is_unknown: self.known >= Known::Unknown, is_own: self.chosen.is_own };
        // What a redirect has led to says nothing of the server that was asked.
        let is_elsewhere = self.attempts.is_elsewhere();
        let mut is_unknown = match is_replay {
            true => verdict::known_of_replay(status, answer.headers(), says) == Known::Unknown,
            false => is_elsewhere && !verdict::is_success(status, says),
        };
        if !is_replay && !is_elsewhere && !verdict::is_plain_success(status, answer.headers(), says) {
            let body = answer.body().bytes_read();
            let (known, after, last) = match verdict::judge(status, answer.headers(), &body, says, before) {
                Verdict::Answer(known) => {
                    is_unknown = before.is_unknown || known == Known::Unknown;
                    (None, None, None)
                }
                Verdict::Rejected(known) => (Some(known), None, Some(Reason::Rejected)),
                Verdict::Ended(known) => (Some(known), None, Some(Reason::NotKept)),
                Verdict::Again(known, after) => (Some(known), after, None),
            };
            if let Some(known) = known {
                let known = if self.attempts.has_redirects() { known.max(Known::Unknown) } else { known };
                if let Some(says) = says {
                    answer.extensions_mut().insert(says);
                }
                return Err(Box::new(Miss { known, after, response: Some(answer.map(|_| body)), source: None, last }));
            }
        }
        let delivery = Delivery { key: self.chosen.key.clone(), attempts: self.made, is_replay, is_unknown, says };
        answer.extensions_mut().insert(delivery);
        Ok(answer)
    }

    fn deadline(&self) -> Instant {
        after(self.began, self.options.deadline)
    }

    /// When the next attempt may begin, or why there is none.
    fn next_attempt(&self, asked: Option<Duration>) -> Result<Instant, Reason> {
        // Policies count from the wall clock's time, and add their wait to it.
        let wall = SystemTime::now();
        let began = wall.checked_sub(self.began.elapsed()).unwrap_or(wall);
        let RetryDecision::Retry { execute_after } = self.options.backoff.should_retry(began, self.made - 1) else {
            return Err(Reason::Backoff);
        };
        let backoff = execute_after.duration_since(wall).unwrap_or_default();
        let at = after(Instant::now(), asked.unwrap_or_default().saturating_add(backoff));
        if at >= self.deadline() {
            return Err(Reason::Deadline);
        }
        // The last question, because the answer costs something.
        if self.options.budget.withdraw() { Ok(at) } else { Err(Reason::Budget) }
    }
}

/// Whether nothing has come of a call, so that a corrected request may have its key.
fn is_free<B>(result: &Result<Response<B>, Error>) -> bool {
    match result {
        Ok(answer) => {
            let is_taken = Delivery::of(answer).is_some_and(|delivery| delivery.is_replay || delivery.is_unknown);
            !Delivery::is_success(answer) && !is_taken
        }
        Err(error) => error.known() <= Known::Refused,
    }
}

/// How a call ended, for its observer.
fn end<B>(result: &Result<Response<B>, Error>) -> CallEnd {
    match result {
        Ok(answer) => match Delivery::of(answer) {
            Some(delivery) if delivery.is_unknown => CallEnd::Unknown,
            Some(delivery) if delivery.is_replay => CallEnd::Replayed,
            _ => CallEnd::Answered,
        },
        Err(error) => error.known().into(),
    }
}

fn after(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).unwrap_or(now + AGES)
}
