//! What comes while the first request runs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::dialect::Rule;
use crate::finding::Severity;
use crate::http::message::{Answer, Message};
use crate::probe::{Probe, Stop};

use super::answers::compare;
use super::repeats::wrong_in_flight;

/// When what comes meanwhile is sent, and how long the first request has to run on after that. A server that is busy
/// gets the two later than they were sent.
const MEANWHILE: Duration = Duration::from_millis(300);
const RUNS_ON: Duration = Duration::from_millis(400);

/// Whether the first request ran on for long enough after another one was sent, by when that was.
fn ran_on(took: Duration, sent: Option<Duration>) -> Result<(), Stop> {
    if sent.is_some_and(|sent| took.saturating_sub(sent) >= RUNS_ON) {
        return Ok(());
    }
    let sent = sent.map_or("none was sent meanwhile".to_owned(), |sent| {
        format!("the other one was sent after {} ms", sent.as_millis())
    });
    let why = format!(
        "the `slow` request took {} ms, and {sent}: it has to take a second or more, longer on a busy machine",
        took.as_millis()
    );
    Err(Stop::Other(why))
}

/// Sends the slow request, and again and again until it ends: what keeps its copies away may end before it.
pub(super) async fn in_flight(probe: &Probe<'_>) -> Result<(), Stop> {
    let slow = probe.endpoint.settings.slow.as_ref().ok_or(Stop::Needs("slow"))?;
    let before = probe.ledger().await?;
    let message = probe.keyed(&probe.new_key()).with_body(slow);
    let (began, has_ended) = (Instant::now(), AtomicBool::new(false));
    let first = async {
        let first = probe.send("a slow request", &message).await;
        has_ended.store(true, Ordering::Relaxed);
        (first, began.elapsed())
    };
    let retries = async {
        let (mut retries, mut sent) = (Vec::new(), None);
        loop {
            tokio::time::sleep(MEANWHILE.max(began.elapsed() / 5)).await;
            if has_ended.load(Ordering::Relaxed) {
                return Ok::<_, Stop>((retries, sent));
            }
            sent = sent.or_else(|| Some(began.elapsed()));
            retries.push(probe.send("the same while it runs", &message).await?);
        }
    };
    let ((first, took), retries) = tokio::join!(first, retries);
    let (first, (retries, sent)) = (first?, retries?);
    ran_on(took, sent)?;
    let mut statuses = BTreeSet::new();
    for retry in retries.iter().filter(|retry| statuses.insert((retry.status, retry.is_success(), retry.says_wait()))) {
        judge(probe, &first, retry);
    }
    let effects = probe.effects(&before, retries.iter().chain([&first])).await?;
    let what = format!("retries while the first request runs lead to {effects} effects");
    probe.once(effects, Rule::InFlight, what);
    Ok(())
}

/// Sends another body, and another account's request, with the key of the slow request while that runs. Which refusal
/// each gets is for `other_body` and `other_account` to judge.
pub(super) async fn others_in_flight(probe: &Probe<'_>) -> Result<(), Stop> {
    let slow = probe.endpoint.settings.slow.as_ref().ok_or(Stop::Needs("slow"))?;
    let other_body = crate::vary::other(slow).or_else(|| probe.endpoint.other_body.clone());
    let other_account = probe.endpoint.other_account.as_ref();
    if other_body.is_none() && other_account.is_none() {
        return Err(Stop::Skip("it needs `--other-account`, or a number in the body of `--slow`"));
    }
    if let Some(body) = other_body {
        let message = probe.keyed(&probe.new_key()).with_body(slow);
        let other = message.clone().with_body(body);
        let (is_first, other, effects) = while_it_runs(probe, "another body", &message, &other).await?;
        if is_first {
            let what = "another body, sent while the first request runs, gets the answer of that one";
            probe.found(Severity::Dangerous, Rule::Reused, what);
        } else if effects > 1 {
            let what = format!("another body, sent while the first request runs, runs too: {}", other.summary());
            probe.counted(Severity::Dangerous, Rule::Reused, what);
        }
    }
    if let Some((name, value)) = other_account {
        let message = probe.keyed(&probe.new_key()).with_body(slow);
        let other = message.clone().set(name, value);
        if while_it_runs(probe, "another account", &message, &other).await?.0 {
            let what = "another account, whose request comes while the first one runs, gets the answer of that one";
            probe.found(Severity::Dangerous, Rule::Scope, what);
        }
    }
    Ok(())
}

/// Sends another request while the slow one runs. Returns whether it gets the answer of that one, its answer, and how
/// many effects the two have. After that, the slow one still gets its answer.
async fn while_it_runs(
    probe: &Probe<'_>,
    label: &str,
    slow: &Message,
    other: &Message,
) -> Result<(bool, Answer, usize), Stop> {
    let (before, began) = (probe.ledger().await?, Instant::now());
    let first = async { (probe.send("a slow request", slow).await, began.elapsed()) };
    let other = async {
        tokio::time::sleep(MEANWHILE).await;
        let sent = began.elapsed();
        (probe.send(&format!("{label}, with its key, while it runs"), other).await, sent)
    };
    let ((first, took), (other, sent)) = tokio::join!(first, other);
    let (first, other) = (first?, other?);
    ran_on(took, Some(sent))?;
    let effects = probe.effects(&before, [&first, &other]).await?;
    compare(probe, &first, &probe.settled("the slow request again", slow).await?);
    let is_same = first.is_success() && other.is_success() && other.says_same(&first);
    Ok((is_same && (!probe.are_alike() || effects <= 1), other, effects))
}

/// Notes what is wrong with the answer to a retry while the first request runs.
fn judge(probe: &Probe<'_>, first: &Answer, retry: &Answer) {
    let what = format!("a retry while the first request runs gets {}", retry.summary());
    let wanted = probe.dialect().in_flight;
    match retry.status.as_u16() {
        _ if retry.is_success() => compare(probe, first, retry),
        status if status == 409 || status == wanted => {
            if let Some(what) = wrong_in_flight(probe.dialect(), retry) {
                probe.found(Severity::Wrong, Rule::InFlight, what);
            }
        }
        _ if retry.says_wait() => probe.found(Severity::Note, Rule::InFlight, format!("{what}, and not {wanted}")),
        _ => probe.found(Severity::Wrong, Rule::InFlight, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_the_first_request_runs_is_judged_if_that_ran_on_for_400_milliseconds() {
        let end = "it has to take a second or more, longer on a busy machine";
        for (took, sent, said) in [
            (699, Some(300), Some("took 699 ms, and the other one was sent after 300 ms")),
            (700, Some(300), None),
            (1_500, Some(1_200), Some("took 1500 ms, and the other one was sent after 1200 ms")),
            (1_500, Some(1_600), Some("took 1500 ms, and the other one was sent after 1600 ms")),
            (1_500, None, Some("took 1500 ms, and none was sent meanwhile")),
        ] {
            let found = ran_on(Duration::from_millis(took), sent.map(Duration::from_millis)).err();
            let said = said.map(|said| format!("the `slow` request {said}: {end}"));
            assert_eq!(found.map(|stop| stop.to_string()), said);
        }
    }
}
