//! The operation itself, and its answers.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{Record, Recorded, Server, Shared};
use crate::fault::Fault;

/// The operation itself.
pub(super) async fn run(server: &Server, key: &str, body: &str) -> Recorded {
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

/// Answers in parts, and records the answer with the last one. They are more than the buffers between it and a client
/// hold, so that a client which goes away does not get there.
pub(super) fn sent_then_recorded(server: Shared, key: String, mut record: Record, text: String) -> Response {
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

pub(super) fn respond(status: StatusCode, text: String, date: Option<String>) -> Response {
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
