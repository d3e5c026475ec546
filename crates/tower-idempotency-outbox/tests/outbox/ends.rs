//! Each call comes to a definite end, by what the server has answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use retry_policies::Jitter;
use retry_policies::policies::ExponentialBackoff;
use testkit::process::until;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_idempotency_client::KeyedRetryLayer;
use tower_idempotency_outbox::{Answer, Entry, Outbox, Relay, State};

use crate::home::{Home, call, over_both};
use crate::server::{Reply, answer, entry, relay, run_until, server, server_of};

over_both!(
    a_call_is_delivered_once_and_its_answer_is_kept,
    an_answer_ends_a_call_or_lets_it_be_tried_again,
    trap_129_a_refusal_after_a_lost_try_is_no_proof_that_nothing_was_done,
    a_key_that_the_client_has_used_for_another_request_is_given_up_unsent,
    an_answer_counts_however_long_it_is_and_if_it_breaks_off,
    a_success_that_breaks_off_is_asked_for_once_more,
    an_answer_is_kept_up_to_its_bound_in_however_many_parts_it_comes,
    headers_of_an_answer_are_kept_as_long_as_they_fit_together,
    a_try_that_gets_no_answer_says_why_with_every_cause,
    no_redirect_is_followed,
);

async fn a_call_is_delivered_once_and_its_answer_is_kept(home: impl Home) {
    let (client, log) = server_of(201, &[("x-charge", "7"), ("set-cookie", "secret")], "charge 7");
    home.order("1", &[call(1)], false).await.unwrap();
    let entry = run_until(relay(home.outbox(), &client), home.outbox(), call(1).key(), State::Delivered).await;
    let kept = entry.answer.unwrap();
    assert_eq!((kept.status, &*kept.body, kept.is_cut), (StatusCode::CREATED, &b"charge 7"[..], false));
    assert_eq!(kept.headers["x-charge"], "7");
    assert!(!kept.headers.contains_key("set-cookie"));
    assert_eq!((entry.tries, entry.may_have_taken_place), (1, true));
    let got = log.all();
    assert_eq!((got.len(), &*got[0].key, &*got[0].body), (1, "order-1:charge", "charge 1"));
    // A long answer is kept in part.
    static LONG: [u8; 40_000] = [b'a'; 40_000];
    let (client, _) = server_of(200, &[], str::from_utf8(&LONG).unwrap());
    home.outbox().put(&call(2)).await.unwrap();
    let entry = run_until(relay(home.outbox(), &client), home.outbox(), call(2).key(), State::Delivered).await;
    let kept = entry.answer.unwrap();
    assert_eq!((kept.body.len(), kept.is_cut), (32 << 10, true));
}

const PROBLEM: &[(&str, &str)] = &[("content-type", "application/problem+json")];
const NONCE: &[(&str, &str)] = &[("content-type", "application/json"), ("dpop-nonce", "n-1")];
const HOUR: Duration = Duration::from_secs(60 * 60);

fn problem(name: &str, retry: bool) -> &'static str {
    let kind = format!("https://docs.rs/tower-idempotency/latest/tower_idempotency/#{name}");
    format!(r#"{{"type":"{kind}","code":"{name}","retry_with_same_key":{retry},"original_status":201}}"#).leak()
}

/// A rejection of the application's own, before anything was done.
fn own() -> &'static str {
    problem("custom", false).replace(r#","original_status":201"#, "").leak()
}

fn not_kept(original: u16) -> &'static str {
    problem("not-replayable", false).replace("201", &original.to_string()).leak()
}

/// What the server answers to a call, and whether a try before it was lost.
pub(crate) type Case = (Arc<dyn Fn() -> Reply + Send + Sync>, bool);

/// What has become of calls: the state, whether the operation may have taken place, and whether there was another try.
pub(crate) async fn after(home: &impl Home, cases: Vec<Case>) -> Vec<(State, bool, bool)> {
    let (outbox, all) = (home.outbox(), 0..cases.len() as u32);
    let is_lost = |number: u32| cases[number as usize].1;
    let count = async |state| outbox.list(state, None, 1_000).await.unwrap().len();
    let lost: Vec<_> = all.clone().filter(|number| is_lost(*number)).collect();
    for number in &lost {
        outbox.put(&call(*number)).await.unwrap();
    }
    let (broken, log) = server(|_, _| async { Err("the connection broke".into()) });
    let later = ExponentialBackoff::builder().jitter(Jitter::None).retry_bounds(HOUR, HOUR);
    let tried = async || log.all().len() == lost.len() && count(State::Waiting).await == lost.len();
    relay(outbox, &broken).backoff(later.build_with_max_retries(9)).run(until("they are lost", tried)).await;
    for number in &lost {
        home.end_lease(&entry(outbox, call(*number).key()).await).await;
    }
    for number in all.clone().filter(|number| !is_lost(*number)) {
        outbox.put(&call(number)).await.unwrap();
    }
    // Another process, whose client remembers nothing. It has room for one or two tries more than it needs.
    let replies: Vec<_> = cases.iter().map(|(reply, _)| Arc::clone(reply)).collect();
    let (client, _) = server(move |body, _| {
        let number: usize = body.strip_prefix("charge ").unwrap().parse().unwrap();
        std::future::ready(replies[number]())
    });
    let soon = ExponentialBackoff::builder().retry_bounds(Duration::from_millis(1), Duration::from_millis(2));
    // A call may go from one state to another between two counts, but not out of an end.
    let ends = async || count(State::Delivered).await + count(State::Refused).await + count(State::GivenUp).await;
    let all_ended = async || ends().await == cases.len();
    relay(outbox, &client).backoff(soon.build_with_max_retries(2)).run(until("all have ended", all_ended)).await;
    let mut found = Vec::new();
    for number in all {
        let entry: Entry = entry(outbox, call(number).key()).await;
        assert!(entry.reason.is_some());
        found.push((entry.state, entry.may_have_taken_place, entry.tries > 1 + u32::from(is_lost(number))));
    }
    found
}

async fn an_answer_ends_a_call_or_lets_it_be_tried_again(home: impl Home) {
    use State::{Delivered, GivenUp, Refused};
    const ELSEWHERE: &[(&str, &str)] = &[("location", "http://elsewhere.example/")];
    // What becomes of the call without a try before, and after one that was lost.
    type Row = (fn() -> Reply, (State, bool, bool), (State, bool, bool));
    let unknown = (GivenUp, true, true);
    let rows: [Row; 16] = [
        (|| answer(307, ELSEWHERE, ""), (Refused, false, false), (GivenUp, true, false)),
        (|| answer(303, ELSEWHERE, ""), (GivenUp, true, false), (GivenUp, true, false)),
        (|| answer(409, PROBLEM, problem("outcome-unknown", false)), (GivenUp, true, false), (GivenUp, true, false)),
        (|| answer(409, PROBLEM, problem("not-replayable", false)), (Delivered, true, false), (Delivered, true, false)),
        (|| answer(409, PROBLEM, not_kept(402)), (Refused, false, false), (Refused, false, false)),
        (|| answer(401, PROBLEM, not_kept(402)), (Refused, false, false), (Refused, false, false)),
        (|| answer(409, PROBLEM, not_kept(500)), (GivenUp, true, false), (GivenUp, true, false)),
        (|| answer(502, PROBLEM, own()), (GivenUp, true, false), (GivenUp, true, false)),
        // The credentials may be replaced.
        (|| answer(401, PROBLEM, own()), (GivenUp, false, true), unknown),
        // The application refuses the replay of what was done.
        (|| answer(401, PROBLEM, problem("custom", false)), (Delivered, true, false), (Delivered, true, false)),
        (|| answer(502, PROBLEM, problem("custom", false)), (Delivered, true, false), (Delivered, true, false)),
        // A nonce for the next proof, and a nonce without a wish for it.
        (|| answer(400, NONCE, r#"{"error":"use_dpop_nonce"}"#), (GivenUp, false, true), unknown),
        (|| answer(400, NONCE, r#"{"error":"invalid_request"}"#), (Refused, false, false), unknown),
        (|| answer(400, PROBLEM, problem("key-missing", false)), (Refused, false, false), (GivenUp, true, false)),
        (|| answer(409, PROBLEM, problem("in-flight", true)), unknown, unknown),
        (|| Err("the connection broke".into()), unknown, unknown),
    ];
    let cases = rows.iter().flat_map(|row| [false, true].map(|is_lost| (Arc::new(row.0) as Arc<_>, is_lost)));
    let found = after(&home, cases.collect()).await;
    for (row, found) in rows.iter().zip(found.chunks(2)) {
        assert_eq!(found, [row.1, row.2], "{:?}", row.0());
    }
}

async fn trap_129_a_refusal_after_a_lost_try_is_no_proof_that_nothing_was_done(home: impl Home) {
    let (outbox, key) = (home.outbox(), call(1).key().clone());
    let (lost, log) = server(|_, _| async { Err("the connection broke".into()) });
    outbox.put(&call(1)).await.unwrap();
    relay(outbox, &lost).run(until("a try", async || !log.all().is_empty())).await;
    // Another process, whose client remembers nothing.
    let (refuses, log) = server_of(400, &[], "");
    relay(outbox, &refuses).run(until("two tries", async || log.all().len() > 1)).await;
    let waiting = entry(outbox, &key).await;
    assert_eq!((waiting.state, waiting.may_have_taken_place), (State::Waiting, true));
    let begun = waiting.first_try;
    // Nor is it a proof that the server has no room, or that it has another request with the key.
    let (busy, log) = server_of(429, &[], "");
    relay(outbox, &busy).run(until("two tries", async || log.all().len() > 1)).await;
    let waiting = entry(outbox, &key).await;
    assert_eq!((waiting.state, waiting.may_have_taken_place), (State::Waiting, true));
    assert_eq!(waiting.first_try, begun);
    let given_up = run_until(relay(outbox, &refuses).give_up_after(Duration::ZERO), outbox, &key, State::GivenUp).await;
    assert!(given_up.may_have_taken_place);
}

async fn a_key_that_the_client_has_used_for_another_request_is_given_up_unsent(home: impl Home) {
    let (client, log) = server_of(200, &[], "");
    let layer = KeyedRetryLayer::new();
    let other = Request::post("http://api.example/charges").extension(call(1).key().clone());
    let other = other.body(Full::new(Bytes::from("another charge"))).unwrap();
    layer.layer(client.clone()).oneshot(other).await.unwrap();
    home.outbox().put(&call(1)).await.unwrap();
    let relay = relay(home.outbox(), &client).layer(layer);
    let entry = run_until(relay, home.outbox(), call(1).key(), State::GivenUp).await;
    assert_eq!((entry.may_have_taken_place, log.all().len()), (false, 1));
}

async fn an_answer_counts_however_long_it_is_and_if_it_breaks_off(home: impl Home) {
    let outbox = home.outbox();
    // Its body breaks off, or has no end. In JSON it may be a rejection, of which the rest could say more.
    let once = ExponentialBackoff::builder().build_with_max_retries(0);
    let cases = [
        (200, "text/plain", State::Delivered, true, 2),
        (200, "text/event-stream", State::Delivered, true, 1),
        (201, "application/json", State::Delivered, true, 2),
        (302, "text/plain", State::GivenUp, true, 1),
        (400, "text/plain", State::Refused, false, 1),
        (400, "application/json", State::GivenUp, true, 2),
        (500, "text/plain", State::GivenUp, true, 2),
    ];
    let cases = cases.into_iter().flat_map(|case| [false, true].map(|is_endless| (case, is_endless)));
    for (number, ((status, kind, state, may_have_taken_place, tries), is_endless)) in (10..).zip(cases) {
        // A stream that has no end has not broken off.
        let tries = tries + u32::from(kind == "text/event-stream" && !is_endless);
        let client = service_fn(move |_: Request<Full<Bytes>>| async move {
            let first = futures_util::stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from("{\"id")))]);
            let rest = futures_util::stream::poll_fn(move |_| match is_endless {
                true => Poll::Pending,
                false => Poll::Ready(Some(Err("the connection broke".into()))),
            });
            let body = BodyExt::boxed_unsync(StreamBody::new(first.chain(rest)));
            Ok::<_, BoxError>(Response::builder().status(status).header("content-type", kind).body(body).unwrap())
        });
        let (key, name) = (call(number).key().clone(), format!("{status} {kind}, endless: {is_endless}"));
        outbox.put(&call(number)).await.unwrap();
        let has_ended =
            until("it has ended", async || !matches!(entry(outbox, &key).await.state, State::Waiting | State::Sending));
        let twice = ExponentialBackoff::builder().retry_bounds(Duration::from_millis(1), Duration::from_millis(2));
        Relay::new(outbox.clone(), client)
            .layer(KeyedRetryLayer::new().backoff(once))
            .backoff(twice.build_with_max_retries(1))
            .try_for(Duration::from_secs(1))
            .poll_every(Duration::from_millis(5))
            .run(has_ended)
            .await;
        let ended = entry(outbox, &key).await;
        let found = (ended.state, ended.may_have_taken_place, ended.tries);
        assert_eq!(found, (state, may_have_taken_place, tries), "{name}: {:?}", ended.reason);
        let kept = ended.answer.expect(&name);
        assert_eq!((kept.status.as_u16(), &*kept.body, kept.is_cut), (status, &b"{\"id"[..], true), "{name}");
        assert!(ended.reason.unwrap().contains(&status.to_string()), "{name}");
    }
    // Its headers are longer than what is kept, and its body is as long as that.
    let long: &str = "\"".repeat(30_000).leak();
    let names = ["x-0", "x-1", "x-2", "x-3", "x-4", "x-5", "x-6", "x-7"];
    let (client, _) = server(move |_, _| async move { answer(200, &names.map(|name| (name, long)), long) });
    outbox.put(&call(2)).await.unwrap();
    let delivered = run_until(relay(outbox, &client), outbox, call(2).key(), State::Delivered).await;
    assert_eq!(delivered.answer.unwrap().body.len(), long.len());
}

async fn a_success_that_breaks_off_is_asked_for_once_more(home: impl Home) {
    // What the second try meets, and the answer that is kept; `None` is what has come in the first one.
    type Row = (fn() -> Reply, u16, Option<&'static str>);
    let outbox = home.outbox();
    let second: [Row; 4] = [
        (|| answer(200, &[("idempotent-replayed", "true")], "whole"), 200, Some("whole")),
        (|| answer(400, &[], "unknown key"), 201, None),
        (|| answer(500, &[], ""), 201, None),
        (|| Err("the connection broke".into()), 201, None),
    ];
    let cases = second.into_iter().flat_map(|second| ["", "w", "wh"].map(|first| (first, second)));
    for (number, (first, (second, status, whole))) in (1..).zip(cases) {
        let tries = Arc::new(AtomicU32::new(0));
        let client = service_fn(move |_: Request<Full<Bytes>>| {
            let is_first = tries.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if !is_first {
                    return second().map(|answer| answer.map(|body| body.map_err(BoxError::from).boxed_unsync()));
                }
                let come = (!first.is_empty()).then(|| Ok(Frame::data(Bytes::from(first))));
                let frames = come.into_iter().chain([Err(BoxError::from("the connection broke"))]);
                let body = BodyExt::boxed_unsync(StreamBody::new(futures_util::stream::iter(frames)));
                Ok(Response::builder().status(201).body(body).unwrap())
            }
        });
        outbox.put(&call(number)).await.unwrap();
        let once = ExponentialBackoff::builder().build_with_max_retries(0);
        let soon = ExponentialBackoff::builder().retry_bounds(Duration::from_millis(1), Duration::from_millis(2));
        let is_delivered = async || entry(outbox, call(number).key()).await.state == State::Delivered;
        Relay::new(outbox.clone(), client)
            .layer(KeyedRetryLayer::new().backoff(once))
            .backoff(soon.build_with_max_retries(9))
            .poll_every(Duration::from_millis(5))
            .run(until("it is delivered", is_delivered))
            .await;
        let delivered = entry(outbox, call(number).key()).await;
        assert_eq!((delivered.tries, delivered.may_have_taken_place), (2, true));
        let kept = delivered.answer.unwrap();
        let expected = (status, whole.unwrap_or(first).as_bytes(), whole.is_none());
        assert_eq!((kept.status.as_u16(), &*kept.body, kept.is_cut), expected, "{number}");
    }
}

async fn an_answer_is_kept_up_to_its_bound_in_however_many_parts_it_comes(home: impl Home) {
    const MOST: usize = Answer::MAX_BODY;
    let outbox = home.outbox();
    let parts: [&[usize]; 7] = [
        &[MOST - 1, 1],
        &[MOST - 1, 2],
        &[MOST, 1],
        &[MOST + 1],
        &[20_000, 20_000],
        &[1, MOST, 1],
        &[MOST / 2, MOST / 2],
    ];
    for (number, parts) in (1..).zip(parts) {
        let parts: Vec<_> = (b'a'..).zip(parts).map(|(byte, length)| Bytes::from(vec![byte; *length])).collect();
        let whole = parts.concat();
        let client = service_fn(move |_: Request<Full<Bytes>>| {
            let frames = parts.clone().into_iter().map(|part| Ok::<_, BoxError>(Frame::data(part)));
            std::future::ready(Ok::<_, BoxError>(Response::new(StreamBody::new(futures_util::stream::iter(frames)))))
        });
        outbox.put(&call(number)).await.unwrap();
        let is_delivered = async || entry(outbox, call(number).key()).await.state == State::Delivered;
        Relay::new(outbox.clone(), client).run(until("it is delivered", is_delivered)).await;
        let kept = entry(outbox, call(number).key()).await.answer.unwrap();
        assert!(kept.body == whole[..whole.len().min(MOST)], "{number}: {}", kept.body.len());
        assert_eq!(kept.is_cut, whole.len() > MOST, "{number}");
    }
    // So is a rejection, which the client reads.
    for (number, length) in [(11, MOST), (12, MOST + 1), (13, MOST + 9_000)] {
        let start = problem("outcome-unknown", false).replace('}', ",\"detail\":\"");
        let body: &str = format!("{start}{}\"}}", "a".repeat(length - start.len() - 2)).leak();
        let (client, _) = server_of(409, PROBLEM, body);
        outbox.put(&call(number)).await.unwrap();
        let kept = run_until(relay(outbox, &client), outbox, call(number).key(), State::GivenUp).await.answer.unwrap();
        assert_eq!((kept.body.len(), kept.is_cut), (MOST, length > MOST), "{length}");
    }
}

async fn headers_of_an_answer_are_kept_as_long_as_they_fit_together(home: impl Home) {
    // The lengths of the values, with names of three bytes, and how many of them are kept: 16 KiB in all.
    let cases: [(&[usize], usize); 5] =
        [(&[16_381], 1), (&[16_382], 0), (&[8_000, 8_378], 2), (&[8_000, 8_379, 1], 1), (&[6_000, 6_000, 6_000, 1], 2)];
    for (number, (lengths, kept)) in (1..).zip(cases) {
        let (client, _) = server(move |_, _| async move {
            let values = lengths.iter().map(|length| &*"a".repeat(*length).leak());
            let headers: Vec<_> = ["x-0", "x-1", "x-2", "x-3"].into_iter().zip(values).collect();
            answer(200, &headers, "")
        });
        home.outbox().put(&call(number)).await.unwrap();
        let entry = run_until(relay(home.outbox(), &client), home.outbox(), call(number).key(), State::Delivered).await;
        let found: Vec<_> = entry.answer.unwrap().headers.values().map(|value| value.len()).collect();
        assert_eq!(found, lengths[..kept], "{lengths:?}");
    }
}

/// An error with a cause.
#[derive(Debug, thiserror::Error)]
#[error("the connection broke")]
struct Broke(#[source] std::io::Error);

async fn a_try_that_gets_no_answer_says_why_with_every_cause(home: impl Home) {
    let outbox = home.outbox();
    let (client, _) = server(|_, _| async { Err(Broke(std::io::Error::other("reset by the peer")).into()) });
    outbox.put(&call(1)).await.unwrap();
    let ends = relay(outbox, &client).give_up_after(Duration::ZERO);
    let why = run_until(ends, outbox, call(1).key(), State::GivenUp).await.reason.unwrap();
    assert!(why.ends_with("no more attempts (attempt 1): the connection broke: reset by the peer"), "{why}");
}

async fn no_redirect_is_followed(home: impl Home) {
    for (number, status) in [(1, 301), (2, 302), (3, 303), (4, 307), (5, 308)] {
        let (client, log) = server_of(status, &[("location", "http://elsewhere.example/")], "");
        home.outbox().put(&call(number)).await.unwrap();
        let state = if status > 303 { State::Refused } else { State::GivenUp };
        let entry = run_until(relay(home.outbox(), &client), home.outbox(), call(number).key(), state).await;
        assert_eq!(entry.answer.unwrap().headers["location"], "http://elsewhere.example/");
        assert_eq!(log.all().len(), 1, "{status}");
    }
}
