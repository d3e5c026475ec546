use std::future::Ready;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use testkit::log::Log;
use tower::{BoxError, Layer as _};
use tower_idempotency_client::{Key, KeyedRetryLayer};

use super::*;
use crate::entry::tests::entry;
use crate::lease::Room;
use crate::{OpenCalls, OutboxError};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Permits two retries, each ten seconds from now, for a call that has been tried for so long.
struct Policy(Duration);

impl RetryPolicy for Policy {
    fn should_retry(&self, began: SystemTime, retries: u32) -> RetryDecision {
        match retries {
            0..=1 => RetryDecision::Retry { execute_after: began + self.0 + secs(10) },
            _ => RetryDecision::DoNotRetry,
        }
    }
}

fn terms(tried_for: Duration, give_up_after: Duration) -> Terms {
    Terms { try_for: secs(30), give_up_after, backoff: Arc::new(Policy(tried_for)), observer: None }
}

#[test]
fn a_call_waits_for_the_longer_time_and_is_given_up_by_tries_and_by_time() {
    const DAY: u64 = 24 * 60 * 60;
    for (tries, tried_for, asked, give_up_after, wait) in [
        (1, 0, 0, 1_000, Some(10)),
        (2, 0, 5, 1_000, Some(10)),
        (2, 0, 60, 1_000, Some(60)),
        // The policy has the last word, whatever the server asks for.
        (3, 0, 0, 1_000, None),
        (3, 0, 60, 1_000, None),
        // The next try comes before its time is over, by both waits.
        (1, 989, 0, 1_000, Some(10)),
        (1, 990, 0, 1_000, None),
        (1, 939, 60, 1_000, Some(60)),
        (1, 940, 60, 1_000, None),
        (1, 0, 1_000, 1_000, None),
        (1, 1_000, 0, 1_000, None),
        // No wait is longer than a day, and that is less than this time.
        (1, 0, 2 * DAY, 2 * DAY, Some(DAY)),
        (1, DAY, 2 * DAY, 2 * DAY, None),
    ] {
        let found = terms(secs(tried_for), secs(give_up_after)).wait(tries, secs(tried_for), secs(asked));
        assert_eq!(found, wait.map(secs), "{tries} tries in {tried_for} s, asked for {asked} s of {give_up_after} s");
    }
}

#[test]
fn a_call_is_sent_if_its_time_is_not_over_by_any_clock_and_the_lease_is_long_enough() {
    // State, whether its tries count from zero again, and whether the try was none.
    let (given_up, held) = (Some((State::GivenUp, false, false)), Some((State::Waiting, false, true)));
    let as_new = Some((State::Waiting, true, true));
    let call = Call::new(Request::post("http://api.example/").body("").unwrap()).unwrap();
    for (tries, at_least, at_most, late, expected) in [
        // The first try has its time before it.
        (1, 0, 0, 0, None),
        (1, 0, 0, 29, None),
        (1, 0, 0, 30, as_new),
        (1, 1_000, 1_000, 0, None),
        (1, 0, 1_000, 30, as_new),
        (2, 0, 999, 0, None),
        (2, 0, 999, 30, held),
        (2, 0, 900, 30, held),
        (2, 0, 1_000, 0, held),
        (2, 999, 1_000, 0, held),
        (2, 1_000, 1_000, 0, given_up),
        (2, 1_000, 1_000, 30, given_up),
        // The time since the lease was asked for counts.
        (2, 0, 999, 1, held),
        (2, 999, 999, 1, given_up),
    ] {
        for may_have_taken_place in [false, true] {
            let entry = Entry { call: Some(call.clone()), ..entry(tries, may_have_taken_place) };
            let age = Age { at_least: secs(at_least), at_most: secs(at_most) };
            let update = terms(Duration::ZERO, secs(1_000)).to_send(&entry, age, secs(late)).err();
            let name = format!("{tries} tries in {at_least} to {at_most} s, {late} s late");
            // Nothing was sent: what is known stays.
            let known = update.as_ref().map(|update| update.may_have_taken_place);
            assert_eq!(known, expected.map(|_| Some(may_have_taken_place)), "{name}");
            assert_eq!(update.map(|update| (update.state, update.restarts, update.is_no_try)), expected, "{name}");
        }
    }
}

/// An outbox with one entry, which loses its first reply. It may have made the change by then, or not.
#[derive(Debug, Clone)]
struct Lossy {
    writes: bool,
    entry: Arc<Mutex<Entry>>,
    has_lost: Arc<Mutex<bool>>,
}

impl Outbox for Lossy {
    async fn put(&self, _: &Call) -> Result<(), OutboxError> {
        Ok(())
    }

    async fn get(&self, _: &Key) -> Result<Option<Entry>, OutboxError> {
        Ok(None)
    }

    async fn at(&self, _: u64) -> Result<Option<Entry>, OutboxError> {
        Ok(Some(self.entry.lock().unwrap().clone()))
    }

    async fn list(&self, _: State, _: Option<u64>, _: u16) -> Result<Vec<Entry>, OutboxError> {
        Ok(Vec::new())
    }

    async fn open_calls(&self) -> Result<Vec<OpenCalls>, OutboxError> {
        Ok(Vec::new())
    }

    async fn lease(&self, _: Duration, _: Room) -> Result<Vec<Leased>, OutboxError> {
        Ok(Vec::new())
    }

    async fn update(&self, read: &Entry, update: Update) -> Result<bool, OutboxError> {
        let (mut entry, is_lost) =
            (self.entry.lock().unwrap(), !std::mem::replace(&mut *self.has_lost.lock().unwrap(), true));
        let is_same = entry.fence == read.fence;
        if is_same && (self.writes || !is_lost) {
            (entry.fence, entry.state, entry.reason) = (entry.fence + 1, update.state, Some(update.reason));
        } else if is_lost {
            // Another relay has it meanwhile.
            (entry.fence, entry.state) = (entry.fence + 1, State::Sending);
        }
        if is_lost { Err(OutboxError::database("the reply was lost")) } else { Ok(is_same) }
    }

    async fn sweep(&self, _: Duration) -> Result<bool, OutboxError> {
        Ok(false)
    }
}

#[tokio::test]
async fn a_result_whose_reply_was_lost_is_known_by_its_row() {
    for writes in [false, true] {
        let call = Call::new(Request::post("http://api.example/").body("").unwrap()).unwrap();
        let entry = Entry { call: Some(call), ..entry(1, true) };
        let outbox = Lossy { writes, entry: Arc::new(Mutex::new(entry.clone())), has_lost: Arc::default() };
        let update = Update::to(State::GivenUp, "as planned");
        outbox.update(&entry, update.clone()).await.unwrap_err();
        assert!(!outbox.update(&entry, update.clone()).await.unwrap());
        assert_eq!(is_written(&outbox, &entry, &update).await, writes);
        // So is that of a call that can't be read, by its position.
        assert_eq!(is_written(&outbox, &Entry { call: None, ..entry }, &update).await, writes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_not_written_in_time_is_said_unless_only_its_reply_was_lost() {
    let log = Log::begin(tracing::Level::WARN);
    for (writes, said) in [(true, "a call has ended"), (false, "a call's result came after its lease")] {
        let call = Call::new(Request::post("http://api.example/").body("").unwrap()).unwrap();
        let entry = Entry { call: Some(call), ..entry(1, true) };
        let outbox = Lossy { writes, entry: Arc::new(Mutex::new(entry.clone())), has_lost: Arc::default() };
        write(&outbox, &entry, Update::to(State::GivenUp, "as planned"), Instant::now() + secs(9)).await;
        let lines = log.lines();
        assert!(lines.len() == 2 && lines[0].contains("can't be written yet") && lines[1].contains(said), "{lines:?}");
        assert!(lines[1].contains("position=1 state=\"given_up\"") && lines[1].contains("reason=\"as planned\""));
    }
}

/// An outbox that fails so many times, and then takes a result. It counts how often it is asked.
#[derive(Debug, Clone)]
struct Failing {
    times: u32,
    asked: Arc<AtomicU32>,
}

impl Outbox for Failing {
    async fn put(&self, _: &Call) -> Result<(), OutboxError> {
        Ok(())
    }

    async fn get(&self, _: &Key) -> Result<Option<Entry>, OutboxError> {
        Ok(None)
    }

    async fn at(&self, _: u64) -> Result<Option<Entry>, OutboxError> {
        Ok(None)
    }

    async fn list(&self, _: State, _: Option<u64>, _: u16) -> Result<Vec<Entry>, OutboxError> {
        Ok(Vec::new())
    }

    async fn open_calls(&self) -> Result<Vec<OpenCalls>, OutboxError> {
        Ok(Vec::new())
    }

    async fn lease(&self, _: Duration, _: Room) -> Result<Vec<Leased>, OutboxError> {
        Ok(Vec::new())
    }

    async fn update(&self, _: &Entry, _: Update) -> Result<bool, OutboxError> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        assert!(asked < 20, "it is asked again and again");
        if asked < self.times { Err(OutboxError::database("as planned")) } else { Ok(true) }
    }

    async fn sweep(&self, _: Duration) -> Result<bool, OutboxError> {
        Ok(false)
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_is_written_again_each_half_second_while_the_lease_lasts() {
    let log = Log::begin(tracing::Level::WARN);
    // How often the outbox fails, how often it is asked, and whether the result is written at last.
    for (times, asked, is_written) in [(0, 1, true), (1, 2, true), (5, 6, true), (6, 6, false), (9, 6, false)] {
        let outbox = Failing { times, asked: Arc::default() };
        let began = Instant::now();
        write(&outbox, &entry(1, true), Update::to(State::Waiting, "why"), began + secs(3)).await;
        assert_eq!(outbox.asked.load(Ordering::SeqCst), asked, "{times}");
        assert_eq!(began.elapsed().as_millis(), u128::from(asked - 1) * WRITE_AGAIN.as_millis(), "{times}");
        // The call is sent again if it is not written.
        let lines: Vec<_> = log.lines().iter().map(|line| line.contains("be written yet")).collect();
        let mut expected = vec![true; asked as usize - 1];
        expected.extend((!is_written).then_some(false));
        assert_eq!(lines, expected, "{times}");
    }
}

/// A client that never takes a request.
#[derive(Clone)]
struct NeverReady;

impl Service<Request<Full<Bytes>>> for NeverReady {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        unreachable!("it is not ready")
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_never_ready_lets_the_call_go_when_its_time_is_over() {
    let call = Call::new(Request::post("http://api.example/").body("").unwrap()).unwrap();
    let (client, now) = (KeyedRetryLayer::new().layer(NeverReady), Instant::now());
    let next = send(client, &call, now + secs(5), now + secs(3), false).await;
    assert_eq!(now.elapsed(), secs(5));
    // Whether it is there once more is what the policy says.
    let Next::Again(Duration::ZERO, update) = next else { panic!("{next:?}") };
    assert_eq!((update.state, update.may_have_taken_place), (State::GivenUp, Some(true)));
    assert_eq!(update.reason, "the client has not answered in time");
}

#[tokio::test(start_paused = true)]
async fn a_try_ends_in_time_for_its_result_and_so_does_the_body_of_an_answer() {
    let call = Call::new(Request::post("http://api.example/").body("").unwrap()).unwrap();
    let leased = || Leased { entry: Entry { call: Some(call.clone()), ..entry(1, true) }, tried_for: Age::default() };
    let terms = Arc::new(terms(Duration::ZERO, secs(1_000)));
    let outbox = Failing { times: 0, asked: Arc::default() };
    let layer = || KeyedRetryLayer::new().max_answer(0);
    // The half of a try is left of the lease, which is three times as long.
    let began = Instant::now();
    let carried = carry(outbox.clone(), layer().layer(NeverReady), Arc::clone(&terms), leased(), began).await;
    assert!(carried.as_ref().is_some_and(|reason| reason.contains("in time")), "{carried:?}");
    assert_eq!(began.elapsed(), secs(75));
    // A body has the time of a try, whatever it is. A stream has not broken off then.
    for (kind, has_ended) in [("text/event-stream", true), ("Text/Event-Stream", true), ("text/plain", false)] {
        let endless = tower::service_fn(move |_: Request<Full<Bytes>>| {
            let frames = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, BoxError>>();
            let answer = Response::builder().header(CONTENT_TYPE, kind).body(http_body_util::StreamBody::new(frames));
            std::future::ready(Ok::<_, BoxError>(answer.unwrap()))
        });
        let began = Instant::now();
        let carried = carry(outbox.clone(), layer().layer(endless), Arc::clone(&terms), leased(), began).await;
        assert_eq!(carried.is_none(), has_ended, "{carried:?}");
        assert_eq!(began.elapsed(), secs(30));
    }
    assert_eq!(outbox.asked.load(Ordering::SeqCst), 4);
}
