//! What becomes of a connection.

use http::Version;

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::http::connection::Connection;
use crate::http::message::Answer;
use crate::http::volatile::is_of_connection;
use crate::probe::{Probe, Stop};

use super::differences::NO_OTHER_BODY;

/// Bytes that a server has to read, or to give up, before the connection can take another request.
const LONG: usize = 32 * 1024;

pub(super) async fn after_rejection(probe: &Probe<'_>) -> Result<(), Stop> {
    let (key, first) = probe.first().await?;
    let mut connection = probe.connection().await?;
    // Another body, longer than the first: it is refused before it need be read.
    let mut long = probe.endpoint.other_body.clone().ok_or(NO_OTHER_BODY)?;
    long.push_str(&" ".repeat(LONG));
    let label = "a rejected request with a long body";
    let rejected = match probe.send_over(&mut connection, label, &probe.keyed(&key).with_body(long)).await? {
        Ok(answer) => answer,
        Err(failure) => {
            let what = format!("a rejection does not reach its client: {failure}");
            probe.found(Severity::Wrong, Rule::Connection, what);
            return Ok(());
        }
    };
    if rejected.is_success() {
        return Err(Stop::Skip("the server rejects no other body: see `other-body`"));
    }
    next(probe, &mut connection, "a rejection", &rejected, &key, &first).await
}

pub(super) async fn after_replay(probe: &Probe<'_>) -> Result<(), Stop> {
    let (key, first) = probe.first().await?;
    let mut connection = probe.connection().await?;
    let Ok(replay) = probe.send_over(&mut connection, "a retry", &probe.keyed(&key)).await? else {
        probe.found(Severity::Wrong, Rule::Connection, "a replay does not reach its client");
        return Ok(());
    };
    next(probe, &mut connection, "a replay", &replay, &key, &first).await
}

/// Whether the connection ends with this answer: it says so, has no other end, or is of HTTP/1.0 and does not say
/// `keep-alive` (RFC 9112, sections 6.3 and 9.3).
fn closes(answer: &Answer) -> bool {
    let has = |name: &str| answer.headers.contains_key(name);
    let says = |option: &str| is_of_connection(&answer.headers, option);
    let is_empty = matches!(answer.status.as_u16(), 204 | 304);
    let is_open_ended = !is_empty && !has("content-length") && !has("transfer-encoding");
    says("close") || is_open_ended || answer.version < Version::HTTP_11 && !says("keep-alive")
}

/// Sends one more request over the connection, unless that ends with the answer before. It gets the first answer again.
async fn next(
    probe: &Probe<'_>,
    connection: &mut Connection,
    after: &str,
    answer: &Answer,
    key: &str,
    first: &Answer,
) -> Result<(), Stop> {
    if closes(answer) {
        return Ok(());
    }
    let next = probe.send_over(connection, "the next request over the connection", &probe.keyed(key)).await?;
    let what = match next {
        Ok(next) if next.status == first.status => return Ok(()),
        Ok(next) => format!("after {after}, the next request over the connection gets {}", next.summary()),
        Err(failure) => {
            format!(
                "after {after} without `Connection: close`, the next request over the connection is lost: {failure}"
            )
        }
    };
    probe.found(Severity::Wrong, Rule::Connection, what);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each version with each end of a body and each `Connection`.
    #[test]
    fn a_connection_ends_with_an_answer_that_says_so_has_no_end_or_is_of_http_1_0() {
        for (version, is_old) in [(Version::HTTP_10, true), (Version::HTTP_11, false)] {
            for (status, end, has_end) in [
                (200, Some("content-length"), true),
                (200, Some("transfer-encoding"), true),
                (200, None, false),
                (204, None, true),
            ] {
                for (lines, said) in [
                    (&[][..], None),
                    (&["keep-alive"], Some(false)),
                    (&["X-Hop, Keep-Alive"], Some(false)),
                    (&["Close"], Some(true)),
                    (&["x-hop", "close"], Some(true)),
                    (&["x-close"], None),
                ] {
                    let mut answer = Answer { version, ..Answer::of(status, "") };
                    for line in lines {
                        answer.headers.append("connection", line.parse().unwrap());
                    }
                    if let Some(end) = end {
                        answer.headers.insert(end, "0".parse().unwrap());
                    }
                    let expected = !has_end || said.unwrap_or(is_old);
                    assert_eq!(closes(&answer), expected, "{version:?} {status} {end:?} {lines:?}");
                }
            }
        }
    }
}
