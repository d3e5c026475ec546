//! The report of a run.

use crate::client::Clients;

/// The most times that a scene is played.
const TRIES: usize = 5;

/// Plays a scene that must do something within a moment. The scene returns `None` if it came too late, because the
/// machine stalled. Then it is played again, with the next number.
pub(crate) async fn in_time<T>(play: impl AsyncFn(usize) -> Option<T>) -> T {
    for number in 0..TRIES {
        if let Some(played) = play(number).await {
            return played;
        }
    }
    panic!("the machine was too slow, {TRIES} times");
}

/// The figures of a run, and all violations.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<String>,
    violations: Vec<String>,
}

impl Report {
    pub(crate) fn figure(&mut self, figure: impl Into<String>) {
        self.figures.push(figure.into());
    }

    pub(crate) fn wrong(&mut self, violation: impl Into<String>) {
        self.violations.push(violation.into());
    }

    /// Notes a violation unless `holds`.
    pub(crate) fn expect(&mut self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(violation());
        }
    }

    /// Judges the answers that clients got, by the checker. All effects must be known.
    pub(crate) fn judge(&mut self, clients: &Clients) {
        self.figure(clients.figures());
        self.violations.extend(clients.history.violations());
        self.violations.extend(clients.stuck());
    }

    /// Judges the same, and that each key has an outcome.
    pub(crate) fn judge_settled(&mut self, clients: &Clients) {
        self.judge(clients);
        self.violations.extend(clients.history.unsettled().into_iter().map(|key| format!("{key}: no outcome")));
    }

    pub(crate) fn is_wrong(&self) -> bool {
        !self.violations.is_empty()
    }

    pub(crate) fn add(&mut self, other: Self) {
        let Self { figures, violations } = other;
        self.figures.extend(figures);
        self.violations.extend(violations);
    }

    /// Prints the figures, and the first violations.
    pub(crate) fn print(&self, name: &str, shown: usize) {
        for violation in self.violations.iter().take(shown) {
            println!("{name}: {violation}");
        }
        println!("{name}: {}, violations {}", self.figures.join("; "), self.violations.len());
    }

    /// Asserts that there is no violation.
    pub(crate) fn assert_kept(&self, name: &str) {
        self.print(name, 50);
        assert_eq!(self.violations, [""; 0], "{name}");
    }

    /// Asserts that the run has found the deliberate fault: a violation that contains `says`.
    pub(crate) fn assert_seen(&self, name: &str, says: &str) {
        self.print(&format!("control: {name}"), 1);
        assert!(self.has_seen(says), "{name}: nothing was seen that says {says:?}");
    }

    /// Returns whether the run has found a violation that contains `says`.
    pub(crate) fn has_seen(&self, says: &str) -> bool {
        self.violations.iter().any(|violation| violation.contains(says))
    }
}
