//! What survives the end of the server's process.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::dialect::Rule;
use crate::effects::Ledger;
use crate::probe::{Probe, Stop};

use super::answers::{compare, note_if_stuck, still_there};

/// How long a command may take, and the server after it until it answers.
const WITHIN: Duration = Duration::from_secs(60);

/// Runs a command of the plan in a shell. What the command writes goes nowhere: a server that it starts would keep the
/// checker's own output open.
async fn run(command: &str) -> Result<(), Stop> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.kill_on_drop(true).spawn();
    let child = child.as_mut().map_err(|error| Stop::Other(format!("{command:?} does not start: {error}")))?;
    match tokio::time::timeout(WITHIN, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Stop::Other(format!("{command:?} has failed: {status}"))),
        Ok(Err(error)) => Err(Stop::Other(format!("{command:?} can't be waited for: {error}"))),
        Err(_) => Err(Stop::Other(format!("{command:?} takes more than {} s", WITHIN.as_secs()))),
    }
}

/// Waits until the server accepts connections, and still has the effects from before.
async fn is_there(probe: &Probe<'_>, before: &Option<Ledger>) -> Result<(), Stop> {
    let began = std::time::Instant::now();
    while probe.connection().await.is_err() {
        if began.elapsed() > WITHIN {
            return Err(Stop::Other("the server does not come back".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if probe.has_lost(before).await? { Err(Stop::Other(IN_MEMORY.to_owned())) } else { Ok(()) }
}

const IN_MEMORY: &str = "the server's own list is shorter than before: it keeps its effects in memory, and a key says nothing of \
                         what is gone";

pub(super) async fn restart(probe: &Probe<'_>) -> Result<(), Stop> {
    let command = probe.endpoint.settings.restart.as_ref().ok_or(Stop::Needs("restart"))?;
    let (key, first) = probe.first().await?;
    let before = probe.ledger().await?;
    run(command).await?;
    is_there(probe, &before).await?;
    still_there(probe, "a restart", &key, &first).await
}

pub(super) async fn kill(probe: &Probe<'_>) -> Result<(), Stop> {
    let command = probe.endpoint.settings.kill.as_ref().ok_or(Stop::Needs("kill"))?;
    let (answered, first) = probe.first().await?;
    let before = probe.ledger().await?;
    let body = probe.endpoint.settings.slow.as_ref().unwrap_or(&probe.endpoint.request.body);
    let message = probe.keyed(&probe.new_key()).with_body(body);
    // The kill comes while the request is under way, or at once after it.
    let killed = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        run(command).await
    };
    let (under_way, killed) = tokio::join!(probe.send("a request, and a kill", &message), killed);
    killed?;
    is_there(probe, &before).await?;
    let again = probe.settled("after the kill", &message).await?;
    note_if_stuck(probe, "a kill", &again);
    let effects = probe.effects(&before, under_way.iter().chain([&again])).await?;
    probe.once(effects, Rule::Retry, format!("a kill in the middle of a request leads to {effects} effects"));
    if let Ok(under_way) = &under_way
        && under_way.is_success()
    {
        compare(probe, under_way, &again);
    }
    still_there(probe, "a kill", &answered, &first).await
}
