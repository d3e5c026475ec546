//! A call: its attempts, one after the other, until one has an answer or there can be none any more.

use std::future::Future;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Response, StatusCode};
use http_body::Body;
use retry_policies::RetryDecision;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::options::{Chosen, Options};
use crate::transport::Failure;
use crate::uses::{Before, Use, Uses};
use crate::verdict::{Verdict, judge, may_be_rejection};
use crate::{BoxError, Delivery, Error, Key, Known, Reason, ResponseBody};

/// How much of a rejection is read at least.
const MAX_REJECTION: usize = 64 << 10;
/// What a time that no clock can represent is taken for.
const AGES: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Sends the request of a call, each time anew.
pub(crate) trait Attempts: Send {
    type Body: Body<Error: Into<BoxError>> + Unpin + Send;

    /// Sends the request. It is called again only if [`can_repeat`](Self::can_repeat) says so.
    fn send(&mut self) -> impl Future<Output = Result<Response<Self::Body>, Failure>> + Send;

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

/// An attempt without an answer to the operation.
struct Miss {
    known: Known,
    /// How long the server asks to wait.
    after: Option<Duration>,
    response: Option<Response<Bytes>>,
    source: Option<BoxError>,
    /// Why there can be no further attempt, if the attempt itself says so.
    last: Option<Reason>,
}

/// Makes the call with this key.
pub(crate) async fn call<A: Attempts>(
    options: &Options,
    Chosen { key, is_own }: Chosen,
    mut attempts: A,
) -> Result<Response<ResponseBody<A::Body>>, Error> {
    let uses = &options.uses;
    let own = if is_own { attempts.describe(uses, &key).map(|this| (this, uses.begin(this))) } else { None };
    if let Some((_, Before::Other)) = own {
        return Err(Error::new(Known::NotSent, Reason::KeyReused, None).of_call(key, 0, None));
    }
    options.budget.deposit();
    // Whatever has come of an earlier call with this key, nothing that this one meets undoes it.
    let known = if let Some((_, Before::Same)) = own { Known::Unknown } else { Known::NotSent };
    let result = attempt_all(options, &key, is_own, known, &mut attempts).await;
    match (own, is_free(&result)) {
        // What an earlier call has remembered is not this one's to forget.
        (Some((this, Before::Nothing)), true) => uses.forget(this),
        // Another call may have forgotten it meanwhile.
        (Some((this, _)), false) => _ = uses.begin(this),
        // The caller gets the key to ask again with. What has succeeded needs no other call.
        (None, false) if !result.as_ref().is_ok_and(|answer| answer.status().is_success()) => {
            _ = attempts.describe(uses, &key).map(|this| uses.begin(this));
        }
        _ => {}
    }
    result
}

/// Whether nothing has come of a call, so that a corrected request may have its key.
fn is_free<B>(result: &Result<Response<B>, Error>) -> bool {
    match result {
        Ok(answer) => {
            let is_taken = Delivery::of(answer).is_some_and(|delivery| delivery.is_replay || delivery.is_unknown);
            !answer.status().is_success() && !is_taken
        }
        Err(error) => error.known() <= Known::Refused,
    }
}

async fn attempt_all<A: Attempts>(
    options: &Options,
    key: &Key,
    is_own: bool,
    mut known: Known,
    attempts: &mut A,
) -> Result<Response<ResponseBody<A::Body>>, Error> {
    let began = Instant::now();
    let deadline = after(began, options.deadline);
    let (mut made, mut now) = (0, began);
    loop {
        made += 1;
        let is_earlier_unknown = known >= Known::Unknown;
        let until = after(now, options.attempt_timeout).min(deadline);
        let miss = match attempt(options, attempts, until, is_earlier_unknown).await {
            Ok(mut answer) => {
                let (status, is_replay) = (answer.status(), options.is_replay(answer.headers()));
                let is_refused = match status {
                    // A conflict may be with an earlier call of the caller's key.
                    StatusCode::CONFLICT => !is_own,
                    // The operation is to be asked for elsewhere (RFC 9110 sections 15.4.8 and 15.4.9).
                    StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
                    _ => status.is_client_error(),
                };
                let is_unknown = !is_replay && !status.is_success() && (is_earlier_unknown || !is_refused);
                let delivery = Delivery { key: key.clone(), attempts: made, is_replay, is_unknown };
                answer.extensions_mut().insert(delivery);
                return Ok(answer);
            }
            Err(miss) => miss,
        };
        known = known.max(miss.known);
        let next = match miss.last {
            Some(reason) => Err(reason),
            None if !attempts.can_repeat() => Err(Reason::SentOnce),
            None => next_attempt(options, miss.after, deadline, began, made - 1),
        };
        match next {
            Ok(at) => {
                sleep_until(at).await;
                now = Instant::now();
            }
            Err(reason) => {
                return Err(Error::new(known, reason, miss.source).of_call(key.clone(), made, miss.response));
            }
        }
    }
}

/// Makes one attempt, and reads its answer.
async fn attempt<A: Attempts>(
    options: &Options,
    attempts: &mut A,
    until: Instant,
    is_earlier_unknown: bool,
) -> Result<Response<ResponseBody<A::Body>>, Miss> {
    let answer = timeout_at(until, async {
        let answer = attempts.send().await?;
        read(answer, options.max_answer).await.map_err(|error| Failure::lost(error.into()))
    });
    let answer = match answer.await.unwrap_or_else(|elapsed| Err(Failure::lost(elapsed.into()))) {
        Ok(answer) if attempts.is_elsewhere() || options.is_replay(answer.headers()) => return Ok(answer),
        Ok(answer) => answer,
        Err(Failure { source, known, last }) => {
            let (known, last) = match attempts.has_redirects() {
                true => (Known::Unknown, Some(Reason::Redirect)),
                false => (known, last),
            };
            return Err(Miss { known, after: None, response: None, source: Some(source), last });
        }
    };
    let body = answer.body().bytes_read();
    let (known, after, last) = match judge(answer.status(), answer.headers(), &body, is_earlier_unknown) {
        Verdict::Answer => return Ok(answer),
        Verdict::Rejected(known) => (known, None, Some(Reason::Rejected)),
        Verdict::Again(known, after) => (known, after, None),
    };
    let known = if attempts.has_redirects() { known.max(Known::Unknown) } else { known };
    Err(Miss { known, after, response: Some(answer.map(|_| body)), source: None, last })
}

/// Reads an answer as far as it has to be known before it is passed on.
async fn read<B: Body + Unpin>(answer: Response<B>, max_answer: usize) -> Result<Response<ResponseBody<B>>, B::Error> {
    let (head, body) = answer.into_parts();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_stream = header(CONTENT_TYPE).starts_with("text/event-stream");
    let limit = match may_be_rejection(head.status, &head.headers) {
        true => max_answer.max(MAX_REJECTION),
        false => max_answer,
    };
    // No more than what is declared is read in vain.
    let is_too_long = header(CONTENT_LENGTH).parse().is_ok_and(|length: usize| length > limit);
    let body = match limit == 0 || is_stream || is_too_long {
        true => ResponseBody::untouched(body),
        false => ResponseBody::read(body, limit).await?,
    };
    Ok(Response::from_parts(head, body))
}

/// When the next attempt may begin, or why there is none.
fn next_attempt(
    options: &Options,
    asked: Option<Duration>,
    deadline: Instant,
    began: Instant,
    retries: u32,
) -> Result<Instant, Reason> {
    // Policies count from the wall clock's time, and add their wait to it.
    let wall = SystemTime::now();
    let began_at = wall.checked_sub(began.elapsed()).unwrap_or(wall);
    let RetryDecision::Retry { execute_after } = options.backoff.should_retry(began_at, retries) else {
        return Err(Reason::Backoff);
    };
    let backoff = execute_after.duration_since(wall).unwrap_or_default();
    let at = after(Instant::now(), asked.unwrap_or_default().saturating_add(backoff));
    if at >= deadline {
        return Err(Reason::Deadline);
    }
    // The last question, because the answer costs something.
    if options.budget.withdraw() { Ok(at) } else { Err(Reason::Budget) }
}

fn after(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).unwrap_or(now + AGES)
}
