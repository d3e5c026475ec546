//! What a relay asks of an outbox, what it gets, and what it writes: leases. A relay uses them before a try and after
//! it, and an operator writes an [`Update`], too.

use std::collections::HashMap;
use std::time::Duration;

use crate::{Answer, Entry, State};

/// The longest that a call waits for its next try. A time that is more than twice as far ahead comes from a clock that
/// was wrong, and counts as over.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// How many characters of a reason are kept.
const MAX_REASON: usize = 500;

/// What an entry becomes.
#[derive(Debug, Clone)]
pub struct Update {
    pub(crate) state: State,
    /// How long the next try waits.
    pub(crate) wait: Duration,
    /// What is known of the tries so far; `None`: what was known.
    pub(crate) may_have_taken_place: Option<bool>,
    /// Whether its tries count from zero again.
    pub(crate) restarts: bool,
    /// Whether the try was none: nothing was sent under this lease.
    pub(crate) is_no_try: bool,
    pub(crate) reason: String,
    /// The answer; `None`: the one that is there stays.
    pub(crate) answer: Option<Answer>,
}

impl Update {
    pub(crate) fn to(state: State, reason: impl Into<String>) -> Self {
        let mut reason: String = reason.into();
        if let Some((end, _)) = reason.char_indices().nth(MAX_REASON) {
            reason.truncate(end);
        }
        // PostgreSQL's texts have no NUL, and JSON writes six characters for others.
        let reason = reason.replace(char::is_control, " ");
        Self {
            state,
            wait: Duration::ZERO,
            may_have_taken_place: None,
            restarts: false,
            is_no_try: false,
            reason,
            answer: None,
        }
    }
}

/// An entry that a relay has a lease of.
#[derive(Debug)]
pub struct Leased {
    /// Its `may_have_taken_place` is of the tries before.
    pub(crate) entry: Entry,
    pub(crate) tried_for: Age,
}

/// How long ago something was. Where clocks differ, it lies between two times: what is given up is so by all of them,
/// and what is sent is in time by all of them that count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Age {
    pub(crate) at_least: Duration,
    pub(crate) at_most: Duration,
}

impl Age {
    pub(crate) fn plus(self, time: Duration) -> Self {
        Self { at_least: self.at_least.saturating_add(time), at_most: self.at_most.saturating_add(time) }
    }
}

/// How many calls a relay has room for.
#[derive(Debug, Clone)]
pub struct Room {
    pub(crate) most: u16,
    /// The most of one destination, those included that the relay has already.
    pub(crate) of_each: u16,
    /// How many the relay has already, by their destinations.
    pub(crate) taken: HashMap<String, u16>,
}

#[cfg(feature = "sled")]
impl Room {
    /// Takes a place for a call to this destination. Returns whether there was one.
    pub(crate) fn take(&mut self, destination: &str) -> bool {
        let taken = self.taken.entry(destination.to_owned()).or_default();
        let is_free = self.most > 0 && *taken < self.of_each;
        if is_free {
            self.most -= 1;
            *taken += 1;
        }
        is_free
    }
}

#[cfg(test)]
mod tests;
