//! What a key that is known gets.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::operation::respond;
use super::{Record, Server, refuse};
use crate::fault::{Fault, are_one, compares_pairs, damage};

/// The answer to a request whose key is known, or `None`, and then the key is claimed.
pub(super) fn known(server: &Server, key: &str, fingerprint: &str) -> Option<Response> {
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
