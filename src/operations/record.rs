//! What is known of one operation.

use std::fmt;
use std::str::FromStr;

use super::encoding::Encoding;
use crate::clock::Timestamp;
use crate::fingerprint::OperationDigest;
use crate::key::RecordId;
use crate::record::{Cause, ClaimPolicy, Fence, Origin, Owner, State};
use crate::store::listed::{Damage, ListedRecord, OutcomeStart};

/// What a store knows of one operation. It has no key, no scope and no body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationRecord {
    /// The id of the operation.
    pub id: RecordId,
    /// The fence of the record, which every [`Change`](super::Change) names; 0 if it is not known.
    pub fence: Fence,
    /// The number of the latest attempt, counted from 1; 0 if the record is damaged.
    pub attempt: u32,
    /// The time at which the first attempt began; 0 if it is not known, as of a disputed outcome.
    pub began: Timestamp,
    /// The time at which the operation came to its state; 0 if it is not known. Over a shared store, a run whose
    /// process died has the time of its claim.
    pub since: Timestamp,
    /// The time at which the record expires; `None` while the operation is running, or if it is not known.
    pub expires: Option<Timestamp>,
    /// The state of the operation.
    pub state: OperationState,
    /// The process that sees to the operation.
    pub server: Server,
    /// Over a shared store, the session of the process that sees to the operation, or that has left it. The log of that
    /// process has its first eight digits.
    pub session: Option<RecordId>,
    origin: Origin,
    operation: Option<OperationDigest>,
}

/// The state of an operation, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperationState {
    /// Its handler is running.
    Running,
    /// It is unknown whether it took effect.
    Interrupted {
        /// The reason why it is unknown.
        cause: Cause,
        /// The policy under which the run was claimed.
        policy: ClaimPolicy,
    },
    /// It is done, and its outcome is recorded.
    Completed {
        /// The outcome's HTTP status; `None` for the outcome of a consumer.
        status: Option<u16>,
        /// The length of the recorded outcome, in bytes.
        bytes: u64,
    },
    /// It is done, and its outcome could not be stored, or is not kept any longer.
    Consumed {
        /// The outcome's HTTP status; 0 if it is not known.
        status: u16,
    },
    /// Its record cannot be read. Its key is refused. Over a shared store the fence is known, and an operator settles
    /// it with [`Answer`](super::Action::Answer) or [`Release`](super::Action::Release).
    Damaged {
        /// What is wrong with the record.
        reason: String,
    },
}

/// A state without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StateKind {
    /// See [`OperationState::Running`].
    Running,
    /// See [`OperationState::Interrupted`].
    Interrupted,
    /// See [`OperationState::Completed`].
    Completed,
    /// See [`OperationState::Consumed`].
    Consumed,
    /// See [`OperationState::Damaged`].
    Damaged,
}

/// The process that sees to an operation: it runs it; or it is another one, and asks the application about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Server {
    /// No process.
    None,
    /// This process.
    Here,
    /// Another process, which is alive as far as the store can see.
    Elsewhere,
}

impl OperationRecord {
    /// Returns what `listed` says.
    pub(super) fn of(listed: ListedRecord, encoding: &Encoding) -> Self {
        let ListedRecord { id, record, session } = listed;
        match record {
            Ok(record) => Self {
                id,
                fence: record.fence,
                attempt: record.attempt,
                began: record.began,
                since: record.since,
                expires: record.expires,
                state: OperationState::of(&record.state, encoding),
                // A question of this process is no reason to leave the operation alone, and may be over.
                server: match record.owner {
                    Owner::Here if matches!(record.state, State::Interrupted { .. }) => Server::None,
                    owner => owner.into(),
                },
                session,
                operation: record.fingerprint.readable_operation(),
                origin: record.origin,
            },
            Err(Damage { reason, known }) => Self {
                id,
                fence: known.map_or(Fence(0), |known| known.fence),
                attempt: 0,
                began: known.map_or(Timestamp::from_millis(0), |known| known.began),
                since: known.map_or(Timestamp::from_millis(0), |known| known.since),
                expires: known.and_then(|known| known.expires),
                state: OperationState::Damaged { reason },
                server: Server::None,
                session,
                origin: Origin::default(),
                operation: None,
            },
        }
    }

    /// Returns the application's name for the operation (option `label`); `None` if it gave none.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.origin.label()
    }

    /// Returns the [digest of the scope](crate::Scope::digest) that the operation's key belongs to; `None` if it
    /// belongs to none.
    #[must_use]
    pub fn scope(&self) -> Option<[u8; 32]> {
        self.origin.0.as_ref()?.scope
    }

    /// Returns the trace id of the request that ran first (W3C Trace Context, section 3.2); `None` if it had none.
    #[must_use]
    pub fn trace_id(&self) -> Option<[u8; 16]> {
        self.origin.0.as_ref()?.trace
    }

    /// Returns the key that the handler's run gets for `step`, by which the services that it calls know the operation;
    /// `None` if the record is damaged.
    #[must_use]
    pub fn derived_key(&self, step: &str) -> Option<String> {
        self.operation.map(|operation| operation.derived_key(&self.id, step))
    }
}

impl OperationState {
    fn of(state: &State<OutcomeStart>, encoding: &Encoding) -> Self {
        match state {
            State::Running { .. } => Self::Running,
            &State::Interrupted { policy, cause, .. } => Self::Interrupted { cause, policy },
            State::Completed { outcome } => {
                Self::Completed { status: encoding.status(&outcome.start), bytes: outcome.length }
            }
            &State::Consumed { status } => Self::Consumed { status },
        }
    }

    /// Returns the state without its details.
    #[must_use]
    pub fn kind(&self) -> StateKind {
        match self {
            Self::Running => StateKind::Running,
            Self::Interrupted { .. } => StateKind::Interrupted,
            Self::Completed { .. } => StateKind::Completed,
            Self::Consumed { .. } => StateKind::Consumed,
            Self::Damaged { .. } => StateKind::Damaged,
        }
    }

    /// Returns the reason why it is unknown whether the operation took effect; `None` in another state.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        if let Self::Interrupted { cause, .. } = self { Some(*cause) } else { None }
    }

    /// Returns the HTTP status that the client got, if it got one that is known.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match *self {
            Self::Running | Self::Damaged { .. } => None,
            Self::Interrupted { cause, .. } => cause.status(),
            Self::Completed { status, .. } => status,
            Self::Consumed { status } => Some(status).filter(|status| *status > 0),
        }
    }
}

impl StateKind {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Running, Self::Interrupted, Self::Completed, Self::Consumed, Self::Damaged];

    /// Returns the state's name: `running`, `interrupted`, `completed`, `consumed` or `damaged`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Completed => "completed",
            Self::Consumed => "consumed",
            Self::Damaged => "damaged",
        }
    }
}

/// Writes the name.
impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text is not the name of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a state is running, interrupted, completed, consumed or damaged")]
#[non_exhaustive]
pub struct StateKindError;

impl FromStr for StateKind {
    type Err = StateKindError;

    fn from_str(text: &str) -> Result<Self, StateKindError> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or(StateKindError)
    }
}

impl From<Owner> for Server {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::None => Self::None,
            Owner::Here => Self::Here,
            Owner::Elsewhere => Self::Elsewhere,
        }
    }
}
