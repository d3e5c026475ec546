//! An entry without its call and its answer: what relays look at.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::storage::{LONGEST_WAIT, SKEW, Update};
use crate::{Entry, State};

/// An entry, as it is stored. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) key: String,
    pub(super) partition_key: Option<String>,
    pub(super) state: State,
    pub(super) fence: u64,
    pub(super) tries: u32,
    pub(super) first_try: Option<u64>,
    pub(super) due: u64,
    pub(super) may_have_taken_place: bool,
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
    pub(super) fn new(key: &str, partition_key: Option<&str>, call: usize, now: u64) -> Self {
        Self {
            key: key.to_owned(),
            partition_key: partition_key.map(str::to_owned),
            state: State::Waiting,
            fence: 0,
            tries: 0,
            first_try: None,
            due: now,
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
            reason: Some(format!("it is no entry: {error}")),
            may_have_taken_place: true,
            ..Self::new("", None, 0, 0)
        })
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_else(|_| unreachable!("texts and numbers alone"))
    }

    /// Whether a relay may have it now.
    pub(super) fn is_due(&self, now: u64) -> bool {
        let longest = 2 * LONGEST_WAIT.as_millis() as u64;
        matches!(self.state, State::Waiting | State::Sending) && (self.due <= now || self.due > now + longest)
    }

    /// How long ago its first try began.
    pub(super) fn tried_for(&self, now: u64) -> Duration {
        let Some(first) = self.first_try else { return Duration::ZERO };
        match now.checked_sub(first) {
            Some(time) => Duration::from_millis(time),
            None if u128::from(first - now) <= SKEW.as_millis() => Duration::ZERO,
            None => Duration::MAX,
        }
    }

    /// Gives a relay a lease.
    pub(super) fn lease(&mut self, now: u64, time: Duration) {
        self.state = State::Sending;
        self.fence += 1;
        self.tries = self.tries.saturating_add(1);
        self.first_try.get_or_insert(now);
        self.due = later(now, time);
        self.may_have_taken_place = true;
    }

    /// Changes it. Its answer, which is stored apart, then has so many bytes.
    pub(super) fn update(&mut self, update: &Update, answer: Option<usize>, now: u64) {
        self.state = update.state;
        self.fence += 1;
        if update.restarts {
            (self.tries, self.first_try) = (0, None);
        }
        self.due = later(now, update.wait);
        self.may_have_taken_place = update.may_have_taken_place.unwrap_or(self.may_have_taken_place);
        self.ended = (!is_open(update.state)).then_some(now);
        self.reason = Some(update.reason.clone());
        self.answer = answer.or(self.answer);
    }

    /// The entry, without its call and its answer.
    pub(super) fn entry(self, position: u64) -> Entry {
        Entry {
            position,
            state: self.state,
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
