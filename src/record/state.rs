//! What is known of an operation.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::fingerprint::Fingerprint;

/// A number that grows with each claim of one record id and never repeats, whatever was released, swept or expired.
/// It fits a signed 64-bit column, so that a database downstream can refuse a writer with an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence(pub u64);

/// Writes the number.
impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a store holds of one operation. `O` is how it holds an outcome.
///
/// The first four fields are columns of their own in a store that several processes share; the others are its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record<O = Bytes> {
    /// The latest fence that was given for it.
    pub fence: Fence,
    /// When the operation began: its first attempt.
    pub began: Timestamp,
    /// When it came to its state.
    pub since: Timestamp,
    /// When the record is forgotten; never, while it is running.
    pub expires: Option<Timestamp>,
    /// What the request was.
    pub fingerprint: Fingerprint,
    /// How often it was claimed and not released, from 1.
    pub attempt: u32,
    /// Where it came from, as far as that is recorded.
    pub origin: Option<Box<Origin>>,
    /// Where it stands.
    pub state: State<O>,
    /// Who sees to it, as the store judges it when it reads.
    #[serde(skip)]
    pub owner: Owner,
}

/// Where an operation came from: for operators who have to find out what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Origin {
    /// The digest of the scope its key belongs to.
    pub scope: Option<[u8; 32]>,
    /// What the request was, in words.
    pub request: Option<String>,
    /// The trace of its first run.
    pub trace: Option<[u8; 16]>,
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State<O = Bytes> {
    /// Claimed; its handler may be running.
    Running {
        /// How long the record is kept if the run is interrupted.
        interrupted_retention: Duration,
    },
    /// Nobody knows whether the effect took place: the run ended without saying how, or its handler's answer says so.
    Interrupted {
        /// The fence of the run, by which it may still say how it ended.
        run: Fence,
        /// The status that its client was answered, where the handler's answer was that nobody knows.
        status: Option<u16>,
    },
    /// Done, and its outcome recorded.
    Completed {
        /// What the run produced.
        outcome: O,
    },
    /// Done, but its outcome could not be stored: it neither runs again nor is it replayed.
    Consumed {
        /// What remains of the outcome: the status.
        status: u16,
    },
}

/// Who sees to an operation: runs it, or has been asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Owner {
    /// Nobody who is alive.
    #[default]
    Nobody,
    /// This process.
    Here,
    /// Another process, which is alive as far as the store knows.
    Elsewhere,
}

impl<O> Record<O> {
    /// The record, unless it is past its expiry.
    #[must_use]
    pub fn live(self, now: Timestamp) -> Option<Self> {
        if self.expires.is_some_and(|expires| expires <= now) { None } else { Some(self) }
    }

    /// This record of a run that ended without a word at `since`.
    #[must_use]
    pub fn lapse(self, since: Timestamp) -> Self {
        let State::Running { interrupted_retention } = self.state else { return self };
        let state = State::Interrupted { run: self.fence, status: None };
        let expires = Some(since.plus(interrupted_retention));
        Self { state, since, expires, owner: Owner::Nobody, ..self }
    }

    /// Whether it is interrupted, under this fence, and nobody elsewhere sees to it.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(self.state, State::Interrupted { .. }) && self.owner != Owner::Elsewhere
    }

    /// The same record, with its outcome in the form that `outcome` gives it.
    pub(crate) fn form<P, E>(&self, outcome: impl FnOnce(&O) -> Result<P, E>) -> Result<Record<P>, E> {
        let state = match &self.state {
            State::Running { interrupted_retention } => {
                State::Running { interrupted_retention: *interrupted_retention }
            }
            State::Interrupted { run, status } => State::Interrupted { run: *run, status: *status },
            State::Completed { outcome: old } => State::Completed { outcome: outcome(old)? },
            State::Consumed { status } => State::Consumed { status: *status },
        };
        let Self { fence, began, since, expires, fingerprint, attempt, owner, .. } = *self;
        Ok(Record { fence, began, since, expires, fingerprint, attempt, origin: self.origin.clone(), state, owner })
    }

    /// The fence of the run that may say how it ended.
    pub(super) fn run(&self) -> Option<Fence> {
        match self.state {
            State::Running { .. } => Some(self.fence),
            State::Interrupted { run, .. } => Some(run),
            State::Completed { .. } | State::Consumed { .. } => None,
        }
    }
}
