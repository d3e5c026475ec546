//! The checks there are, of which a plan chooses, and how they run.

use std::sync::Mutex;

use crate::checks::{CHECKS, Check};
use crate::finding::{Checked, Outcome, Report};
use crate::plan::{Endpoint, Plan, PlanError, Settings, read};
use crate::probe::{Probe, Shared, Stop, lock};

const CUT: &str = "new effects don't show where they are counted: the list is cut, or shows the oldest. Count by one that \
                   shows the newest, or all";

/// The check that finds a server which does not look at keys, and replays that differ from the first answer. What other
/// checks find then follows from that: of a server that does not look at keys, but for those that don't ask for what a
/// key does; of replays, if it is the same difference and nothing worse.
const CAUSE: &str = "same-key-again";
const STANDS_ALONE: [&str; 7] = [
    "works", CAUSE, "new-key", "truncated-body", "connection-after-rejection", "connection-after-replay",
    "replayed-headers",
];

/// The checks that concern calls of a tool alone, and those that don't concern them: what they change is not in a call.
const OF_TOOLS: [&str; 3] = ["stream-cut", "other-id", "other-session"];
const NOT_OF_TOOLS: [&str; 10] = [
    "probe", "other-query", "other-path", "other-method", "same-meaning", "key-doubled", "key-malformed", "key-quoted",
    "connection-after-rejection", "connection-after-replay",
];

/// Whether a check has a meaning for the endpoint.
fn concerns(name: &str, endpoint: &Endpoint) -> bool {
    if endpoint.tool.is_some() { !NOT_OF_TOOLS.contains(&name) } else { !OF_TOOLS.contains(&name) }
}

impl Plan {
    /// Reads a plan from TOML.
    ///
    /// # Errors
    /// [`PlanError`] names what is wrong.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        Self::new(Settings::from_toml(text)?)
    }

    /// Makes a plan of these settings.
    ///
    /// # Errors
    /// [`PlanError`] names what is wrong.
    pub fn new(settings: Settings) -> Result<Self, PlanError> {
        let plan = Self::of(settings)?;
        for name in &plan.only {
            read("only", name, "the name of a check", |name| CHECKS.iter().find(|check| check.name == name))?;
        }
        Ok(plan)
    }

    /// Runs all checks of all endpoints, one after the other. `progress` is called with each that has ended.
    ///
    /// If the future is dropped, what was sent stays sent.
    pub async fn run(&self, mut progress: impl FnMut(&Checked)) -> Report {
        let shared = Mutex::new(Shared { left: self.max_requests, ..Shared::default() });
        let mut checks = Vec::new();
        for endpoint in &self.endpoints {
            if let Some(failed) = self.reset(endpoint, &shared).await {
                progress(&failed);
                checks.push(failed);
                continue;
            }
            let is_named = |name: &str| self.only.iter().any(|wanted| wanted == name);
            let is_wanted =
                |name: &str| name == "works" || is_named(name) || self.only.is_empty() && concerns(name, endpoint);
            for check in CHECKS.iter().filter(|check| is_wanted(check.name)) {
                let checked = self.check(endpoint, check, &shared).await;
                progress(&checked);
                // Without an endpoint that works, no other check says anything. An answer under a wrong `id` breaks it,
                // and the others say more.
                let is_over = check.name == "works" && !matches!(checked.outcome, Outcome::Kept | Outcome::Broken);
                checks.push(checked);
                if is_over {
                    break;
                }
            }
        }
        let mut profiles: Vec<_> = self.endpoints.iter().map(|endpoint| endpoint.dialect.name).collect();
        profiles.dedup();
        Report { origin: self.origin(), profiles, checks, requests: self.max_requests - lock(&shared).left }
    }

    async fn check(&self, endpoint: &Endpoint, check: &Check, shared: &Mutex<Shared>) -> Checked {
        let Check { name, question, run } = *check;
        // Each check has sessions of its own.
        lock(shared).sessions.clear();
        let probe = Probe::new(self, endpoint, shared);
        let end = match concerns(name, endpoint) {
            true => run(&probe).await,
            false => Err(Stop::Skip("it does not concern this profile")),
        };
        let is_broken = probe.is_broken();
        // A list that is cut makes findings of nothing.
        let is_doubtful = probe.can_count() && probe.is_broken_by_count();
        let is_counted = !is_doubtful || probe.still_counts().await.unwrap_or(true);
        let (findings, timeline, took) = probe.end();
        let outcome = match end {
            _ if !is_counted => Outcome::Failed(CUT.to_owned()),
            // What was found before the check could not go on counts.
            _ if is_broken => Outcome::Broken,
            Ok(()) => Outcome::Kept,
            // A check that was asked for by its name is missed.
            Err(stop @ (Stop::Skip(_) | Stop::Needs(_))) if !self.only.iter().any(|only| only == name) => {
                Outcome::Skipped(stop.to_string())
            }
            Err(stop) => Outcome::Failed(stop.to_string()),
        };
        let endpoint = format!("{} {}", endpoint.request.method, endpoint.request.target);
        let mut shared = lock(shared);
        if ["works", CAUSE].contains(&name) {
            shared.parts = findings.iter().filter_map(|finding| finding.part.clone()).collect();
        }
        let is_consequence =
            shared.ignores_keys && !STANDS_ALONE.contains(&name) || shared.knows(&findings) && name != CAUSE;
        let follows_from = (outcome == Outcome::Broken && is_consequence).then_some(CAUSE);
        Checked { name, question, endpoint, outcome, follows_from, findings, timeline, took }
    }

    /// Sends the plan's reset. Returns how it ended if it has failed.
    async fn reset(&self, endpoint: &Endpoint, shared: &Mutex<Shared>) -> Option<Checked> {
        const RESET: Check = Check {
            name: "reset",
            question: "Does the plan's reset succeed?",
            run: |probe| Box::pin(async move { probe.reset().await }),
        };
        let checked = self.check(endpoint, &RESET, shared).await;
        (checked.outcome != Outcome::Kept).then_some(checked)
    }
}
