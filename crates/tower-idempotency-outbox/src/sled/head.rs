//! An entry without its call and its answer: what relays look at.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::clock::Now;
use crate::call::unread;
use crate::lease::{Age, MAX_WAIT, Update};
use crate::{Entry, State};

/// An entry, as it is stored. Times are in milliseconds: by the wall clock, since 1970, and by the outbox's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) key: String,
    pub(super) partition_key: Option<String>,
    pub(super) destination: String,
    pub(super) state: State,
    pub(super) fence: u64,
    pub(super) stored: u64,
    pub(super) tries: u32,
    pub(super) first_try: Option<u64>,
    /// The same by the outbox's own clock.
    pub(super) first_kept: Option<u64>,
    /// Which opening of the outbox it was in.
    pub(super) first_opening: Option<u64>,
    pub(super) due: u64,
    pub(super) due_kept: u64,
    pub(super) may_have_taken_place: bool,
    /// By the outbox's own clock.
    pub(super) ended: Option<u64>,
    pub(super) reason: Option<String>,
    /// How many bytes the call and the answer have.
    pub(super) call: usize,
    pub(super) answer: Option<usize>,
}

/// Whether later calls with the same partition key wait for one in this state.
pub(super) fn is_open(state: State) -> bool {
    !matches!(state, State::Delivered | State::Refused)
}

impl Head {
    pub(super) fn new(key: &str, partition_key: Option<&str>, destination: String, call: usize, now: Now) -> Self {
        Self {
            key: key.to_owned(),
            partition_key: partition_key.map(str::to_owned),
            destination,
            state: State::Waiting,
            fence: 0,
            stored: now.wall,
            tries: 0,
            first_try: None,
            first_kept: None,
            first_opening: None,
            due: now.wall,
            due_kept: now.kept,
            may_have_taken_place: false,
            ended: None,
            reason: None,
            call,
            answer: None,
        }
    }

    /// Reads what was stored. What can't be read is damaged.
    pub(super) fn of(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_else(|error| Self {
            state: State::Damaged,
            reason: Some(format!("it is no entry: {}", unread(&error))),
            may_have_taken_place: true,
            ..Self::new("", None, String::new(), 0, Now::default())
        })
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_else(|_| unreachable!("texts and numbers alone"))
    }

    /// Whether a relay may have it now. A try that comes early does no harm, so that either clock counts; but a relay
    /// of this process may have a lease while the wall clock jumps, so that a lease is over by the outbox's own
    /// clock.
    pub(super) fn is_due(&self, now: Now) -> bool {
        let longest = 2 * MAX_WAIT.as_millis() as u64;
        let is_over = |due: u64, now: u64| due <= now || due > now + longest;
        match self.state {
            State::Waiting => is_over(self.due, now.wall) || self.due_kept <= now.kept,
            State::Sending => is_over(self.due_kept, now.kept),
            _ => false,
        }
    }

    /// How long ago its first try began. In the same opening, the outbox's own clock knows. It stops while no process
    /// has the outbox, and never runs ahead; then the wall clock may know of more, unless it was wrong at the first
    /// try.
    pub(super) fn tried_for(&self, now: Now) -> Age {
        let (Some(first), Some(kept)) = (self.first_try, self.first_kept) else { return Age::default() };
        let at_least = Duration::from_millis(now.kept.saturating_sub(kept));
        let at_most = match now.wall.checked_sub(first) {
            _ if self.first_opening == Some(now.opening) => at_least,
            Some(time) => Duration::from_millis(time).max(at_least),
            None => Duration::MAX,
        };
        Age { at_least, at_most }
    }

    /// Gives a relay a lease.
    pub(super) fn lease(&mut self, now: Now, time: Duration) {
        self.state = State::Sending;
        self.fence += 1;
        self.tries = self.tries.saturating_add(1);
        self.first_try.get_or_insert(now.wall);
        self.first_kept.get_or_insert(now.kept);
        self.first_opening.get_or_insert(now.opening);
        self.wait(now, time);
        self.may_have_taken_place = true;
    }

    /// Changes it. Its answer, which is stored apart, then has so many bytes.
    pub(super) fn update(&mut self, update: &Update, answer: Option<usize>, now: Now) {
        self.state = update.state;
        self.fence += 1;
        if update.restarts {
            (self.tries, self.first_try, self.first_kept, self.first_opening) = (0, None, None, None);
        } else if update.is_no_try {
            self.tries = self.tries.saturating_sub(1);
        }
        self.wait(now, update.wait);
        self.may_have_taken_place = update.may_have_taken_place.unwrap_or(self.may_have_taken_place);
        self.ended = (!is_open(update.state)).then_some(now.kept);
        self.reason = Some(update.reason.clone());
        self.answer = answer.or(self.answer);
    }

    fn wait(&mut self, now: Now, time: Duration) {
        (self.due, self.due_kept) = (later(now.wall, time), later(now.kept, time));
    }

    /// The entry, without its call and its answer.
    pub(super) fn entry(self, position: u64) -> Entry {
        Entry {
            position,
            stored: time(self.stored),
            state: self.state,
            destination: self.destination,
            call: None,
            tries: self.tries,
            first_try: self.first_try.map(time),
            due: time(self.due),
            may_have_taken_place: self.may_have_taken_place,
            reason: self.reason,
            answer: None,
            fence: self.fence,
        }
    }
}

fn later(now: u64, time: Duration) -> u64 {
    now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

#[cfg(test)]
mod tests;
