//! A report for a terminal, and the words that the other forms share.

use std::fmt::Write as _;

use crate::finding::{Checked, Outcome, Report, Severity};

impl Severity {
    /// Its name in a report.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Wrong => "wrong",
            Self::Dangerous => "DANGEROUS",
        }
    }
}

impl Checked {
    /// How many notes there are, for a check that is kept.
    pub(crate) fn notes(&self) -> String {
        match self.findings.len() {
            0 => String::new(),
            1 => ", 1 note".to_owned(),
            notes => format!(", {notes} notes"),
        }
    }

    /// One line: the name and how it ended.
    #[must_use]
    pub fn line(&self) -> String {
        let ([.., word], why) = self.ended();
        format!("{:<28} {word}{why}", self.name)
    }

    /// How it ended: the class of the word in a page, the word there, the word in a terminal; and what comes after it.
    pub(crate) fn ended(&self) -> ([&'static str; 3], String) {
        match (&self.outcome, self.follows_from) {
            (Outcome::Kept, _) => (["kept", "kept", "ok"], self.notes()),
            (Outcome::Broken, Some(cause)) => {
                (["follows", "broken", "BROKEN"], format!(", which follows from {cause}"))
            }
            (Outcome::Broken, None) => (["broken", "broken", "BROKEN"], String::new()),
            (Outcome::Skipped(why), _) => (["skipped"; 3], format!(": {why}")),
            (Outcome::Failed(why), _) => (["failed", "could not check", "could not check"], format!(": {why}")),
        }
    }
}

impl Report {
    /// The checks whose findings follow from those of this one.
    pub(crate) fn consequences(&self, of: &Checked) -> Vec<&Checked> {
        let is_one = |check: &&Checked| check.follows_from == Some(of.name) && check.endpoint == of.endpoint;
        self.checks.iter().filter(is_one).collect()
    }

    /// The findings, and in the last line the sum, as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let is_shown = |check: &&Checked| !check.findings.is_empty() && check.follows_from.is_none();
        for check in self.checks.iter().filter(is_shown) {
            // Writing to a String can't fail.
            let _ = writeln!(text, "\n---- {} ({}) ----\n{}", check.name, check.endpoint, check.question);
            for finding in &check.findings {
                let _ = writeln!(text, "  {}: {}\n    {}", finding.severity.word(), finding.what, finding.rule);
            }
            for event in &check.timeline {
                let (at, label) = (event.began.as_secs_f64(), &event.label);
                let _ = writeln!(text, "  {at:>7.3} s  {label}\n      {}\n      {}", event.sent, event.received);
            }
            for (number, consequence) in self.consequences(check).into_iter().enumerate() {
                if number == 0 {
                    text.push_str("  what follows from it:\n");
                }
                for finding in &consequence.findings {
                    let _ = writeln!(text, "    {}: {}: {}", consequence.name, finding.severity.word(), finding.what);
                }
            }
        }
        text.push('\n');
        text.push_str(&self.sum());
        text
    }

    /// How many checks ended in which way, in one line.
    pub(crate) fn sum(&self) -> String {
        let count = |is: fn(&Outcome) -> bool| self.checks.iter().filter(|check| is(&check.outcome)).count();
        let (kept, broken) = (count(|outcome| *outcome == Outcome::Kept), count(|outcome| *outcome == Outcome::Broken));
        let follow = self.checks.iter().filter(|check| check.follows_from.is_some()).count();
        let (broken, follow) = match follow {
            0 => (broken, String::new()),
            follow => (broken - follow, format!(" and {follow} that follow from it")),
        };
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let notes = self.checks.iter().flat_map(|check| &check.findings);
        let notes = notes.filter(|finding| finding.severity == Severity::Note).count();
        format!(
            "{}, profile {}: {kept} kept, {broken} broken{follow}, {failed} could not be checked, {skipped} skipped; {notes} notes; \
             {} requests",
            self.origin,
            self.profiles.join(", "),
            self.requests
        )
    }

    /// All of it, as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Texts and numbers can always be written as JSON.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
