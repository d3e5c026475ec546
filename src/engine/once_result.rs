//! What comes of a message: an outcome, or why it has none, and what to do with it.

use super::verdict::Unanswered;
use crate::fingerprint::Match;
use crate::slots::Refusal;

/// The result of an effect, from this run or an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome<T> {
    /// What the effect produced.
    pub value: T,
    /// `true` if an earlier run produced it.
    pub replayed: bool,
}

/// The failure of an effect.
#[derive(Debug, thiserror::Error)]
pub enum EffectError<E> {
    /// The effect did not take place; it may be tried again under the same id.
    #[error("the effect did not take place")]
    NotStarted(#[source] E),
    /// It is unknown whether the effect took place. `?` converts an error into this.
    #[error("it is not known whether the effect took place")]
    MaybeStarted(#[source] E),
}

impl<E> From<E> for EffectError<E> {
    fn from(error: E) -> Self {
        Self::MaybeStarted(error)
    }
}

/// The reason why a message has no outcome. [`advice`](Self::advice) says what to do with the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnceError<E> {
    /// The effect itself failed, as it says.
    #[error(transparent)]
    Effect(EffectError<E>),
    /// The effect panicked or exceeded `max_run`, or its transaction may or may not be durable: it is unknown whether
    /// it took place.
    #[error("the effect was interrupted; it is not known whether it took place")]
    Interrupted,
    /// An earlier run was interrupted, and neither the policy nor the reconciler lets it run again.
    #[error("an earlier run was interrupted; it is not known whether it took place")]
    OutcomeUnknown,
    /// The effect is running now; come again later.
    #[error("the effect is running; try again later")]
    InFlight,
    /// The effect took place, but its outcome could not be stored, or is not kept any longer.
    #[error("the effect took place, but its outcome is not stored")]
    NotReplayable,
    /// There is an outcome, and it is of another type. An earlier version of the program or an operator has written it,
    /// or another consumer of the message, if neither has a [`Scope`](crate::Scope) of its own: then the effect has
    /// **not** taken place. Or JSON does not give the value back as it was. It is logged at ERROR, without the text of
    /// this error, which may quote the outcome.
    #[error("the recorded outcome is of another type: {0}")]
    WrongType(serde_json::Error),
    /// The id belongs to another message.
    #[error("the id was used with another fingerprint")]
    Mismatch(Match),
    /// The store can't be reached, is poisoned or takes too long; nothing ran. Or the effect's transaction was not
    /// committed under [`Rerun`](crate::OnInterrupted::Rerun), and the id is free.
    #[error("the store is not available")]
    Unavailable,
    /// There is a record, but its bytes are damaged. Nothing ran.
    #[error("what is stored for this id can't be read")]
    Corrupt,
    /// The store's limits are reached. Nothing ran.
    #[error("the store is full")]
    Full,
    /// Too much is under way: runs, outcomes that could not be recorded, or the store's work. Nothing ran.
    #[error("too much is under way")]
    Overloaded,
    /// The process is shutting down. Nothing ran.
    #[error("the process is shutting down")]
    ShuttingDown,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Acknowledge it: the effect took place, and its outcome is recorded.
    Acknowledge,
    /// Let the queue deliver it again, after a pause.
    Redeliver,
    /// Set it aside for an operator, for example in a dead-letter queue, and acknowledge it: as a rule, another
    /// delivery ends in the same way.
    HandOver,
}

impl Advice {
    /// Returns what to do with the message that has had this result: [`Acknowledge`](Self::Acknowledge) after an
    /// outcome, and [`OnceError::advice`] otherwise.
    #[must_use]
    pub fn of<T, E>(result: &Result<Outcome<T>, OnceError<E>>) -> Self {
        result.as_ref().map_or_else(OnceError::advice, |_| Self::Acknowledge)
    }
}

impl<E> OnceError<E> {
    /// Returns what to do with the message that has no outcome.
    ///
    /// | advice | errors |
    /// |---|---|
    /// | [`Acknowledge`](Advice::Acknowledge) | [`NotReplayable`](Self::NotReplayable) |
    /// | [`Redeliver`](Advice::Redeliver) | [`Effect`](Self::Effect), [`Interrupted`](Self::Interrupted), [`InFlight`](Self::InFlight), [`Unavailable`](Self::Unavailable), [`Full`](Self::Full), [`Overloaded`](Self::Overloaded), [`ShuttingDown`](Self::ShuttingDown) |
    /// | [`HandOver`](Advice::HandOver) | [`OutcomeUnknown`](Self::OutcomeUnknown), [`Mismatch`](Self::Mismatch), [`WrongType`](Self::WrongType), [`Corrupt`](Self::Corrupt) |
    ///
    /// After [`Effect(MaybeStarted)`](EffectError::MaybeStarted) and [`Interrupted`](Self::Interrupted), another
    /// delivery gets what [`on_interrupted`](crate::Once::on_interrupted) and
    /// [`reconcile_with`](crate::Once::reconcile_with) say.
    /// If the policy is to refuse, that is [`OutcomeUnknown`](Self::OutcomeUnknown), and nothing runs. After a
    /// transaction whose commit is in doubt, it gets `Interrupted` again, until the retention is over or the process is
    /// restarted. With a reconciler that may know more later, you can let `OutcomeUnknown` be redelivered, too.
    ///
    /// Bound the number of deliveries, as most queues can: an effect that fails each time, or a store that stays
    /// unavailable, would let a message be delivered without end.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::NotReplayable => Advice::Acknowledge,
            Self::Effect(_) | Self::Interrupted | Self::InFlight => Advice::Redeliver,
            Self::Unavailable | Self::Full | Self::Overloaded | Self::ShuttingDown => Advice::Redeliver,
            Self::OutcomeUnknown | Self::Mismatch(_) | Self::WrongType(_) | Self::Corrupt => Advice::HandOver,
        }
    }

    /// Returns the error of a message that has no outcome for this reason.
    pub(super) fn of(why: Unanswered) -> Self {
        match why {
            Unanswered::Mismatch(found) => Self::Mismatch(found),
            Unanswered::NotReplayable(_) => Self::NotReplayable,
            // After a run without an effect, the next delivery of the message may run.
            Unanswered::InFlight | Unanswered::Freed => Self::InFlight,
            Unanswered::Unknown => Self::OutcomeUnknown,
            Unanswered::Interrupted | Unanswered::InDoubt => Self::Interrupted,
            // The effect and its record were undone, and the id is free.
            Unanswered::NotCommitted | Unanswered::Refused(Refusal::Unavailable) => Self::Unavailable,
            Unanswered::Refused(Refusal::Corrupt) => Self::Corrupt,
            Unanswered::Refused(Refusal::Full) => Self::Full,
            Unanswered::Refused(Refusal::Overloaded) => Self::Overloaded,
            Unanswered::Refused(Refusal::ShuttingDown) => Self::ShuttingDown,
        }
    }
}
