//! A server that keeps what a key promises, unless it has a fault.

mod operation;
mod replays;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::watch;

use self::operation::{respond, run, sent_then_recorded};
use self::replays::known;
use super::fault::{Fault, compared, compares_pairs};
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
