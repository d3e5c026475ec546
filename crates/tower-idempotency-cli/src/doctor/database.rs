//! What is tested alike in every database.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tower_idempotency::clock::Timestamp;
use tower_idempotency_shared::{Backend, Guarantee};

use super::claims::{self, Fault};
use super::grade::Grade;
use super::report::Report;
use crate::failure::Failure;

/// The namespace of the test's rows, which no service has.
pub(super) const NAMESPACE: &str = "idem-doctor";
/// A store logs an error from this difference of two clocks on, and does not open from the second one on.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// What can be lost with the database as it is set up.
pub(super) fn losses(guarantee: &Guarantee, judge: impl Fn(&str) -> Grade, report: &mut Report) -> Result<(), Failure> {
    report.note("set-up", guarantee.setup.clone())?;
    for loss in &guarantee.loses {
        report.found("can lose", judge(loss), loss.clone())?;
    }
    if guarantee.loses.is_empty() {
        report.good("can lose", "nothing that is known of")?;
    }
    report.note("syncs", "only its settings show whether the server syncs: what its disk does can't be seen from here")
}

/// Tests claims in the namespace of the test, opened twice as two servers do.
pub(super) async fn test_claims<B: Backend>(
    opened: Result<(B, B), impl std::fmt::Display + Send>,
    report: &mut Report,
) -> Result<(), Failure> {
    let (one, other) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let why =
                format!("claims were not tried, because the namespace {NAMESPACE} is closed to this user: {error}");
            return report.unclear("claim twice", why);
        }
    };
    let asked = SystemTime::now();
    match claims::test(&one, &other).await {
        Ok((seen, now)) => {
            report.all_good(seen)?;
            clock(asked, now, report)
        }
        Err(Fault::Broken(check, fault)) => report.found(check, Grade::ClaimIgnored, fault),
        Err(Fault::Failed(why)) => report.unclear("claim twice", format!("it could not be tried: {why}")),
    }
}

/// Compares the database's clock with this machine's. The database's was read between the two times of this one.
fn clock(asked: SystemTime, theirs: Timestamp, report: &mut Report) -> Result<(), Failure> {
    let millis = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (before, theirs, after) = (millis(asked), u128::from(theirs.as_millis()), millis(SystemTime::now()));
    let apart = if theirs < before { before - theirs } else { theirs.saturating_sub(after) };
    if apart <= CLOCKS_DIFFER.as_millis() {
        return report.good("clock", "the database's clock and this machine's agree");
    }
    let apart = humantime::format_duration(Duration::from_secs(u64::try_from(apart / 1_000).unwrap_or(u64::MAX)));
    let which = if theirs < before { "behind" } else { "ahead of" };
    report.found("clock", Grade::Clock, format!("the database's clock is {apart} {which} this machine's"))
}
