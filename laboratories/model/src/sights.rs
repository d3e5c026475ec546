//! The sights of one step: those that are never seen, and those that must be seen in some state.

/// A sight. It is forgotten with the next step, so that it makes few states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sight {
    // Never.
    Contradiction,
    SaidBeforeDurable,
    FenceShrank,
    ThrownAway,
    CompletedChanged,
    EndedAnothers,
    TakenAlive,
    EarlierAnswer,
    ForgottenRestored,
    ForgottenDisputed,
    ForgottenTold,
    // Now and then.
    Told,
    Replayed,
    ToldFromMemory,
    LateCompletion,
    Dispute,
    Busy,
    BarrierNeeded,
    Takeover,
    LostClaim,
    LostAnswer,
    ResendRecognised,
    LateClaimRefused,
    ClaimTakenBack,
    Reconciled,
    RunAgain,
    SettledByHand,
    CompletedOverAbsent,
    RefusedDownstream,
    ClaimedOverExpired,
    FenceAboveClock,
    RenewedLate,
    HandlerDropped,
    Swept,
    ShownByRestart,
    OutlastsAWrongClock,
    NotTold,
    WrongTogether,
    NotRunAgain,
    ClaimEndedByItsSession,
    OutlastsItsBound,
    Restored,
    Forgotten,
    RunsAgain,
    RunsOnAnotherServer,
    CopyTold,
    CopyDropped,
    WaitsUntilDurable,
    LostBeforeShown,
    // Now and then, and better never.
    RestoredAfterALaterRun,
    DisputedByALaterRun,
    DisputedByARace,
    AskedInVain,
    LossUnseen,
}

/// A set of sights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sights(u64);

impl Sights {
    pub(crate) fn add(&mut self, sight: Sight) {
        self.0 |= 1 << sight as u64;
    }

    pub(crate) fn has(self, sight: Sight) -> bool {
        self.0 & (1 << sight as u64) != 0
    }
}
