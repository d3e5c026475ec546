//! Which operations a command is for.

use std::time::Duration;

use clap::Args;
use tower_idempotency::clock::Timestamp;
use tower_idempotency::engine::Cause;
use tower_idempotency::operations::{Filter, StateKind};

/// Each option leaves out what it does not mean.
#[derive(Debug, Args)]
pub(crate) struct Selected {
    /// Only those in this state: running, interrupted, completed, consumed (done, but its answer was not kept) or
    /// damaged.
    #[arg(long)]
    state: Option<StateKind>,
    /// Only interrupted ones with this cause: process-ended, panicked, max-run, lease, shutdown, failed, broken,
    /// unsaved, answered (with a status, see `--status`) or unknown.
    #[arg(long)]
    cause: Option<Cause>,
    /// Only those whose label begins so, such as `POST /charges`.
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Only those that came to their state then or later, such as `2026-11-22T10:03:07Z`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only those that came to their state before then.
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Option<Timestamp>,
    /// Only those that have been in their state for longer, such as `24h`.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Only those whose client was answered with this HTTP status.
    #[arg(long, value_name = "CODE")]
    status: Option<u16>,
    /// Only those of the scope with this digest, which `show` and `find` write.
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    scope: Option<[u8; 32]>,
}

impl Selected {
    /// Returns the filter.
    pub(crate) fn filter(&self) -> Filter {
        let &Self { state, cause, ref label, since, before, older_than, status, scope } = self;
        Filter { state, cause, label: label.clone(), since, before, older_than, status, scope }
    }
}

/// Reads a time of UTC.
fn time(text: &str) -> Result<Timestamp, &'static str> {
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| "a time of UTC is written as 2026-11-22T10:03:07Z")?;
    Ok(time.into())
}

/// Reads the digest of a scope.
fn digest(text: &str) -> Result<[u8; 32], &'static str> {
    // A digest of a scope has the form of a record id.
    let digest = text.parse::<tower_idempotency::RecordId>().map_err(|_| "a scope's digest has 64 hex digits")?;
    Ok(*digest.as_bytes())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        selected: Selected,
    }

    type Condition = (&'static str, &'static str, fn(Filter) -> Filter);

    const DIGEST: &str = "0707070707070707070707070707070707070707070707070707070707070707";
    const CONDITIONS: [Condition; 7] = [
        ("--cause", "panicked", |filter| filter.caused_by(Cause::Panicked)),
        ("--label", "POST /a", |filter| filter.labelled("POST /a")),
        ("--since", "2027-01-15T08:00:00Z", |filter| filter.since(Timestamp::from_millis(1_800_000_000_000))),
        ("--before", "2027-01-15 08:00:01", |filter| filter.before(Timestamp::from_millis(1_800_000_001_000))),
        ("--older-than", "24h", |filter| filter.older_than(Duration::from_secs(86_400))),
        ("--status", "504", |filter| filter.answered_with(504)),
        ("--scope", DIGEST, |filter| filter.of_scope([7; 32])),
    ];

    // Seeded fault: a condition is left out, alone or next to another one.
    #[test]
    fn each_option_and_each_two_of_them_are_conditions() {
        let filter = |arguments: &[&str]| {
            let command = Command::try_parse_from([&["idem"], arguments].concat());
            command.unwrap().selected.filter()
        };
        assert_eq!(filter(&[]), Filter::all());
        for (name, value, with) in CONDITIONS {
            assert_eq!(filter(&[name, value]), with(Filter::all()), "{name}");
            for (other, of_other, also) in CONDITIONS.iter().filter(|(other, ..)| *other != name) {
                let both = [name, value, other, of_other];
                assert_eq!(filter(&both), also(with(Filter::all())), "{name} {other}");
                let completed = also(with(Filter::all())).in_state(StateKind::Completed);
                assert_eq!(filter(&[&both[..], &["--state", "completed"]].concat()), completed, "{name} {other}");
            }
        }
    }
}
