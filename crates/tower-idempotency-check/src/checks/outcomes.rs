//! What becomes of errors, and of old keys.

use std::time::Duration;

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::probe::{Probe, Stop, new_key};

use super::answers::{compare, is_marked, note_if_stuck};

pub(super) async fn declined(probe: &Probe<'_>) -> Result<(), Stop> {
    let Some(body) = &probe.endpoint.declined else {
        return Err(Stop::Skip("it needs `--declined`, or `declined` in a plan"));
    };
    let key = new_key();
    let message = probe.keyed(&key).with_body(body.clone());
    let first = probe.send("a request that is declined", &message).await?;
    if !first.status.is_client_error() {
        return Err(Stop::Other(format!("the `declined` request gets {}", first.summary())));
    }
    let again = probe.settled("the same again", &message).await?;
    compare(probe, &first, &again);
    Ok(())
}

pub(super) async fn server_error(probe: &Probe<'_>) -> Result<(), Stop> {
    let Some(body) = &probe.endpoint.server_error else {
        return Err(Stop::Skip("it needs `--server-error`, or `server_error` in a plan"));
    };
    let (key, before) = (new_key(), probe.before().await?);
    let message = probe.keyed(&key).with_body(body.clone());
    let first = probe.send("a request that fails", &message).await?;
    if !first.status.is_server_error() {
        return Err(Stop::Other(format!("the `server_error` request gets {}", first.summary())));
    }
    let again = probe.settled("the same again", &message).await?;
    note_if_stuck(probe, "a failed request", &again);
    let effects = probe.effects(&before, [&first, &again]).await?;
    if effects > 1 {
        let what = format!("a request that has failed after its effect runs again: {effects} effects");
        // This profile wants it so.
        let severity = if probe.dialect().replays_500 == Some(false) { Severity::Note } else { Severity::Dangerous };
        probe.counted(severity, Rule::Errors, what);
    }
    if again.status.is_success() && effects != 1 && probe.can_count() {
        let what = format!("the retry of a failed request gets {}, and there are {effects} effects", again.summary());
        probe.counted(Severity::Dangerous, Rule::Errors, what);
    }
    let is_replayed = again.status == first.status && again.is_same(&first);
    match probe.dialect().replays_500 {
        Some(true) if !is_replayed => {
            let what = format!("the retry of a failed request gets {}, and not the error", again.summary());
            probe.found(Severity::Note, Rule::Errors, what);
        }
        Some(false) if is_replayed && is_marked(&again) => {
            probe.found(Severity::Wrong, Rule::Errors, format!("a 5xx is stored and replayed: {}", again.summary()));
        }
        _ => {}
    }
    Ok(())
}

pub(super) async fn rate_limited(probe: &Probe<'_>) -> Result<(), Stop> {
    let Some(body) = &probe.endpoint.rate_limited else {
        return Err(Stop::Skip("it needs `--rate-limited`, or `rate_limited` in a plan"));
    };
    let key = new_key();
    probe.first(&key).await?;
    if !is_marked(&probe.settled("the same again", &probe.keyed(&key)).await?) {
        return Err(Stop::Skip("the server marks no replay, so that a replayed 429 can't be seen"));
    }
    let message = probe.keyed(&new_key()).with_body(body.clone());
    let first = probe.send("a request that is limited", &message).await?;
    if first.status.as_u16() != 429 {
        return Err(Stop::Other(format!("the `rate_limited` request gets {}", first.summary())));
    }
    let again = probe.send("the same again", &message).await?;
    if is_marked(&again) {
        let what = "a 429 is replayed: the client, which has had no effect, is refused for as long as its key lives";
        let severity = if probe.dialect().name == "stripe" { Severity::Wrong } else { Severity::Note };
        probe.found(severity, Rule::Errors, what);
    }
    Ok(())
}

pub(super) async fn retention(probe: &Probe<'_>) -> Result<(), Stop> {
    let Some(retention) = probe.endpoint.retention else {
        return Err(Stop::Skip("it needs `--retention`, or `retention` in a plan"));
    };
    let (key, before) = (new_key(), probe.before().await?);
    let first = probe.first(&key).await?;
    tokio::time::sleep(retention / 2).await;
    let again = probe.settled("after half of the retention", &probe.keyed(&key)).await?;
    compare(probe, &first, &again);
    if probe.effects(&before, [&first, &again]).await? > 1 {
        probe.counted(Severity::Dangerous, Rule::Retention, "a key is forgotten before its retention is over");
    }
    tokio::time::sleep(retention / 2 + Duration::from_secs(2)).await;
    let late = probe.send("after the retention", &probe.keyed(&key)).await?;
    if probe.can_count() && probe.effects(&before, [&first, &again, &late]).await? < 2 {
        let what = format!("after its retention a key is still known: {}", late.summary());
        probe.counted(Severity::Note, Rule::Retention, what);
    }
    Ok(())
}
