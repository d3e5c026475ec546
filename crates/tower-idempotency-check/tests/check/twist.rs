//! What a server does to one request, or to its answer, around one that keeps what a key promises.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::server::{Shared, refuse};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twist {
    /// No answer says that it is a replay.
    NoMarks,
    /// The second replay of a key has another status, and each answer has a number of its own.
    LaterOtherStatus,
    /// Each answer has a number of its own, and replays lack `Location`.
    NumbersAndDrops,
    /// A key that was used is refused, with 400.
    RefusesRetries,
    /// A slow request succeeds, and has no effect; or fails, and has none.
    LosesSlow,
    FailsSlow,
    /// The connection ends in place of an answer: of a rejection of a long body, of the replay of a key after the
    /// second one, of a copy of a slow request that runs.
    CutsRejections,
    CutsReplays,
    CutsCopies,
    /// It ends in place of the first hundred answers to one slow request.
    CutsHundred,
    /// A request that runs is refused with 425.
    SaysEarly,
    /// The first refusal of another request with a key has an effect.
    RunsRefused,
    /// A key is refused on a second path.
    RefusesPath,
    /// An empty key is refused and has an effect, or gets a 500, or is a key.
    RunsEmpty,
    FailsEmpty,
    TakesEmpty,
    /// Replays have `Date` twice.
    DatesTwice,
    /// Answers have a header of one connection: always the same, or each its own.
    ReplaysHop,
    OwnHop,
    /// Replays alone have a cookie, or each account has its own.
    CookieOnReplay,
    OwnCookies,
    /// A key in quotes is refused, or each request is.
    RefusesQuotes,
    RefusesAll,
    /// A request has two effects.
    RunsTwice,
    /// The fourth key is refused.
    RefusesFourth,
    /// The third key is taken for the second.
    PairsKeys,
    /// Two operations each get the same answer.
    PairsAnswers,
    /// Another account gets the first one's answer, and a replay has an effect.
    SharesAndRuns,
    /// A request without a key is refused with a code of its own.
    OtherCode,
    /// The second request without a key is refused.
    RefusesPlainAgain,
    /// After a restart, a slow request is always under way.
    StaysStuck,
}

/// What a twisted server has seen: its keys in their order, and how many requests and replays each has had.
#[derive(Default)]
pub(crate) struct Seen {
    keys: Vec<String>,
    requests: HashMap<String, usize>,
    replays: HashMap<String, usize>,
    answers: usize,
}

#[derive(Clone)]
pub(crate) struct Twisted {
    pub(crate) twist: Twist,
    pub(crate) server: Shared,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

/// One request: its key, the number of that among all keys, from 0, and how often it has come, from 1.
struct Asked {
    key: String,
    number: usize,
    times: usize,
    body: String,
}

pub(crate) async fn twist(State(twisted): State<Twisted>, request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else { return StatusCode::BAD_REQUEST.into_response() };
    let body = String::from_utf8(body.to_vec()).unwrap();
    let key = parts.headers.get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
    let asked = {
        let mut seen = twisted.seen.lock().unwrap();
        let key = key.unwrap_or_else(|| "none".to_owned());
        let number = seen.keys.iter().position(|held| *held == key).unwrap_or(seen.keys.len());
        if number == seen.keys.len() {
            seen.keys.push(key.clone());
        }
        let times = seen.requests.entry(key.clone()).or_default();
        *times += 1;
        Asked { key, number, times: *times, body: body.clone() }
    };
    if let Some(answer) = instead(&twisted, &asked, &mut parts) {
        return answer;
    }
    let account = parts.headers.get("authorization").cloned();
    let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
    changed(&twisted, &asked, account, answer).await
}

/// The answer to a request that does not get to the server, or `None`. The request may be changed.
fn instead(twisted: &Twisted, asked: &Asked, parts: &mut Parts) -> Option<Response> {
    let Asked { key, number, times, body } = asked;
    let (is_slow, is_plain) = (body.contains("slow"), key == "none");
    let bad = |code| Some(refuse(StatusCode::BAD_REQUEST, code));
    match twisted.twist {
        Twist::RefusesRetries if *times > 1 => bad("used"),
        Twist::LosesSlow if is_slow => Some((StatusCode::CREATED, "{\"id\":\"lost\"}").into_response()),
        Twist::FailsSlow if is_slow => Some(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        Twist::CutsHundred if is_slow && *times <= 100 => Some(cut()),
        Twist::RefusesPath if *times > 1 && parts.uri.path() == "/refunds" => {
            Some(refuse(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_conflict"))
        }
        Twist::RunsEmpty if key.is_empty() => {
            twisted.server.effect();
            bad("empty")
        }
        Twist::FailsEmpty if key.is_empty() => Some(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        Twist::TakesEmpty if key.is_empty() => {
            parts.headers.insert("idempotency-key", HeaderValue::from_static("empty"));
            None
        }
        Twist::RefusesQuotes if key.starts_with('"') => bad("quotes"),
        Twist::RefusesAll => bad("no"),
        Twist::RefusesFourth if *number == 3 => bad("fourth"),
        Twist::PairsKeys if *number == 2 => {
            let one_before = twisted.seen.lock().unwrap().keys[1].parse().unwrap();
            parts.headers.insert("idempotency-key", one_before);
            None
        }
        Twist::SharesAndRuns => {
            parts.headers.remove("authorization");
            None
        }
        Twist::OtherCode if is_plain => bad("other"),
        Twist::RefusesPlainAgain if is_plain && *times > 1 => bad("again"),
        Twist::StaysStuck if is_slow && twisted.server.has_restarted() => {
            let mut refused = refuse(StatusCode::CONFLICT, "idempotency_in_flight");
            refused.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
            Some(refused)
        }
        _ => None,
    }
}

async fn changed(twisted: &Twisted, asked: &Asked, account: Option<HeaderValue>, mut answer: Response) -> Response {
    let is_replay = answer.headers().contains_key("idempotent-replayed");
    let (answers, replays) = {
        let mut seen = twisted.seen.lock().unwrap();
        seen.answers += 1;
        let answers = seen.answers;
        let replays = seen.replays.entry(asked.key.clone()).or_default();
        *replays += usize::from(is_replay);
        (answers, *replays)
    };
    let status = answer.status();
    let headers = answer.headers_mut();
    match twisted.twist {
        Twist::NoMarks => drop(headers.remove("idempotent-replayed")),
        Twist::LaterOtherStatus => {
            headers.insert("x-instance", answers.into());
            if replays > 1 {
                *answer.status_mut() = StatusCode::ACCEPTED;
            }
        }
        Twist::NumbersAndDrops => {
            headers.insert("x-instance", answers.into());
            if is_replay {
                headers.remove("location");
            }
        }
        Twist::CutsRejections if asked.body.len() > 10_000 => return cut(),
        Twist::CutsReplays if is_replay && asked.number > 1 => return cut(),
        Twist::CutsCopies if asked.body.contains("slow") && status == StatusCode::CONFLICT => return cut(),
        Twist::SaysEarly if status == StatusCode::CONFLICT => *answer.status_mut() = StatusCode::TOO_EARLY,
        Twist::RunsRefused if asked.times == 2 && status == StatusCode::UNPROCESSABLE_ENTITY => {
            twisted.server.effect();
        }
        Twist::RunsTwice | Twist::SharesAndRuns if (twisted.twist == Twist::RunsTwice) != is_replay => {
            twisted.server.effect();
        }
        Twist::DatesTwice if is_replay => {
            for date in ["Mon, 21 Oct 2030 07:28:00 GMT", "Mon, 21 Oct 2030 07:28:01 GMT"] {
                headers.append("date", HeaderValue::from_static(date));
            }
        }
        Twist::ReplaysHop => drop(headers.insert("proxy-authenticate", HeaderValue::from_static("Basic"))),
        Twist::OwnHop => drop(headers.insert("proxy-authenticate", answers.into())),
        Twist::CookieOnReplay if is_replay => drop(headers.insert("set-cookie", HeaderValue::from_static("a=1"))),
        Twist::OwnCookies => drop(account.map(|account| headers.insert("set-cookie", account))),
        Twist::PairsAnswers if status == StatusCode::CREATED => return paired(answer).await,
        _ => {}
    }
    answer
}

/// An answer in whose place the connection ends.
fn cut() -> Response {
    let broken = futures_util::stream::iter([Err::<String, _>(std::io::Error::other("cut"))]);
    Body::from_stream(broken).into_response()
}

/// The answer with the even number before it in place of an odd one.
async fn paired(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    let text = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
    let number: usize = text.trim_matches(|character: char| !character.is_ascii_digit()).parse().unwrap();
    parts.headers.remove("content-length");
    Response::from_parts(parts, Body::from(format!("{{\"id\":\"ch_{}\"}}", number - number % 2)))
}
