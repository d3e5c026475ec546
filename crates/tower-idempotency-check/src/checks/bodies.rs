//! Clients that hang up.

use std::time::Duration;

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::http::connection::HangUp;
use crate::http::failure::Failure;
use crate::probe::{Probe, Stop};

use super::answers::is_marked;

/// Sends a request with this body, hangs up, and sends it again.
async fn again_after(probe: &Probe<'_>, label: &str, body: &str, when: HangUp) -> Result<(), Stop> {
    let before = probe.ledger().await?;
    let message = probe.keyed(&probe.new_key()).with_body(body);
    probe.hang_up(label, &message, when).await?;
    let again = probe.settled("the same request again", &message).await?;
    let effects = probe.effects(&before, [&again]).await?;
    probe.once(effects, Rule::Retry, format!("{label}: the request and its retry have {effects} effects"));
    if !again.is_success() {
        let severity = if effects == 1 { Severity::Dangerous } else { Severity::Wrong };
        let done = if effects == 1 && probe.can_count() { "it was done, and " } else { "" };
        probe.found(severity, Rule::Retry, format!("{label}: {done}the retry gets {}", again.summary()));
        return Ok(());
    }
    if probe.can_count() && effects == 0 {
        let what = format!("{label}: the retry gets {}, and nothing was done", again.summary());
        probe.counted(Severity::Dangerous, Rule::Retry, what);
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
    let (message, before) = (probe.keyed(&probe.new_key()), probe.ledger().await?);
    probe.hang_up("half a body", &message, HangUp::InTheBody).await?;
    let whole = probe.settled("the whole request", &message).await?;
    let effects = probe.effects(&before, [&whole]).await?;
    if !whole.is_success() {
        let what = format!("after half a body, the whole request gets {}", whole.summary());
        probe.found(Severity::Wrong, Rule::Retry, what);
    }
    if probe.can_count() && effects != usize::from(whole.is_success()) {
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

/// Hangs up within a stream, as a client does whose connection breaks while a tool reports its progress.
pub(super) async fn stream_cut(probe: &Probe<'_>) -> Result<(), Stop> {
    let body = probe.endpoint.settings.slow.as_ref().unwrap_or(&probe.endpoint.request.body);
    match again_after(probe, "a client whose stream is cut", body, HangUp::InTheStream).await {
        Err(Stop::Failed(Failure::NoStream)) => Err(Stop::Skip("the server answers without a stream")),
        end => end,
    }
}
