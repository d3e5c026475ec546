//! A server that keeps what a key promises, unless it has a fault.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::watch;

use super::fault::{Fault, are_one, compared, compares_pairs, damage};
use super::slow::Slow;
use super::twist::{Twisted, twist};

/// Status, body and `Date`.
type Recorded = (StatusCode, String, Option<String>);

struct Record {
    fingerprint: String,
    answer: Option<Recorded>,
    at: Instant,
    copies: usize,
}

pub(crate) struct Server {
    fault: Fault,
    is_acp: bool,
    records: Mutex<HashMap<String, Record>>,
    charges: Mutex<Vec<String>>,
    judged: Mutex<usize>,
    answers: AtomicUsize,
    /// The operation that has begun last.
    current: Mutex<String>,
    /// The answers of requests under way, for those that share them.
    running: Mutex<HashMap<String, watch::Receiver<Option<Recorded>>>>,
    /// The connections on which a body was left.
    left: Mutex<HashSet<SocketAddr>>,
    /// The server has restarted if this file is there.
    restarted: PathBuf,
    slow: Slow,
}

pub(crate) type Shared = Arc<Server>;

impl Server {
    /// Has one effect more.
    pub(crate) fn effect(&self) {
        let mut charges = self.charges.lock().unwrap();
        let id = format!("ch_{}", charges.len() + 1);
        charges.push(id);
    }

    pub(crate) fn has_restarted(&self) -> bool {
        self.restarted.exists()
    }
}

/// Starts a server, and returns its address.
pub(crate) async fn start(fault: Fault, is_acp: bool, restarted: PathBuf) -> SocketAddr {
    let (records, charges, judged, left) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
    let (answers, current, running) = (AtomicUsize::new(0), Mutex::default(), Mutex::default());
    let slow = Slow::default();
    let counting = slow.clone();
    let server =
        Arc::new(Server { fault, is_acp, records, charges, judged, answers, current, running, left, restarted, slow });
    let charges = || post(charge).put(charge).get(list);
    let app = Router::new().route("/charges", charges()).route("/refunds", charges());
    let app = match fault {
        Fault::RunsProbes => {
            app.route("/.well-known/idempotency", get(|| async { "{\"probe_header\":\"idempotency-probe\"}" }))
        }
        Fault::Twisted(by) => {
            let twisted = Twisted { twist: by, server: Arc::clone(&server), seen: Arc::default() };
            app.layer(axum::middleware::from_fn_with_state(twisted, twist))
        }
        _ => app,
    };
    let app = counting.count(app).with_state(server);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn list(State(server): State<Shared>) -> String {
    let charges = server.charges.lock().unwrap();
    let items: Vec<_> = charges.iter().rev().take(200).map(|id| format!("{{\"id\":\"{id}\"}}")).collect();
    format!("[{}]", items.join(","))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned())
}

pub(crate) fn refuse(status: StatusCode, code: &str) -> Response {
    (
        status,
        [("content-type", "application/json")],
        format!("{{\"type\":\"invalid_request\",\"code\":\"{code}\",\"message\":\"no\"}}"),
    )
        .into_response()
}

async fn charge(
    State(server): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let fault = server.fault;
    if server.left.lock().unwrap().contains(&peer) {
        return StatusCode::NOT_IMPLEMENTED.into_response();
    }
    let (parts, body) = request.into_parts();
    let keys: Vec<_> =
        parts.headers.get_all("idempotency-key").iter().map(|key| key.to_str().unwrap().to_owned()).collect();
    if fault == Fault::LosesNext
        && server.records.lock().unwrap().contains_key(&keys.first().cloned().unwrap_or_default())
    {
        // The body is not read: hyper closes the connection and does not say so.
        let length: usize = text(&parts.headers, "content-length").unwrap().parse().unwrap();
        if length > 10_000 {
            drop(body);
            return refuse(StatusCode::UNPROCESSABLE_ENTITY, "reused");
        }
    }
    let body = read(body, fault == Fault::TakesHalf).await;
    let Some(body) = body else { return refuse(StatusCode::BAD_REQUEST, "incomplete") };
    let echo = parts.headers.get("idempotency-key").cloned().filter(|_| server.is_acp);
    // The run goes on if its client goes away.
    let answering = Arc::clone(&server);
    let run = async move { answer(&answering, &parts, keys, body).await };
    let mut answer = if fault == Fault::DropsRuns { run.await } else { tokio::spawn(run).await.unwrap() };
    if fault == Fault::LeavesBodies && answer.headers().contains_key("idempotent-replayed") {
        server.left.lock().unwrap().insert(peer);
    }
    let number = server.answers.fetch_add(1, Ordering::Relaxed);
    answer.headers_mut().insert("x-request-id", number.into());
    if fault == Fault::NumbersAnswers {
        answer.headers_mut().insert("x-instance", number.into());
    }
    if fault == Fault::SharesCookies {
        answer.headers_mut().insert("set-cookie", "session=1".parse().unwrap());
    }
    if let Some(key) = echo {
        answer.headers_mut().insert("idempotency-key", key);
    }
    if fault == Fault::MarksFirst {
        answer.headers_mut().insert("idempotent-replayed", "true".parse().unwrap());
    }
    if fault == Fault::OldHttp {
        *answer.version_mut() = Version::HTTP_10;
    }
    answer
}

/// The faults of what JSON is compared by.
const COMPARES: [Fault; 17] = [
    Fault::DropsRepeats,
    Fault::SortsTexts,
    Fault::ComparesTruthAsNumber,
    Fault::ComparesTruthAsText,
    Fault::UnwrapsLists,
    Fault::TrimsStarts,
    Fault::JoinsBlanks,
    Fault::IgnoresUnseen,
    Fault::IgnoresWidth,
    Fault::IgnoresAccents,
    Fault::ComparesForms,
    Fault::ComparesShallow,
    Fault::SortsLists,
    Fault::ComparesTexts,
    Fault::ComparesDoubles,
    Fault::IgnoresCase,
    Fault::TrimsTexts,
];

/// Whether a text has the form of a UUID.
fn is_uuid(text: &str) -> bool {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|character| character == '-' || character.is_ascii_hexdigit())
}

async fn read(body: Body, takes_half: bool) -> Option<String> {
    use futures_util::StreamExt as _;
    let (mut stream, mut read) = (body.into_data_stream(), Vec::new());
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => read.extend_from_slice(&chunk),
            Err(_) if takes_half => break,
            Err(_) => return None,
        }
    }
    Some(String::from_utf8(read).unwrap())
}

async fn answer(server: &Shared, parts: &axum::http::request::Parts, keys: Vec<String>, body: String) -> Response {
    let fault = server.fault;
    let sent = keys.first().cloned().unwrap_or_default();
    let key = match (keys.as_slice(), fault) {
        ([], Fault::GuessesKey) => Some(body.clone()),
        ([], Fault::RunsWithoutKey) => None,
        ([], _) if server.is_acp => return refuse(StatusCode::BAD_REQUEST, "idempotency_key_required"),
        ([], _) | (_, Fault::NoKeys) => None,
        ([only], Fault::OnlyQuoted) if !(only.len() > 1 && only.starts_with('"') && only.ends_with('"')) => None,
        ([only], Fault::OnlyBare) if only.starts_with('"') => None,
        ([only], Fault::MalformedIsNone) if only.starts_with('"') != only.ends_with('"') => None,
        ([only], Fault::EmptyIsNone) if only.is_empty() => None,
        ([_, _], Fault::MixesKeys) => None,
        ([only], _) if !only.is_empty() && only.starts_with('"') == (only.ends_with('"') && only.len() > 1) => {
            Some(only.trim_matches('"').to_owned())
        }
        _ => return refuse(StatusCode::BAD_REQUEST, "malformed"),
    };
    let Some(key) = key else {
        let (status, text, date) = run(server, &sent, &body).await;
        return respond(status, text, date);
    };
    let key = match fault {
        Fault::OnlyUuids if !is_uuid(&key) => return refuse(StatusCode::BAD_REQUEST, "malformed"),
        Fault::OnlyUuids => key.to_lowercase(),
        Fault::CutsBodies if body.contains(&"x".repeat(256)) => return refuse(StatusCode::BAD_REQUEST, "long"),
        _ => key,
    };
    let bare = key.clone();
    let key = match fault {
        Fault::IgnoresKey => body.clone(),
        Fault::KeysByBody => format!("{key} {body}"),
        Fault::LowersKeys => key.to_lowercase(),
        Fault::CutsKeys => key.chars().take(64).collect(),
        Fault::CutsShort if key.len() > 100 => return refuse(StatusCode::BAD_REQUEST, "malformed"),
        Fault::CutsShort => key.chars().take(40).collect(),
        Fault::KeepsTails => key[key.len().saturating_sub(64)..].to_owned(),
        Fault::IgnoresPunctuation => key.chars().filter(char::is_ascii_alphanumeric).collect(),
        Fault::TrimsKeys => key.trim().to_owned(),
        Fault::CutsAt(character) => key.split(character).next().unwrap_or_default().to_owned(),
        Fault::BeginsAfter(character) => key.rsplit(character).next().unwrap_or_default().to_owned(),
        Fault::DecodesKeys => key.replace("%41", "A"),
        Fault::DecodesPlus => key.replace('+', " "),
        Fault::TrimsStartsOfKeys => key.trim_start().to_owned(),
        Fault::JoinsBlanksOfKeys => key.replace("  ", " "),
        Fault::OnlyWith(only)
            if key.contains(|it: char| !(it.is_alphanumeric() || "-_".contains(it) || it == only)) =>
        {
            return refuse(StatusCode::BAD_REQUEST, "malformed");
        }
        Fault::OnlyWith(only) => key.split(only).next().unwrap_or_default().to_owned(),
        Fault::FailsLong if key.len() > 128 => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Fault::FailsLonger if key.len() > 255 => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Fault::IgnoresAccount | Fault::IgnoresPathAlone => key,
        _ if server.is_acp => {
            format!("{} {} {key}", parts.uri.path(), text(&parts.headers, "authorization").unwrap_or_default())
        }
        _ => format!("{} {key}", text(&parts.headers, "authorization").unwrap_or_default()),
    };
    // A control of its own knows the record by the bare key.
    let key = if fault == Fault::LosesNext { keys[0].clone() } else { key };
    let canonical = match serde_json::from_str::<serde_json::Value>(&body) {
        Ok(json) if COMPARES.contains(&fault) => compared(fault, &json, 0).to_string(),
        Ok(json) if fault == Fault::CutsJson => json.to_string().chars().take(1_024).collect(),
        _ if fault == Fault::CutsBodies => body.chars().take(1_024).collect(),
        Ok(json) if fault != Fault::ComparesBytes && server.is_acp => json.to_string(),
        _ => body.clone(),
    };
    let query = parts.uri.query().unwrap_or_default();
    let fingerprint = match fault {
        Fault::IgnoresBody => String::new(),
        Fault::IgnoresQuery => canonical,
        _ if compares_pairs(fault) => canonical,
        Fault::IgnoresMethod => format!("{} {query} {canonical}", parts.uri.path()),
        Fault::IgnoresPath | Fault::IgnoresPathAlone => format!("{} {query} {canonical}", parts.method),
        _ => format!("{} {} {query} {canonical}", parts.method, parts.uri.path()),
    };
    if fault == Fault::ForgetsAtRestart && server.restarted.exists() {
        server.records.lock().unwrap().clear();
        let _ = std::fs::remove_file(&server.restarted);
    }
    let shared = match fault {
        Fault::JoinsBodies => Some(key.clone()),
        Fault::JoinsAccounts => Some(format!("{bare} {fingerprint}")),
        _ => None,
    };
    let (ended, running) = watch::channel(None);
    // Of two that come at once, one joins the other.
    let joined = shared.as_ref().and_then(|name| match server.running.lock().unwrap().entry(name.clone()) {
        Entry::Occupied(entry) => Some(entry.get().clone()),
        Entry::Vacant(entry) => {
            entry.insert(running);
            None
        }
    });
    if let Some(mut running) = joined {
        let (status, text, date) = running.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        return respond(status, text, date);
    }
    if let Some(known) = known(server, &key, &fingerprint) {
        if let Some(name) = &shared {
            server.running.lock().unwrap().remove(name);
        }
        if fault == Fault::RunsReplays && known.headers().contains_key("idempotent-replayed") {
            run(server, &sent, &body).await;
        }
        return known;
    }
    if fault == Fault::RecordsLate {
        server.records.lock().unwrap().remove(&key);
    }
    let (status, text, date) = run(server, &sent, &body).await;
    if let Some(name) = &shared {
        server.running.lock().unwrap().remove(name);
        ended.send_replace(Some((status, text.clone(), date.clone())));
    }
    let is_forgotten = match fault {
        Fault::RunsAfterFailure => status.is_server_error(),
        Fault::ForgetsDeclined => status == StatusCode::PAYMENT_REQUIRED,
        Fault::Replays429 => false,
        _ => status == StatusCode::TOO_MANY_REQUESTS,
    };
    let mut records = server.records.lock().unwrap();
    if is_forgotten {
        records.remove(&key);
    } else if server.is_acp && status.is_server_error() && fault != Fault::StoresFailure {
        // It may have had its effect: the key stays taken.
        records.insert(key, Record { fingerprint, answer: None, at: Instant::now(), copies: 0 });
    } else {
        let recorded = match fault {
            Fault::RecordsOthers if status.is_success() => {
                format!("{{\"id\":\"{}\"}}", server.current.lock().unwrap())
            }
            _ => text.clone(),
        };
        let answer = Some((status, recorded, date.clone()));
        let record = Record { fingerprint, answer, at: Instant::now(), copies: 0 };
        if fault == Fault::RecordsSent && status.is_success() {
            records.remove(&key);
            return sent_then_recorded(Arc::clone(server), key, record, text);
        }
        records.insert(key, record);
    }
    drop(records);
    let mut response = respond(status, text, date);
    if fault == Fault::JoinsCookies {
        response.headers_mut().append("set-cookie", "a=1".parse().unwrap());
        response.headers_mut().append("set-cookie", "b=2".parse().unwrap());
    }
    response
}

/// Answers in parts, and records the answer with the last one. They are more than the buffers between it and a client
/// hold, so that a client which goes away does not get there.
fn sent_then_recorded(server: Shared, key: String, mut record: Record, text: String) -> Response {
    const PART: usize = 128 * 1024;
    const PARTS: usize = 64;
    if let Some((_, recorded, _)) = &mut record.answer {
        recorded.push_str(&" ".repeat(PARTS * PART));
    }
    let mut response = respond(StatusCode::CREATED, text.clone(), None);
    let parts = std::iter::once(text).chain((0..PARTS).map(|_| " ".repeat(PART)));
    let mut last = Some((key, record));
    let parts = parts.enumerate().map(move |(number, part)| {
        if let Some((key, record)) = last.take_if(|_| number == PARTS) {
            server.records.lock().unwrap().insert(key, record);
        }
        Ok::<_, Infallible>(part)
    });
    response.headers_mut().remove("content-length");
    *response.body_mut() = Body::from_stream(futures_util::stream::iter(parts));
    response
}

fn respond(status: StatusCode, text: String, date: Option<String>) -> Response {
    let text_of = text.clone();
    let mut response = (status, [("content-type", "application/json")], text).into_response();
    if status == StatusCode::CREATED {
        let tag = format!("\"{}\"", text_of.trim_end().len());
        let headers = [
            ("location", "/charges/1"),
            ("etag", &tag),
            ("link", "</a>; rel=a"),
            ("link", "</b>; rel=b"),
            ("last-modified", "Mon, 21 Oct 2030 07:28:00 GMT"),
        ];
        for (name, value) in headers {
            response.headers_mut().append(name, value.parse().unwrap());
        }
    }
    if let Some(date) = date {
        response.headers_mut().insert("date", date.parse().unwrap());
    }
    response
}

/// The answer to a request whose key is known, or `None`, and then the key is claimed.
fn known(server: &Server, key: &str, fingerprint: &str) -> Option<Response> {
    let fault = server.fault;
    let mut records = server.records.lock().unwrap();
    if fault == Fault::ForgetsSoon {
        records.retain(|_, record| record.at.elapsed() < Duration::from_secs(1));
    }
    if fault == Fault::ForgetsOldest && records.len() >= 100 && !records.contains_key(key) {
        let oldest = records.iter().min_by_key(|(_, record)| record.at).map(|(key, _)| key.clone());
        records.remove(&oldest.unwrap());
    }
    let Some(record) = records.get_mut(key) else {
        let (fingerprint, at) = (fingerprint.to_owned(), Instant::now());
        records.insert(key.to_owned(), Record { fingerprint, answer: None, at, copies: 0 });
        return None;
    };
    let is_one = compares_pairs(fault) && are_one(fault, &record.fingerprint, fingerprint);
    if record.fingerprint != fingerprint && !is_one {
        if fault == Fault::RefusalForgets {
            records.remove(key);
        }
        let status = if fault == Fault::WrongStatus { StatusCode::CONFLICT } else { StatusCode::UNPROCESSABLE_ENTITY };
        return Some(refuse(status, "idempotency_conflict"));
    }
    record.copies += 1;
    let Some((status, text, date)) = record.answer.clone() else {
        return match fault {
            Fault::SecondCopyRuns if record.copies == 1 => None,
            Fault::LockLapses if record.copies == 3 => None,
            Fault::CopiesDiffer => Some((StatusCode::OK, "{}").into_response()),
            Fault::CopiesFail => Some(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
            Fault::SaysSoon => Some((StatusCode::CONFLICT, [("retry-after", "soon")]).into_response()),
            _ => {
                let mut refused = refuse(StatusCode::CONFLICT, "idempotency_in_flight");
                refused.headers_mut().insert("retry-after", "1".parse().unwrap());
                Some(refused)
            }
        };
    };
    let mut replay = match fault {
        Fault::ReplayWithoutBody => respond(status, String::new(), None),
        Fault::ReplayOtherStatus => respond(StatusCode::ACCEPTED, text, None),
        Fault::ReplayOtherBody => respond(status, format!("{text} "), None),
        Fault::LaterReplaysOtherBody if record.copies > 1 => respond(status, format!("{text} "), None),
        Fault::ForgivesFailure if status.is_server_error() => respond(StatusCode::OK, "{}".to_owned(), None),
        Fault::ReplaysDate => respond(status, text, date),
        Fault::ReordersMembers if status == StatusCode::CREATED => {
            let (id, ok) = text.trim_matches(['{', '}']).split_once(',').unwrap();
            respond(status, format!("{{{ok},{id}}}"), None)
        }
        _ => respond(status, text, None),
    };
    damage(fault, replay.headers_mut());
    replay.headers_mut().insert("idempotent-replayed", "true".parse().unwrap());
    Some(replay)
}

/// The operation itself.
async fn run(server: &Server, key: &str, body: &str) -> (StatusCode, String, Option<String>) {
    let id = {
        let mut charges = server.charges.lock().unwrap();
        let id = format!("ch_{}", charges.len() + 1);
        if body.contains("declined") {
            drop(charges);
            let mut judged = server.judged.lock().unwrap();
            *judged += 1;
            return (StatusCode::PAYMENT_REQUIRED, format!("{{\"declined\":{judged}}}"), None);
        }
        if body.contains("limited") {
            return (StatusCode::TOO_MANY_REQUESTS, "{}".to_owned(), None);
        }
        if server.fault == Fault::ForgivesFailure && body.contains("fails") {
            return (StatusCode::INTERNAL_SERVER_ERROR, "{\"error\":1}".to_owned(), None);
        }
        charges.push(id.clone());
        server.current.lock().unwrap().clone_from(&id);
        id
    };
    if body.contains("slow") {
        // The third copy runs when a lock has lapsed.
        let others = if server.fault == Fault::LockLapses { 3 } else { 1 };
        server.slow.run(key.as_bytes(), others).await;
    } else {
        let takes = if server.fault == Fault::DropsRuns { 500 } else { 30 };
        tokio::time::sleep(Duration::from_millis(takes)).await;
    }
    if body.contains("fails") {
        return (StatusCode::INTERNAL_SERVER_ERROR, format!("{{\"failed\":\"{id}\"}}"), None);
    }
    let id = if server.fault == Fault::SharesAnswers { server.current.lock().unwrap().clone() } else { id };
    let date = (server.fault == Fault::ReplaysDate).then(|| httpdate::fmt_http_date(std::time::SystemTime::now()));
    match server.fault {
        Fault::Alike => (StatusCode::CREATED, "{\"ok\":true}".to_owned(), date),
        Fault::ReordersMembers => (StatusCode::CREATED, format!("{{\"id\":\"{id}\",\"ok\":true}}"), date),
        _ => (StatusCode::CREATED, format!("{{\"id\":\"{id}\"}}"), date),
    }
}
