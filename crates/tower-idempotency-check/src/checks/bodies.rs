//! Clients that hang up.

use std::time::Duration;

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::http::connection::HangUp;
use crate::probe::{Probe, Stop};

use super::answers::is_marked;

/// Sends a request with this body, hangs up, and sends it again.
async fn again_after(probe: &Probe<'_>, label: &str, body: &str, when: HangUp) -> Result<(), Stop> {
    let (key, before) = (probe.new_key(), probe.before().await?);
    let message = probe.keyed(&key).with_body(body.to_owned());
    probe.hang_up(label, &message, when).await?;
    let again = probe.settled("the same request again", &message).await?;
    let effects = probe.effects(&before, [&again]).await?;
    if effects > 1 {
        let what = format!("{label}: the request and its retry have {effects} effects");
        probe.counted(Severity::Dangerous, Rule::Retry, what);
    }
    if !again.status.is_success() {
        let severity = if effects == 1 { Severity::Dangerous } else { Severity::Wrong };
        let what = match effects {
            1 if probe.can_count() => format!("{label}: it was done, and the retry gets {}", again.summary()),
            _ => format!("{label}: the retry gets {}", again.summary()),
        };
        probe.found(severity, Rule::Retry, what);
    } else if probe.can_count() && effects == 0 {
        let what = format!("{label}: the retry gets {}, and nothing was done", again.summary());
        probe.counted(Severity::Dangerous, Rule::Retry, what);
    }
    if !again.status.is_success() {
        return Ok(());
    }
    // Once more: the answer stays.
    let third = probe.settled("and again", &message).await?;
    if third.status != again.status || !third.is_same(&again) {
        let what = format!("{label}: a second retry gets another answer: {}", third.summary());
        probe.differs(Severity::Wrong, Rule::Retry, if third.status == again.status { "body" } else { "status" }, what);
    }
    if when == HangUp::AtTheAnswer && effects <= 1 && !is_marked(&again) {
        probe.found(Severity::Note, Rule::Marker, "the replay of a swallowed answer is not marked as one");
    }
    Ok(())
}

pub(super) async fn truncated(probe: &Probe<'_>) -> Result<(), Stop> {
    if probe.endpoint.request.body.len() < 2 {
        return Err(Stop::Skip("the request has no body"));
    }
    let (key, before) = (probe.new_key(), probe.before().await?);
    probe.hang_up("half a body", &probe.keyed(&key), HangUp::InTheBody).await?;
    let whole = probe.settled("the whole request", &probe.keyed(&key)).await?;
    let effects = probe.effects(&before, [&whole]).await?;
    if !whole.status.is_success() {
        let what = format!("after half a body, the whole request gets {}", whole.summary());
        probe.found(Severity::Wrong, Rule::Retry, what);
    }
    if probe.can_count() && effects != usize::from(whole.status.is_success()) {
        let what = format!("half a body and then the whole request have {effects} effects");
        probe.counted(Severity::Dangerous, Rule::Retry, what);
    }
    Ok(())
}

pub(super) async fn before_the_answer(probe: &Probe<'_>) -> Result<(), Stop> {
    // Before the effect, during it, or after it: that depends on the server.
    for pause in [0, 5, 20, 100] {
        let label = format!("a client that hangs up after {pause} ms");
        again_after(probe, &label, &probe.endpoint.request.body, HangUp::After(Duration::from_millis(pause))).await?;
        if probe.is_broken() {
            return Ok(());
        }
    }
    let Some(slow) = &probe.endpoint.settings.slow else { return Ok(()) };
    let label = "a client that hangs up while the request runs";
    again_after(probe, label, slow, HangUp::After(Duration::from_millis(300))).await
}

pub(super) async fn answer_swallowed(probe: &Probe<'_>) -> Result<(), Stop> {
    again_after(probe, "a client whose answer is swallowed", &probe.endpoint.request.body, HangUp::AtTheAnswer).await
}
