//! The database: one row, compared and set.

use tower_idempotency::clock::Timestamp;
use tower_idempotency::internals::{Change, Current, Draft, Fence, Owner, Record, Reply, Transition, next};

use crate::fault::Fault;

/// A run's number stands for its outcome.
pub(crate) type Run = u8;
/// What an operator says it came to.
pub(crate) const TOLD_BY_HAND: Run = 99;

/// Drawn for each write, and never again.
pub(crate) type Token = u8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) version: Token,
    /// `None`: it was released.
    pub(crate) record: Option<Record<Run>>,
    /// Who wrote it, if it is his.
    pub(crate) owner: Option<usize>,
    /// Whether its time is over: it is absent then, for whatever is expected, and its fence is not forgotten.
    pub(crate) is_expired: bool,
}

/// A write on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Put {
    pub(crate) token: Token,
    /// The version that it replaces; `None`: nothing.
    pub(crate) expects: Option<Token>,
    /// For the fault alone: the fence of that version.
    pub(crate) expected_fence: Option<u64>,
    pub(crate) by: usize,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant, reason = "there are few at a time")]
pub(crate) enum Content {
    /// Of the record that was read.
    Record(Draft<Run>, Option<Record<Run>>),
    Released,
}

/// The row, and the fences that it gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Database {
    pub(crate) row: Option<Row>,
    pub(crate) last_fence: u64,
}

/// The model knows no time: an outcome expires by an event of its own.
const NOW: Timestamp = Timestamp::from_millis(0);

impl Database {
    /// What `process` reads. `is_gone`: whether a process is dead, as far as the database knows.
    pub(crate) fn read(&self, process: usize, is_gone: impl Fn(usize) -> bool) -> Option<Record<Run>> {
        let row = self.row.as_ref().filter(|row| !row.is_expired)?;
        let record = row.record.clone()?;
        Some(match row.owner {
            None => Record { owner: Owner::Nobody, ..record },
            Some(owner) if owner == process => Record { owner: Owner::Here, ..record },
            Some(owner) if is_gone(owner) => Record { owner: Owner::Nobody, ..record }.lapse(NOW),
            Some(_) => Record { owner: Owner::Elsewhere, ..record },
        })
    }

    /// What `next` makes of what was read.
    pub(crate) fn decide(
        &self,
        record: Option<&Record<Run>>,
        transition: Transition<Run>,
        fault: Option<Fault>,
    ) -> (Change<Run>, Reply) {
        let current = match (record, &self.row) {
            (Some(record), _) => Current::Held(record),
            // No failover loses a claim here, so no trace is older than a run.
            (None, Some(Row { is_expired: false, .. })) => Current::Released(Fence(u64::MAX)),
            (None, _) => Current::Absent,
        };
        let (of, is_resolution) = match &transition {
            Transition::Reclaim(_, fence) => (Some(*fence), false),
            Transition::Resolve(fence, ..) => (Some(*fence), true),
            _ => (None, false),
        };
        let is_late = matches!(transition, Transition::Complete(_)) && record.is_some_and(Record::is_interrupted);
        let is_question = matches!(transition, Transition::Inquire { .. });
        let (mut change, reply) = next(current, transition);
        if let (Some(fault), Change::Put(draft)) = (fault, &mut change) {
            match fault {
                Fault::ReclaimKeepsFence if !is_resolution && of.is_some() => draft.fence = of,
                Fault::ResolutionKeepsFence if is_resolution => draft.fence = of,
                Fault::InquiryDisarms if is_question => {
                    if let tower_idempotency::internals::State::Interrupted { run, .. } = &mut draft.state {
                        *run = Fence(0);
                    }
                }
                Fault::LateOutcomeRefused if is_late => return (Change::Nothing, Reply::Refused),
                _ => {}
            }
        }
        (change, reply)
    }

    /// The version of what is there.
    pub(crate) fn version(&self) -> Option<Token> {
        self.row.as_ref().filter(|row| !row.is_expired).map(|row| row.version)
    }

    /// Does a write, if the row is as it expects, or is its own already.
    pub(crate) fn put(&mut self, put: &Put, content: &Content, fault: Option<Fault>) {
        let version = self.version();
        let fence = |row: &Row| row.record.as_ref().map(|record| record.fence.0);
        let is_ours = version == Some(put.token);
        let matches = match fault {
            Some(Fault::FenceIsTheVersion) if put.expects.is_some() => {
                self.row.as_ref().and_then(fence) == put.expected_fence
            }
            _ => version == put.expects,
        };
        if !is_ours && !matches {
            return;
        }
        let before = self.row.as_ref().and_then(|row| row.record.clone());
        self.row = match content {
            Content::Released if fault == Some(Fault::ReleaseDeletes) => None,
            Content::Released => Some(Row { version: put.token, record: None, owner: None, is_expired: false }),
            Content::Record(draft, read) => {
                // A fence over what has expired is a new one, whatever was asked for: none ever shrinks.
                let is_over_expired = self.row.as_ref().is_some_and(|row| row.is_expired);
                let is_new = !is_ours && (draft.fence.is_none() || is_over_expired);
                self.last_fence += u64::from(is_new);
                let mut record = draft.clone().stamp(read.as_ref(), Fence(self.last_fence), NOW);
                if is_new {
                    record.fence = Fence(self.last_fence);
                } else if let (true, Some(before)) = (is_ours, &before) {
                    record.fence = before.fence;
                }
                let owner = draft.owned.map(|_| put.by);
                Some(Row { version: put.token, record: Some(record), owner, is_expired: false })
            }
        };
    }
}
