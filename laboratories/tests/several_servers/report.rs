//! What a run has come to.

use crate::client::Clients;

/// How often such a scene is played at most.
const TRIES: usize = 5;

/// Plays a scene in which something has to be done within a moment. The scene says by `None` that it came too late,
/// because the machine stood still. Then it is played again, with the next number.
pub(crate) async fn in_time<T>(play: impl AsyncFn(usize) -> Option<T>) -> T {
    for number in 0..TRIES {
        if let Some(played) = play(number).await {
            return played;
        }
    }
    panic!("the machine was too slow, {TRIES} times");
}

/// Figures, and all that was wrong.
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

    /// Notes what is wrong unless it is as it should be.
    pub(crate) fn expect(&mut self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(violation());
        }
    }

    /// The answers that clients got, judged by the checker. All effects must be known.
    pub(crate) fn judge(&mut self, clients: &Clients) {
        self.figure(clients.figures());
        self.violations.extend(clients.history.violations());
        self.violations.extend(clients.stuck());
    }

    /// Besides: each key has an outcome.
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

    /// Says what it has come to; of the violations, the first ones.
    pub(crate) fn print(&self, name: &str, shown: usize) {
        for violation in self.violations.iter().take(shown) {
            println!("{name}: {violation}");
        }
        println!("{name}: {}, violations {}", self.figures.join("; "), self.violations.len());
    }

    /// Asserts that nothing was wrong.
    pub(crate) fn assert_kept(&self, name: &str) {
        self.print(name, 50);
        assert_eq!(self.violations, [""; 0], "{name}");
    }

    /// Asserts that the run has seen what was broken on purpose: a violation that says so.
    pub(crate) fn assert_seen(&self, name: &str, says: &str) {
        self.print(&format!("control: {name}"), 1);
        let has_seen = self.violations.iter().any(|violation| violation.contains(says));
        assert!(has_seen, "{name}: nothing was seen that says {says:?}");
    }
}
