//! The events that may happen.

use crate::rows::Run;

/// The next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A request comes to a process.
    Request(usize, u8),
    /// A write arrives, by its sender and its number. `again`: it will arrive once more; `lost`: its answer is lost.
    Arrive { by: u8, number: u8, again: bool, lost: bool },
    /// A process that was not answered sends its write again.
    Resend { by: u8, number: u8 },
    /// The standby gets the next entry of those that were written.
    Replicate,
    /// The database is started again.
    Restart,
    /// The standby takes over.
    FailOver,
    /// A handler asks for its effect. `slow`: it takes place later.
    Act { process: usize, key: u8, slow: bool },
    /// An effect takes place.
    Land(Run),
    /// A handler ends.
    Finish(usize, u8, Ending),
    /// The application looks up the result of the operation.
    Look(usize, u8),
    /// The application answers.
    Answer(usize, u8),
    /// The requester goes away while its claim or question is on its way.
    Abandon(usize, u8),
    /// A run is dropped.
    Drop(usize, u8),
    /// A process begins to shut down.
    Close(usize),
    /// A process dies.
    Crash(usize),
    /// The lease of a process that lives is over.
    Lapse(usize),
    /// A process makes a renewal of its session, which is on its way.
    Say(usize),
    /// The renewal arrives. If the lease was over, the process renews its session after all.
    Renew(usize),
    /// A process learns that it was marked dead, and has another session.
    Learn(usize),
    /// An operator states that an interrupted operation took place, or that it may run again.
    ByHand { key: u8, release: bool },
    /// An operator deletes the record of a done operation, at this process. The last process has no copies.
    Forget(usize, u8),
    /// An operator asks this process about an operation that was forgotten, and of which it has a copy.
    Inspect(usize, u8),
    /// A process compares its copy of a record with the row, because another server answers.
    Restore(usize, u8),
    /// Five minutes pass.
    Tick,
    /// A clock is set by this number of units of five minutes.
    SetClock(Clock, i8),
    /// A process that has done nothing before opens the store.
    Open(usize),
    /// A process deletes a row.
    Sweep(usize, u8),
}

/// A clock that may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The database's.
    Database,
    /// The wall clock of a process.
    Wall(usize),
}

/// The ending of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an outcome.
    Outcome,
    /// Without an effect.
    NotStarted,
    /// With an unknown end.
    Unknown,
}

impl Event {
    /// Returns whether the event happens by itself, sooner or later. Other events are faults, or requests.
    pub(crate) fn is_due(self) -> bool {
        match self {
            Self::Arrive { again, lost, .. } => !again && !lost,
            Self::Act { slow, .. } => !slow,
            Self::Resend { .. }
            | Self::Replicate
            | Self::Land(_)
            | Self::Finish(..)
            | Self::Look(..)
            | Self::Answer(..)
            | Self::Renew(_)
            | Self::Restore(..)
            | Self::Learn(_) => true,
            _ => false,
        }
    }
}
