//! What failovers have taken of what was answered.

use std::fmt;

use testkit::rows::{claim, is_done};
use tower_idempotency::RecordId;
use tower_idempotency_redis::RedisBackend;
use tower_idempotency_shared::{Backend as _, Clocks, Write};

use crate::writers::Written;

/// The most rows of one call.
const AT_ONCE: usize = 64;

/// The numbers of failovers.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// The claims that were answered as done, and the outcomes.
    pub(crate) answered: usize,
    completed: usize,
    /// The answered claims of which there is no row, and the answered outcomes that are in no row.
    pub(crate) claims: usize,
    pub(crate) outcomes: usize,
    /// The ids with an answered claim that are granted to another process.
    pub(crate) twice: usize,
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, completed, claims, outcomes, twice } = self;
        write!(f, "{answered} | {completed} | {claims} | {outcomes} | {twice}")
    }
}

impl Losses {
    /// Compares what was answered with the rows of a backend, and claims each of them anew.
    pub(crate) async fn of(written: &[Written], backend: &RedisBackend) -> Self {
        let mut losses = Self::default();
        for written in written.chunks(AT_ONCE) {
            let ids: Vec<RecordId> = written.iter().map(|written| written.id).collect();
            let rows = backend.get(Clocks::default(), &ids).await.expect("the new primary answers").rows;
            for (written, row) in written.iter().zip(&rows) {
                let has = row.as_ref().map(|row| row.token);
                losses.answered += 1;
                losses.completed += usize::from(written.outcome.is_some());
                losses.claims += usize::from(row.is_none());
                losses.outcomes += usize::from(written.outcome.is_some() && has != written.outcome);
            }
            let again: Vec<Write> = ids.into_iter().map(claim).collect();
            let rows = backend.put(Clocks::default(), &again).await.expect("the new primary answers").rows;
            losses.twice += rows.iter().zip(&again).filter(|(row, claim)| is_done(row.as_ref(), claim)).count();
        }
        losses
    }

    pub(crate) fn add(&mut self, other: Self) {
        let Self { answered, completed, claims, outcomes, twice } = other;
        self.answered += answered;
        self.completed += completed;
        self.claims += claims;
        self.outcomes += outcomes;
        self.twice += twice;
    }
}
