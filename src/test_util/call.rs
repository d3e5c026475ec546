//! The kinds of calls that a test names.

use crate::record::Transition;

/// A kind of call to a store, to say which call shall fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreCall {
    /// Looking a record up.
    Load,
    /// Claiming a new operation.
    Claim,
    /// Taking over an interrupted operation.
    Reclaim,
    /// Taking a new fence for an interrupted operation.
    Inquire,
    /// Recording an outcome.
    Complete,
    /// Freeing a key.
    Release,
    /// Recording that a run was interrupted.
    Interrupt,
    /// Settling an interrupted operation.
    Resolve,
    /// Listing operations, and disputed outcomes.
    List,
    /// Sweeping.
    Sweep,
}

impl StoreCall {
    pub(super) fn of(transition: &Transition) -> Self {
        match transition {
            Transition::Claim(_) => Self::Claim,
            Transition::Reclaim(..) => Self::Reclaim,
            Transition::Inquire { .. } => Self::Inquire,
            Transition::Complete(_) => Self::Complete,
            Transition::Release(_) => Self::Release,
            Transition::Interrupt { .. } => Self::Interrupt,
            Transition::Resolve(..) => Self::Resolve,
            // It records what another store has.
            Transition::Adopt(_) => Self::Complete,
        }
    }
}
