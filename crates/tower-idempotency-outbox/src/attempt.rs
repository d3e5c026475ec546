//! One try of a call that a relay has a lease of: it is sent, and its result is written. The client may make several
//! attempts in a try. `Terms` say how long a lease is, before the try, and whether the call waits or is given up, after
//! it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use retry_policies::{RetryDecision, RetryPolicy};
use tokio::time::{Instant, sleep, timeout_at};
use tower::{Service, ServiceExt as _};
use tower_idempotency_client::Error;

use crate::lease::{Age, Leased, MAX_WAIT, Update};
use crate::next::{Next, Read, answered, unanswered};
use crate::{Answer, Call, Entry, Observer, Outbox, State, TARGET};

/// How long to wait before it is tried again to write it.
const WRITE_AGAIN: Duration = Duration::from_millis(500);
/// How long a call waits of which the clocks do not agree whether its time is over.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Why it waits. The reason of the try before comes after it.
const HELD: &str = "held, because its time is over by one clock and not by another; the try before: ";

/// For how long a call is tried.
pub(crate) struct Terms {
    pub(crate) try_for: Duration,
    pub(crate) give_up_after: Duration,
    pub(crate) backoff: Arc<dyn RetryPolicy + Send + Sync>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Terms {
    /// A lease is three times as long as a try: a part until the try begins at the latest, one for the try, and one for
    /// its result. `to_send` sees to the first one; the try may have half of the last one, too (`carry`).
    pub(crate) fn lease(&self) -> Duration {
        3 * self.try_for
    }

    /// The call, if it is to be sent under a lease that was asked for so long ago. Else what becomes of it: nothing
    /// more is known of it than before.
    fn to_send<'e>(&self, entry: &'e Entry, tried_for: Age, late: Duration) -> Result<&'e Call, Box<Update>> {
        let unsent = |state, reason| Update {
            may_have_taken_place: Some(entry.may_have_taken_place),
            ..Update::to(state, reason)
        };
        let Some(call) = &entry.call else {
            // The reason is in the entry.
            return Err(Box::new(unsent(State::Damaged, entry.reason.clone().unwrap_or_default())));
        };
        let (position, tried_for) = (entry.position, tried_for.plus(late));
        let before = entry.reason.as_deref().unwrap_or("no result was written");
        // The server may have forgotten its key by now.
        if entry.tries > 1 && tried_for.at_least >= self.give_up_after {
            let reason = format!("its time was over before it was sent again; the try before: {before}");
            return Err(Box::new(unsent(State::GivenUp, reason)));
        }
        // If it is, the server may have forgotten the key. A clock may be right again by the next time.
        if entry.tries > 1 && tried_for.at_most >= self.give_up_after {
            tracing::warn!(target: TARGET, position, ?tried_for, "the clocks of an outbox differ");
            let reason = format!("{HELD}{}", before.strip_prefix(HELD).unwrap_or(before));
            let update = Update { wait: LOOK_AGAIN, is_no_try: true, ..unsent(State::Waiting, reason) };
            return Err(Box::new(update));
        }
        // A try that began now could go on after the lease. This is none.
        if late >= self.try_for {
            tracing::warn!(target: TARGET, position, ?late, "the outbox is too slow for `try_for`");
            let update = unsent(State::Waiting, "the outbox was too slow to give it to a relay".to_owned());
            return Err(Box::new(Update { restarts: entry.tries == 1, is_no_try: true, ..update }));
        }
        Ok(call)
    }

    /// What becomes of a call after this try.
    fn settled(&self, next: Next, entry: &Entry, tried_for: Age) -> Update {
        match next {
            Next::End(update) => update,
            Next::Again(asked, update) => match self.wait(entry.tries, tried_for.at_least, asked) {
                Some(wait) => Update { state: State::Waiting, wait, ..update },
                None => update,
            },
        }
    }

    /// How long to wait after so many tries, in so long a time; `None`: there are to be no more.
    fn wait(&self, tries: u32, tried_for: Duration, asked: Duration) -> Option<Duration> {
        let now = SystemTime::now();
        let began = now.checked_sub(tried_for).unwrap_or(SystemTime::UNIX_EPOCH);
        let RetryDecision::Retry { execute_after } = self.backoff.should_retry(began, tries.saturating_sub(1)) else {
            return None;
        };
        let wait = execute_after.duration_since(now).unwrap_or_default().max(asked).min(MAX_WAIT);
        (tried_for.saturating_add(wait) < self.give_up_after).then_some(wait)
    }
}

/// Sends a call, of which the relay has asked for a lease at this time, and writes what has come of it. Returns the
/// reason if the call waits for its next try; `None`: it has ended.
pub(crate) async fn carry<S, B>(
    outbox: impl Outbox,
    client: S,
    terms: Arc<Terms>,
    Leased { entry, tried_for }: Leased,
    asked: Instant,
) -> Option<String>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Error>,
    B: Body<Data = Bytes> + Unpin,
{
    let until = asked + terms.lease();
    let update = match terms.to_send(&entry, tried_for, asked.elapsed()) {
        Err(update) => *update,
        Ok(call) => {
            // The rest of the lease is for the result.
            let (until, enough) = (until - terms.try_for / 2, Instant::now() + terms.try_for);
            let next = send(client, call, until, enough, entry.may_have_taken_place).await;
            terms.settled(next, &entry, tried_for.plus(asked.elapsed()))
        }
    };
    // A try before has met a success, whose body broke off. This one was for the whole answer.
    let has_succeeded = entry.answer.as_ref().is_some_and(|answer| answer.is_cut && answer.status.is_success());
    let update = if has_succeeded { delivered(update) } else { update };
    let state = update.state;
    let in_vain = (state == State::Waiting).then(|| update.reason.clone());
    // One that is held, or came too late to be sent, has not been tried.
    let observer = terms.observer.as_ref().filter(|_| !(update.is_no_try && state == State::Waiting));
    if write(&outbox, &entry, update, until).await
        && let Some(observer) = observer
    {
        observed(|| observer.tried(&entry.destination, state));
    }
    in_vain
}

/// Calls an observer. Without it, calls are sent all the same.
pub(crate) fn observed(event: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(event)).is_err() {
        tracing::error!(target: TARGET, "the observer has panicked");
    }
}

/// The end of a call of which a try before has met a success, whatever this one has met.
fn delivered(update: Update) -> Update {
    let answer = update.answer.filter(|answer| answer.status.is_success());
    let reason = format!("the server has answered with a success, which broke off; after that: {}", update.reason);
    match update.state {
        State::Delivered => Update { answer, ..update },
        _ => Update { answer, may_have_taken_place: Some(true), ..Update::to(State::Delivered, reason) },
    }
}

/// Sends the call, and reads what is kept of its answer until it is `enough`.
async fn send<S, B>(client: S, call: &Call, until: Instant, enough: Instant, earlier: bool) -> Next
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Error>,
    B: Body<Data = Bytes> + Unpin,
{
    let (head, mut rest) = match timeout_at(until, client.oneshot(call.request())).await {
        Ok(Ok(answer)) => answer.into_parts(),
        Ok(Err(error)) => return unanswered(&error, call, earlier),
        // The layer ends its attempts before. This is a service that is never ready.
        Err(_) => {
            let update = Update::to(State::GivenUp, "the client has not answered in time");
            return Next::Again(Duration::ZERO, Update { may_have_taken_place: Some(true), ..update });
        }
    };
    // The status has come, and counts, even if the body breaks off, or has no end.
    let kind = head.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase()).unwrap_or_default();
    let late = if kind.starts_with(b"text/event-stream") { Read::Enough } else { Read::Broken };
    let mut body = BytesMut::new();
    let read = timeout_at(enough, async {
        while let Some(frame) = rest.frame().await {
            let Ok(frame) = frame else { return Read::Broken };
            let data = frame.into_data().unwrap_or_default();
            let fits = data.len().min(Answer::MAX_BODY - body.len());
            body.extend_from_slice(&data[..fits]);
            if fits < data.len() {
                return Read::Enough;
            }
        }
        Read::Whole
    });
    let read = read.await.unwrap_or(late);
    answered(head, body.freeze(), read, earlier)
}

/// Writes the result, again and again while the lease lasts. Returns whether it is written.
async fn write(outbox: &impl Outbox, entry: &Entry, update: Update, until: Instant) -> bool {
    loop {
        let error = match outbox.update(entry, update.clone()).await {
            // Where it is not written now, it may be, and the reply to an earlier one was lost.
            Ok(is_now) => {
                let is_written = is_now || is_written(outbox, entry, &update).await;
                log(entry, &update, is_written);
                return is_written;
            }
            Err(error) => error,
        };
        if Instant::now() + WRITE_AGAIN >= until {
            // The call is sent again, with the same key.
            error.log("a call's result can't be written");
            return false;
        }
        error.log("a call's result can't be written yet");
        sleep(WRITE_AGAIN).await;
    }
}

/// Whether the last change of the entry was this one.
async fn is_written(outbox: &impl Outbox, entry: &Entry, update: &Update) -> bool {
    let Ok(Some(now)) = outbox.at(entry.position).await else { return false };
    now.fence == entry.fence + 1 && now.state == update.state && now.reason.as_ref() == Some(&update.reason)
}

fn log(entry: &Entry, update: &Update, is_written: bool) {
    let (position, state, reason) = (entry.position, update.state.as_str(), &*update.reason);
    match update.state {
        // Another relay has it by now, or an operator.
        _ if !is_written => {
            tracing::warn!(
                target: TARGET, position, state, reason, "a call's result came after its lease, and is not written"
            );
        }
        State::Refused | State::GivenUp | State::Damaged => {
            let may_have_taken_place = update.may_have_taken_place;
            tracing::warn!(target: TARGET, position, state, may_have_taken_place, reason, "a call has ended");
        }
        State::Waiting | State::Sending | State::Delivered => {
            tracing::debug!(target: TARGET, position, state, tries = entry.tries, reason, "a call was tried");
        }
    }
}

#[cfg(test)]
mod tests;
