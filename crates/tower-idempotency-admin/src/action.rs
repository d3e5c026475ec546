//! The actions of operators: who may do them, and what they lead to, in words.

use std::str::FromStr;

use tower_idempotency::operations::{Applied, ChangeError, OperationRecord, OperationState};
use tower_idempotency::store::StoreError;

use crate::access::Permission;
use crate::problem::{Problem, with_causes};

/// An action without its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Answer,
    Release,
    Forget,
    Reconcile,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Answer, Self::Release, Self::Forget, Self::Reconcile];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Release => "release",
            Self::Forget => "forget",
            Self::Reconcile => "reconcile",
        }
    }

    pub(crate) const fn permission(self) -> Permission {
        match self {
            Self::Answer => Permission::Answer,
            Self::Release => Permission::Release,
            Self::Forget => Permission::Forget,
            Self::Reconcile => Permission::Reconcile,
        }
    }

    /// Returns whether the action is for such an operation.
    pub(crate) fn fits(self, operation: &OperationRecord) -> bool {
        match operation.state {
            OperationState::Interrupted { .. } => self != Self::Forget,
            OperationState::Completed { .. } | OperationState::Consumed { .. } => self == Self::Forget,
            // Without its fence, it can't be settled.
            OperationState::Damaged { .. } => matches!(self, Self::Answer | Self::Release) && operation.fence.0 > 0,
            _ => false,
        }
    }

    /// Returns the words on its button.
    pub(crate) const fn button(self) -> &'static str {
        match self {
            Self::Answer => "Give retries this answer",
            Self::Release => "Free the key",
            Self::Forget => "Delete the record",
            Self::Reconcile => "Ask the application",
        }
    }

    /// Returns what the action leads to.
    pub(crate) const fn consequence(self) -> &'static str {
        match self {
            Self::Answer => {
                "From now on, each retry with this key gets this answer and does not run again, for as long as the \
                 service keeps answers. Do this if you have seen what became of the request."
            }
            Self::Release => {
                "The key is free: the next retry runs the handler. If the request has taken effect, that is a second \
                 effect, such as a second charge. Do this only if you have seen that it has taken no effect, or if a \
                 second effect does no harm."
            }
            Self::Forget => {
                "The recorded answer is deleted, and the key is free. This request has taken effect: a retry runs the \
                 handler again, which is a second effect, such as a second charge."
            }
            Self::Reconcile => {
                "The application looks up what became of the request. If it finds the effect, retries get the answer that \
                 it gives. If it knows that there was none, the next retry runs the handler. If it does not know, nothing \
                 changes."
            }
        }
    }

    /// Returns what has come of the action.
    pub(crate) fn said(self, result: &Result<Applied, ChangeError>) -> String {
        match (self, result) {
            (Self::Answer, Ok(Applied::Done)) => "Done: retries get this answer.".to_owned(),
            (Self::Release | Self::Forget, Ok(Applied::Done)) => "Done: the key is free.".to_owned(),
            (Self::Reconcile, Ok(Applied::Done)) => {
                "Done: the application knew it, and retries get its answer.".to_owned()
            }
            (_, Ok(Applied::RunsAgain)) => "The application says that the next retry may run the handler.".to_owned(),
            (_, Ok(Applied::StillUnknown)) => "Nothing was changed: the application does not know either.".to_owned(),
            (_, Ok(Applied::Stale)) => {
                "Nothing was changed: it has changed since you looked, a request for it is just being answered, or this server still counts its run as under way. Look at it again."
                    .to_owned()
            }
            (_, Ok(_)) => "The result has no name in this version of the page.".to_owned(),
            (_, Err(ChangeError::Store(error @ StoreError::Uncertain { .. }))) => {
                format!("It is not known whether this was done; look at it again: {}.", with_causes(error))
            }
            (_, Err(error)) => format!("It failed: {}.", with_causes(error)),
        }
    }
}

impl FromStr for Kind {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let unknown = || Problem::wrong(format!("An action is one of {}.", Self::ALL.map(Self::name).join(", ")));
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(unknown)
    }
}
