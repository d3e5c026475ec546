//! The faults that can be seeded, to show that a promise is seen to fail.

/// A difference from the crate's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A released key leaves no tombstone: a claim that arrives late, after its own release, has a record and no run.
    ReleaseDeletes,
    /// A version is counted per row, so it repeats, and two writers draw the same version.
    VersionCountedPerRow,
    /// A row is deleted as soon as it expires, and its fence is forgotten.
    SweepWithoutGrace,
    /// A write that is sent again counts as done and is not written again.
    ResendWithoutWrite,
    /// A row that can be read counts as durable.
    ReplayWithoutBarrier,
    /// A takeover compares the fence of the row only, whatever became of the row since.
    TakeoverComparesFence,
    /// A question takes from the run the right to record how it ended.
    InquiryDisarms,
    /// An operator's outcome is recorded under the run's own fence.
    ResolutionKeepsFence,
    /// A process that shuts down ends its session, whatever still runs.
    DrainEndsLivingClaim,
    /// A dropped run becomes interrupted, though its outcome is recorded already.
    DropOverwritesCompletion,
    /// An outcome is refused because its claim was lost.
    CompletionOverAbsentRefused,
    /// An outcome is recorded over the claim of another run.
    CompletionOverwritesClaim,
    /// A takeover keeps the fence of the run before.
    ReclaimKeepsFence,
    /// A living run of another process is taken for dead.
    LivingTakenForDead,
    /// A slot takes the place of a claim, though another process has slots too.
    ClaimLeavesNoTrace,
    /// A run's outcome is refused because its run was thought dead.
    LateOutcomeRefused,
    /// A takeover does not declare the process dead, so the process may renew its session.
    TakeoverMarksNoSession,
    /// A claim without a waiter is kept.
    UnwantedClaimKept,
    /// A process ignores the fences that it has seen.
    FloorForgotten,
    /// The application looks before the downstream service refuses older fences.
    LooksBeforeItFences,
    /// The application takes an effect under the same key from before the operation began for this operation's effect.
    TakesAnEarlierEffect,
    /// A row is judged by the database's clock alone.
    JudgedByTheDatabase,
    /// A row is stamped by the database's clock alone.
    StampedByTheDatabase,
    /// The clock that a process keeps begins at the database's time.
    KeptAnchoredAtTheDatabase,
    /// A process replays an outcome from memory as long as the record is kept by the earliest of its clocks.
    CacheByTheEarliest,
    /// A row is deleted once it is past its grace by the database's clock alone.
    SweepByTheDatabase,
    /// A process under `Rerun` runs every interrupted operation again.
    ReclaimWhateverWasClaimed,
    /// The bound of a run is judged by the clocks of the observer, whatever the run's session states.
    BoundJudgedByTheObserver,
    /// A session states that bounds are over without regard to the runs of its process.
    SaysWithoutItsRuns,
    /// A dropped run is forgotten after its bound while its end is on its way.
    ForgetsWhatIsDropped,
    /// A write that arrives once more lowers the bound and the expiry of its row.
    CopyLowers,
    /// The tombstone of a record that was forgotten is kept as that of a run that was released.
    TombstoneKeptForItsGrace,
    /// A process that has a copy takes the tombstone of what was forgotten for that of another run.
    TombstoneTakenForARun,
    /// A process that has a copy takes the tombstone of a later run for that of what was forgotten.
    LaterTombstoneTaken,
    /// A process that has an operation forgotten keeps its own copy.
    ForgetKeepsTheCopy,
    /// A call shows a row before it is durable, and a replay has no barrier either.
    DirtyReads,
    /// A call shows a row before it is durable, once its process has a barrier since the start of the server.
    OneBarrierAStart,
}
