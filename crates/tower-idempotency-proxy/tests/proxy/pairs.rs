//! What decides together what becomes of a service's answer: its mark, its effect, its status, its end, the policy, the
//! attempt, and whether the request is covered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use testkit::Call;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower_idempotency::OnInterrupted::{self, Refuse, Rerun};

use crate::service::{layer, proxy, send, send_call};

/// Starts a service that gives these answers, one to each request, and the last one again and again. Each connection
/// ends with its answer, as the answer may have no other end.
async fn answers(answers: Vec<String>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        // A close before the whole request has come is a reset.
        let mut answered = Vec::new();
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            if matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let answer = answers.get(number).or(answers.last()).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                answered.push(stream);
            }
        }
    });
    (address, seen)
}

/// An answer with these lines. Its length says where its body ends, or the connection does.
fn answer(status: StatusCode, lines: &[(&str, &str)], has_end: bool) -> String {
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if has_end { "content-length: 7\r\n" } else { "" };
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{lines}{length}\r\norder 1")
}

/// What a retry gets.
async fn retry(proxy: SocketAddr) -> String {
    let again = send(proxy, "k", "book").await;
    match &*again.problem() {
        "" if again.is_replay() => "replay".to_owned(),
        "" => "runs".to_owned(),
        problem => problem.to_owned(),
    }
}

const NO_MARK: &[(&str, &str)] = &[];
const SECRET: (&str, &str) = ("idempotency-mark", "secret");
const NONE: (&str, &str) = ("idempotency-effect", "none;retry");
const PENDING: (&str, &str) = ("idempotency-effect", "pending;retry");

/// The head says that it took place, and nothing of the answer is stored. Seeded fault: one without a declared end is
/// unknown, and an operator has to settle it.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_done_whatever_its_end_its_status_and_the_policy() {
    for policy in [Refuse, Rerun] {
        for status in [201, 401, 500, 502] {
            for effect in [&[][..], &[NONE], &[PENDING]] {
                for has_end in [true, false] {
                    let said = answer(status.try_into().unwrap(), &[&[SECRET], effect].concat(), has_end);
                    let (service, seen) = answers(vec![said]).await;
                    let proxy = proxy(layer().on_interrupted(policy), service).await;
                    let first = send(proxy, "k", "book").await;
                    let at = format!("{policy:?} {status} {effect:?}, an end: {has_end}");
                    assert_eq!((first.status.as_u16(), first.text()), (status, "order 1"), "{at}");
                    let again = send(proxy, "k", "book").await;
                    assert_eq!((&*again.problem(), seen.load(Ordering::SeqCst)), ("not-replayable", 1), "{at}");
                    assert_eq!(again.json()["original_status"].as_u64(), Some(status.into()), "{at}");
                    // A status that says otherwise is final because the service says so.
                    let word = if matches!(status, 401 | 502) { "unknown" } else { "done" };
                    assert!(again.header("idempotency-effect").unwrap().starts_with(word), "{at}: {again:?}");
                }
            }
        }
    }
}

/// The word for the effect of a 409, if it has one, and what a retry gets.
fn of_409(
    policy: OnInterrupted,
    mark: Option<&str>,
    effect: Option<&str>,
    has_end: bool,
) -> (Option<&'static str>, &'static str) {
    let unknown = (Some("unknown"), if policy == Rerun { "runs" } else { "outcome-unknown" });
    let (free, recorded) = ((Some("none"), "runs"), (None, "replay"));
    match (mark, effect) {
        // The mark is the service's last word.
        (Some("release"), _) => free,
        (Some("keep"), _) if has_end => recorded,
        (Some("secret"), _) => (None, "not-replayable"),
        (Some("invalid"), _) if has_end => recorded,
        (Some("invalid"), _) => free,
        (Some(_), _) => unknown,
        (None, Some(effect)) if effect.starts_with("none") => free,
        (None, Some(_)) => unknown,
        // The service may have been asked before, and be still at it.
        (None, None) if policy == Rerun || !has_end => unknown,
        (None, None) => recorded,
    }
}

/// Seeded faults: under `Rerun`, a 409 is unknown, also if the service says what it is; one of a first attempt is
/// recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_409_of_each_attempt_under_each_policy_means_what_its_mark_and_its_effect_say() {
    let marks = [None, Some("release"), Some("keep"), Some("secret"), Some("invalid"), Some("unsure"), Some("a word")];
    let unsure = answer(StatusCode::OK, &[("idempotency-mark", "unsure")], true);
    for (policy, is_second) in [(Refuse, false), (Rerun, false), (Rerun, true)] {
        for mark in marks {
            for effect in [None, Some(NONE.1), Some(PENDING.1)] {
                for has_end in [true, false] {
                    let lines = [mark.map(|mark| (SECRET.0, mark)), effect.map(|effect| (NONE.0, effect))];
                    let lines: Vec<_> = lines.into_iter().flatten().collect();
                    let mut said = vec![answer(StatusCode::CONFLICT, &lines, has_end)];
                    if is_second {
                        said.insert(0, unsure.clone());
                    }
                    let (service, seen) = answers(said).await;
                    let proxy = proxy(layer().on_interrupted(policy), service).await;
                    if is_second {
                        assert_eq!(send(proxy, "k", "book").await.status, 200);
                    }
                    let met = send(proxy, "k", "book").await;
                    let at = format!("{policy:?} {mark:?} {effect:?}, an end: {has_end}, the second: {is_second}");
                    assert_eq!(met.status, 409, "{at}");
                    let word = met.header("idempotency-effect").map(|effect| effect.split(';').next().unwrap());
                    let (expected, then) = of_409(policy, mark, effect, has_end);
                    assert_eq!(word, expected, "{at}");
                    let runs = seen.load(Ordering::SeqCst);
                    assert_eq!((&*retry(proxy).await, runs), (then, usize::from(is_second) + 1), "{at}");
                    assert_eq!(seen.load(Ordering::SeqCst), runs + usize::from(then == "runs"), "{at}");
                }
            }
        }
    }
}

/// The mark that goes on, as this proxy has read it.
fn passed_on(marks: &[(&str, &'static str)], has_end: bool) -> Option<&'static str> {
    match marks {
        [] => None,
        [(_, "keep")] if !has_end => Some("unsure"),
        [(_, "invalid")] if !has_end => Some("release"),
        [(_, mark)] => Some(mark),
        _ => Some("unsure"),
    }
}

/// Without a key, nothing is known of the operation here: what the service says of it is for the client, unless it has
/// marked the answer for a caller that records. Seeded faults: the mark is left out; the effect is.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_request_without_a_key_keeps_its_effect_or_its_mark() {
    let marks = ["release", "keep", "secret", "invalid", "unsure"].map(|mark| ("idempotency-mark", mark));
    let marked = marks.iter().map(std::slice::from_ref).chain([NO_MARK, &marks[..2]]);
    for marks in marked {
        for effect in [&[][..], &[NONE], &[PENDING], &[NONE, PENDING]] {
            for has_end in [true, false] {
                let (service, _) = answers(vec![answer(StatusCode::OK, &[marks, effect].concat(), has_end)]).await;
                let proxy = proxy(layer(), service).await;
                let got = send_call(proxy, &Call::post("/orders", "book")).await;
                let at = format!("{marks:?} {effect:?}, an end: {has_end}");
                assert_eq!((got.status.as_u16(), got.text()), (200, "order 1"), "{at}");
                assert_eq!(got.header("idempotency-mark"), passed_on(marks, has_end), "{at}");
                let said: Vec<_> =
                    got.headers.get_all("idempotency-effect").iter().map(|line| line.to_str().unwrap()).collect();
                let expected: Vec<_> = effect.iter().filter(|_| marks.is_empty()).map(|(_, value)| *value).collect();
                assert_eq!(said, expected, "{at}");
            }
        }
    }
}
