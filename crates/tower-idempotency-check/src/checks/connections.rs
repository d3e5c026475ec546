//! What becomes of a connection.

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::http::connection::Connection;
use crate::http::message::Answer;
use crate::probe::{Probe, Stop, new_key};

use super::differences::NO_OTHER_BODY;

/// Bytes that a server has to read, or to give up, before the connection can take another request.
const LONG: usize = 32 * 1024;

pub(super) async fn after_rejection(probe: &Probe<'_>) -> Result<(), Stop> {
    let key = new_key();
    let first = probe.first(&key).await?;
    let mut connection = probe.connection().await?;
    // Another body, longer than the first: it is refused before it need be read.
    let Some(mut long) = probe.endpoint.other_body.clone() else { return Err(Stop::Skip(NO_OTHER_BODY)) };
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
    if rejected.status.is_success() {
        return Err(Stop::Skip("the server rejects no other body: see `other-body`"));
    }
    if closes(&rejected) {
        return Ok(());
    }
    next(probe, &mut connection, "a rejection", &key, &first).await
}

pub(super) async fn after_replay(probe: &Probe<'_>) -> Result<(), Stop> {
    let key = new_key();
    let first = probe.first(&key).await?;
    let mut connection = probe.connection().await?;
    let Ok(replay) = probe.send_over(&mut connection, "a retry", &probe.keyed(&key)).await? else {
        probe.found(Severity::Wrong, Rule::Connection, "a replay does not reach its client");
        return Ok(());
    };
    if closes(&replay) {
        return Ok(());
    }
    next(probe, &mut connection, "a replay", &key, &first).await
}

fn closes(answer: &Answer) -> bool {
    answer.header("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"))
}

/// Sends one more request over the connection, which gets the first answer again.
async fn next(
    probe: &Probe<'_>,
    connection: &mut Connection,
    after: &str,
    key: &str,
    first: &Answer,
) -> Result<(), Stop> {
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
