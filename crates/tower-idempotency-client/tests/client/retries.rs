//! What is tried again, when, and with which key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty, Full};
use retry_policies::policies::ExponentialBackoff;
use tokio::time::Instant;
use tower::retry::budget::Budget;
use tower::{Layer as _, ServiceExt as _};
use tower_idempotency_client::{Delivery, KeyedRetryLayer, Known, Reason, SentOnce};

use crate::script::{Asked, Script, post};

#[tokio::test(start_paused = true)]
async fn trap_64_each_attempt_has_the_same_key_and_the_same_bytes() {
    let script = Script::default()
        .fails("connection reset")
        .hangs()
        .answers(425, &[], "")
        .answers(429, &[], "")
        .answers(502, &[], "")
        .answers(503, &[], "")
        .problem(409, "in-flight", true)
        .breaks_off(200, &[])
        .answers(200, &[("idempotent-replayed", "true")], "charged");
    let answer = script.post(&KeyedRetryLayer::new().deadline(Duration::from_secs(300))).await.unwrap();
    let delivery = Delivery::of(&answer).unwrap().clone();
    assert!(delivery.is_replay() && !delivery.is_unknown());
    assert_eq!(delivery.attempts(), 9);
    assert_eq!(script.keys(), vec![delivery.key().as_str().to_owned(); 9]);
    assert!(script.sent().iter().all(|request| request.body() == "amount=5" && request.uri().path() == "/charges"));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "charged");
}

#[tokio::test(start_paused = true)]
async fn two_calls_have_two_keys() {
    let (script, layer) = (Script::default().answers(200, &[], "").answers(200, &[], ""), KeyedRetryLayer::new());
    script.call(&layer, post("amount=5")).await.unwrap();
    script.call(&layer, post("amount=5")).await.unwrap();
    let keys = script.keys();
    assert_ne!(keys[0], keys[1]);
    assert!(keys.iter().all(|key| uuid::Uuid::parse_str(key).unwrap().get_version_num() == 4), "{keys:?}");
}

#[tokio::test(start_paused = true)]
async fn a_422_is_not_retried() {
    for (name, value) in [("x-should-retry", "true"), ("retry-after", "1")] {
        let answer = Script::default().answers(422, &[(name, value)], "").post(&KeyedRetryLayer::new()).await.unwrap();
        assert_eq!(answer.status(), 422);
    }
    let error = Script::default().problem(422, "key-reused", true).post(&KeyedRetryLayer::new()).await.unwrap_err();
    assert_eq!((error.known(), error.reason()), (Known::Unknown, Reason::Rejected));
}

#[tokio::test(start_paused = true)]
async fn a_replayed_error_is_final() {
    let lines = [("idempotent-replayed", "true"), ("retry-after", "1")];
    for status in [429, 500, 503] {
        let answer = Script::default().answers(status, &lines, "").post(&KeyedRetryLayer::new()).await.unwrap();
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn the_header_of_replays_may_have_another_name() {
    let layer = KeyedRetryLayer::new().replay_header_name(http::HeaderName::from_static("x-replay"));
    let answer = Script::default().answers(503, &[("x-replay", "true")], "").post(&layer).await.unwrap();
    assert!(Delivery::of(&answer).unwrap().is_replay());
    let script = Script::default().answers(503, &[("idempotent-replayed", "true")], "").answers(200, &[], "");
    assert!(!Delivery::of(&script.post(&layer).await.unwrap()).unwrap().is_replay());
    // Another value is no mark.
    let script = Script::default().answers(503, &[("x-replay", "false")], "").answers(200, &[], "");
    assert!(!Delivery::of(&script.post(&layer).await.unwrap()).unwrap().is_replay());
}

#[tokio::test(start_paused = true)]
async fn retry_after_comes_before_the_next_attempt() {
    let date = [("date", "Thu, 26 Nov 2026 10:00:00 GMT"), ("retry-after", "Thu, 26 Nov 2026 10:00:20 GMT")];
    for lines in [&date[..], &[("retry-after", "20")], &[("retry-after", " 20\t")]] {
        let script = Script::default().answers(429, lines, "").answers(200, &[], "");
        let began = Instant::now();
        script.post(&KeyedRetryLayer::new()).await.unwrap();
        let waited = began.elapsed();
        assert!((Duration::from_secs(20)..Duration::from_secs(21)).contains(&waited), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_are_asked_to_come_back_at_one_time_do_not_come_back_at_one_instant() {
    let mut waits = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let script = Script::default().answers(429, &[("retry-after", "20")], "").answers(200, &[], "");
        let began = Instant::now();
        script.post(&KeyedRetryLayer::new()).await.unwrap();
        waits.insert(began.elapsed());
    }
    assert!(waits.len() > 1, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_the_deadline_ends_the_call_at_once() {
    let began = Instant::now();
    let error = Script::default().answers(429, &[("retry-after", "60")], "").post(&KeyedRetryLayer::new()).await;
    let error = error.unwrap_err();
    assert_eq!((error.known(), error.reason()), (Known::Refused, Reason::Deadline));
    assert_eq!(error.response().unwrap().status(), 429);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn trap_64_waits_are_random_and_double() {
    let mut waits = Vec::new();
    for _ in 0..40 {
        let script = Script::default().fails("reset").fails("reset").fails("reset").answers(200, &[], "");
        let began = Instant::now();
        script.post(&KeyedRetryLayer::new()).await.unwrap();
        waits.push(began.elapsed());
    }
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    // Bounds of 0.5, 1 and 2 s. tokio's clock has milliseconds.
    assert!(*most <= Duration::from_millis(3510), "{most:?}");
    assert!(*least < Duration::from_millis(1750) && *most > Duration::from_millis(1750), "{least:?} {most:?}");
}

#[tokio::test(start_paused = true)]
async fn trap_64_waits_double_up_to_eight_seconds() {
    let mut most = Duration::ZERO;
    for _ in 0..100 {
        let script = (0..9).fold(Script::default(), |script, _| script.fails("reset")).answers(200, &[], "");
        let began = Instant::now();
        script.post(&KeyedRetryLayer::new()).await.unwrap();
        most = most.max(began.elapsed());
    }
    // Bounds of 0.5, 1, 2, 4 and five times 8 s. With 4 s as the last one, they are 27.5 s together.
    assert!((Duration::from_millis(27_510)..=Duration::from_millis(47_510)).contains(&most), "{most:?}");
}

#[tokio::test(start_paused = true)]
async fn trap_64_all_attempts_together_have_a_deadline() {
    let began = Instant::now();
    let script = Script::default().hangs().hangs().hangs();
    let layer = KeyedRetryLayer::new().attempt_timeout(Duration::from_secs(4)).deadline(Duration::from_secs(10));
    let error = script.call(&layer, post("amount=5")).await.unwrap_err();
    assert_eq!((error.known(), error.reason()), (Known::Unknown, Reason::Deadline));
    assert!(began.elapsed() <= Duration::from_millis(10_010), "{:?}", began.elapsed());
    assert!(script.attempts() >= 2);
}

#[tokio::test(start_paused = true)]
async fn the_backoff_policy_limits_attempts() {
    let backoff = ExponentialBackoff::builder().build_with_max_retries(2);
    let script = Script::default().fails("reset").fails("reset").answers(503, &[], "down");
    let error = script.post(&KeyedRetryLayer::new().backoff(backoff)).await.unwrap_err();
    assert_eq!((error.known(), error.reason(), error.attempts()), (Known::Unknown, Reason::Backoff, 3));
    assert_eq!(error.response().unwrap().body(), "down");
}

/// A budget that counts what is taken from it.
#[derive(Clone)]
struct Counting {
    is_empty: bool,
    taken: Arc<AtomicUsize>,
}

impl Budget for Counting {
    fn deposit(&self) {}

    fn withdraw(&self) -> bool {
        self.taken.fetch_add(1, Ordering::SeqCst);
        !self.is_empty
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_for_the_first_of_its_reasons_and_pays_for_no_retry_that_is_not_made() {
    let reasons = [Reason::Rejected, Reason::SentOnce, Reason::Backoff, Reason::Deadline, Reason::Budget];
    for reasons_there in 0..1 << reasons.len() {
        let is_there =
            |reason| reasons.iter().position(|each| *each == reason).is_some_and(|at| reasons_there >> at & 1 == 1);
        // The deadline is after a minute.
        let after = if is_there(Reason::Deadline) { "60" } else { "1" };
        let script = match is_there(Reason::Rejected) {
            true => Script::default().problem(409, "outcome-unknown", false),
            false => Script::default().answers(503, &[("retry-after", after)], ""),
        };
        let script = script.answers(200, &[], "");
        let backoff = ExponentialBackoff::builder().build_with_max_retries(u32::from(!is_there(Reason::Backoff)));
        let budget = Counting { is_empty: is_there(Reason::Budget), taken: Arc::default() };
        let layer = KeyedRetryLayer::new().backoff(backoff).budget(budget.clone());
        let result = match is_there(Reason::SentOnce) {
            true => script.call(&layer, post("amount=5").map(SentOnce::new)).await,
            false => script.call(&layer, post("amount=5")).await,
        };
        let expected = reasons.into_iter().find(|reason| is_there(*reason));
        let attempts = if expected.is_none() { 2 } else { 1 };
        assert_eq!((result.err().map(|error| error.reason()), script.attempts()), (expected, attempts));
        // The budget is asked last.
        let is_asked = matches!(expected, None | Some(Reason::Budget));
        assert_eq!(budget.taken.load(Ordering::SeqCst), usize::from(is_asked), "{expected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn trap_65_a_body_that_cannot_be_sent_again_is_sent_once() {
    let script = Script::default().fails("connection reset");
    let (layer, request) = (KeyedRetryLayer::new(), post("amount=5").map(SentOnce::new));
    let error = script.call(&layer, request).await.unwrap_err();
    assert_eq!((error.known(), error.reason(), error.attempts()), (Known::Unknown, Reason::SentOnce, 1));
    assert_eq!(script.keys(), [error.key().unwrap().as_str()]);
    assert!(error.to_string().contains("can't be sent again"), "{error}");
    // The key asks again, whether the body can be read before it is sent or not.
    for is_stream in [false, true] {
        let script = Script::default().answers(200, &[("idempotent-replayed", "true")], "");
        let mut request = post("amount=5");
        request.extensions_mut().insert(error.key().unwrap().clone());
        let answer = match is_stream {
            true => script.call(&layer, request.map(SentOnce::new)).await,
            false => script.call(&layer, request).await,
        };
        assert!(Delivery::of(&answer.unwrap()).unwrap().is_replay());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_long_or_a_stream_is_passed_on_as_it_comes() {
    let layer = KeyedRetryLayer::new();
    let passed_on = [
        (layer.clone().max_answer(5), &[][..]),
        (layer.clone(), &[("content-length", "1048577")]),
        (layer, &[("content-type", "Text/Event-Stream; charset=utf-8")]),
    ];
    for (layer, lines) in passed_on {
        let answer = Script::default().breaks_off(200, lines).post(&layer).await.unwrap();
        let mut body = answer.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "{\"id\":");
        assert!(body.frame().await.unwrap().is_err(), "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_of_an_answer_that_is_passed_on_as_it_comes() {
    let layer = KeyedRetryLayer::new();
    let passed_on = [
        (layer.clone().max_answer(0), &[][..]),
        (layer.clone(), &[("content-length", "1048577")]),
        (layer, &[("content-type", "text/event-stream")]),
    ];
    for (layer, lines) in passed_on {
        let began = Instant::now();
        assert_eq!(Script::default().stalls(lines).post(&layer).await.unwrap().status(), 200);
        assert_eq!(began.elapsed(), Duration::ZERO, "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_that_no_clock_has_is_no_limit() {
    let layer = KeyedRetryLayer::new().attempt_timeout(Duration::MAX).deadline(Duration::MAX);
    let script = Script::default().fails("reset").answers(200, &[], "");
    assert_eq!(script.post(&layer).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_greatest_length_is_read_and_asked_for_again_if_it_breaks_off() {
    let layer = KeyedRetryLayer::new();
    let read = [(layer.clone().max_answer(6), &[][..]), (layer, &[("content-length", "1048576")])];
    for (layer, lines) in read {
        let script = Script::default().breaks_off(200, lines).answers(200, &[], "whole");
        let answer = script.post(&layer).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "whole", "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_length_of_an_answer_is_known_however_much_of_it_was_read() {
    for limit in [0, 3, 100] {
        let script = Script::default().answers(200, &[], "{\"id\":7}");
        let mut body = script.post(&KeyedRetryLayer::new().max_answer(limit)).await.unwrap().into_body();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(8), false), "{limit}");
        body.frame().await.unwrap().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true), "{limit}");
    }
    // One whose length the server does not say, and whose end is not asked for twice.
    let mut body =
        Script::default().answers_in(&["{\"id\":", "7}"]).post(&KeyedRetryLayer::new()).await.unwrap().into_body();
    for (frame, left) in [("{\"id\":", 8), ("7}", 2)] {
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(left), false));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), frame);
    }
    assert!(body.is_end_stream() && body.frame().await.is_none());
}

#[test]
fn a_body_that_is_sent_once_says_its_length_and_its_end() {
    for (text, is_empty) in [("", true), ("a", false)] {
        let body = SentOnce::new(Full::<Bytes>::from(text));
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(text.len() as u64), is_empty));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_asked_once_for_each_attempt_whether_it_is_ready() {
    let (script, asked) = (Script::default().answers(503, &[], "").answers(200, &[], ""), Arc::default());
    let service = KeyedRetryLayer::new().layer(Asked(script.service(), Arc::clone(&asked)));
    service.oneshot(post("")).await.unwrap();
    assert_eq!((asked.load(Ordering::SeqCst), script.attempts()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_is_sent_again() {
    let script = Script::default().answers(503, &[], "").answers(200, &[], "");
    let answer = script.call(&KeyedRetryLayer::new(), post("").map(|_| Empty::<Bytes>::new())).await.unwrap();
    assert_eq!((answer.status().as_u16(), script.attempts()), (200, 2));
}

#[tokio::test(start_paused = true)]
async fn by_default_an_attempt_has_thirty_seconds_and_a_call_has_sixty() {
    let began = Instant::now();
    Script::default().hangs().answers(200, &[], "").post(&KeyedRetryLayer::new()).await.unwrap();
    let waited = began.elapsed();
    assert!((Duration::from_secs(30)..Duration::from_secs(31)).contains(&waited), "{waited:?}");
    let backoff = ExponentialBackoff::builder().retry_bounds(Duration::ZERO, Duration::ZERO).build_with_max_retries(9);
    let began = Instant::now();
    let error = Script::default().hangs().hangs().post(&KeyedRetryLayer::new().backoff(backoff)).await.unwrap_err();
    assert_eq!((error.reason(), began.elapsed().as_secs()), (Reason::Deadline, 60));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_read_whatever_the_limit_of_answers() {
    let script = Script::default().problem(409, "outcome-unknown", false);
    let error = script.post(&KeyedRetryLayer::new().max_answer(0)).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Rejected);
}
