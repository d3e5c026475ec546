//! The tools with which the rules of each contract are written.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

/// A rule of the contract, as it is tried on a subject.
pub(super) struct Rule<'a, S> {
    pub(super) subject: &'a S,
    name: &'static str,
    advice: &'static str,
}

/// The longest wait for an answer: what is awaited takes milliseconds.
pub(super) const BOUND: Duration = Duration::from_secs(60);
/// Longer than any rule takes on a slow database.
const RULE_BOUND: Duration = Duration::from_secs(600);

impl<'a, S: Sync> Rule<'a, S> {
    /// The rule called `name`. `advice` says what to do where it does not hold.
    pub(super) fn new(subject: &'a S, name: &'static str, advice: &'static str) -> Self {
        Self { subject, name, advice }
    }

    #[track_caller]
    pub(super) fn fail(&self, found: impl Display) -> ! {
        panic!("the rule `{}` does not hold: {found}.\nWhat to do: {}", self.name, self.advice)
    }

    #[track_caller]
    pub(super) fn check(&self, holds: bool, found: impl FnOnce() -> String) {
        if !holds {
            self.fail(found());
        }
    }

    /// Says that the rule, or a part of it, is not shown.
    pub(super) fn leave_out(&self, missing: &str) {
        eprintln!("conformance: `{}` is not shown in full, as the subject has no {missing}", self.name);
    }

    /// Returns the output of `future`, unless it takes so long that it never ends.
    pub(super) async fn within<T>(&self, future: impl Future<Output = T>) -> T {
        match tokio::time::timeout(BOUND, future).await {
            Ok(output) => output,
            Err(_) => self.fail("nothing was answered for a minute"),
        }
    }
}

/// A rule that ends, one way or the other.
pub(super) async fn ended(name: &str, rule: impl Future<Output = ()>) {
    if tokio::time::timeout(RULE_BOUND, rule).await.is_err() {
        panic!("the rule `{name}` does not hold: it has not ended.\nWhat to do: let every call end, if with an error");
    }
}
