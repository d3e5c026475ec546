//! What the checks have found.

use std::time::Duration;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// A client can do without it, or the profile only recommends it.
    Note,
    /// A client gets a wrong answer, or can't go on.
    Wrong,
    /// An effect takes place twice or is lost, or a client gets another one's answer.
    Dangerous,
}

/// One thing that a check has found.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub what: String,
    /// The rule that it concerns, and where it is written.
    pub rule: String,
    /// Whether it rests on how many effects there were.
    #[serde(skip)]
    pub(crate) is_counted: bool,
    /// In what a replay differs from the first answer, if that is all: `status`, `body`, or the name of a header.
    #[serde(skip)]
    pub(crate) part: Option<String>,
}

/// One thing that was sent, and what came of it.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Event {
    /// Since the check began.
    #[serde(serialize_with = "seconds")]
    pub began: Duration,
    /// Since the check began.
    #[serde(serialize_with = "seconds")]
    pub ended: Duration,
    /// What it was sent for.
    pub label: String,
    /// The request, as a command of curl.
    pub sent: String,
    /// Status and beginning of the answer, or why there is none.
    pub received: String,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e4).round() / 1e4)
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "why")]
#[non_exhaustive]
pub enum Outcome {
    /// The server does what the profile says, or there are notes only.
    Kept,
    /// It does not: see the findings.
    Broken,
    /// The plan does not say what the check needs.
    Skipped(String),
    /// The check could not come to its end.
    Failed(String),
}

/// A check that has ended.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Checked {
    /// The name of the check.
    pub name: &'static str,
    /// What it asks.
    pub question: &'static str,
    /// The endpoint: method and target.
    pub endpoint: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The check whose finding explains this one's, so that it is none of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follows_from: Option<&'static str>,
    /// What it has found.
    pub findings: Vec<Finding>,
    /// What was sent and received, in order.
    pub timeline: Vec<Event>,
    /// How long it took.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
}

/// All that was found.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The server.
    pub origin: String,
    /// The names of the profiles.
    pub profiles: Vec<&'static str>,
    /// The checks, in their order.
    pub checks: Vec<Checked>,
    /// How many requests were sent.
    pub requests: usize,
}

impl Report {
    /// 0: each check that ran is kept; 1: one is broken; 2: one could not be checked, and none is broken.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let any = |is: fn(&Outcome) -> bool| self.checks.iter().any(|check| is(&check.outcome));
        match () {
            () if any(|outcome| *outcome == Outcome::Broken) => 1,
            () if any(|outcome| matches!(outcome, Outcome::Failed(_))) => 2,
            () if !any(|outcome| *outcome == Outcome::Kept) => 2,
            () => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each outcome with each other one. Seeded fault: a check that failed hides one that is broken.
    #[test]
    fn the_worst_of_the_outcomes_is_the_exit_code() {
        let failed = || Outcome::Failed("no answer".to_owned());
        let skipped = || Outcome::Skipped("no plan".to_owned());
        let outcomes = [Outcome::Broken, failed(), Outcome::Kept, skipped()];
        let checked = |outcome: &Outcome| Checked {
            name: "at-once",
            question: "",
            endpoint: String::new(),
            outcome: outcome.clone(),
            follows_from: None,
            findings: Vec::new(),
            timeline: Vec::new(),
            took: Duration::ZERO,
        };
        let code = |outcomes: &[&Outcome]| {
            let checks = outcomes.iter().map(|outcome| checked(outcome)).collect();
            Report { origin: String::new(), profiles: Vec::new(), checks, requests: 0 }.exit_code()
        };
        for (index, first) in outcomes.iter().enumerate() {
            for (other, second) in outcomes.iter().enumerate() {
                let expected = match (index.min(other), index.max(other)) {
                    (0, _) => 1,
                    // All were skipped, so nothing is known.
                    (1, _) | (3, 3) => 2,
                    _ => 0,
                };
                assert_eq!(code(&[first, second]), expected, "{first:?}, {second:?}");
            }
        }
        assert_eq!(code(&[]), 2);
    }
}
