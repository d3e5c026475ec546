//! What can be broken, to show that a promise is seen to fail.

/// A protocol that is not quite ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A released key leaves no trace: a claim that arrives late, after its own release, has a record and no run.
    ReleaseDeletes,
    /// A version is counted per row, so it repeats, and two writers draw the same.
    VersionCountedPerRow,
    /// A row is deleted as soon as it expires, and its fence is forgotten.
    SweepWithoutGrace,
    /// A write that is sent again is known for done without being written again.
    ResendWithoutWrite,
    /// A row that can be read counts as durable.
    ReplayWithoutBarrier,
    /// Who takes over compares the fence of the row, whatever became of it since.
    TakeoverComparesFence,
    /// A question takes the run's right to say how it ended.
    InquiryDisarms,
    /// An operator's outcome is recorded under the run's own fence.
    ResolutionKeepsFence,
    /// A process that shuts down ends its session, whatever still runs.
    DrainEndsLivingClaim,
    /// What is dropped is interrupted, though it is recorded already.
    DropOverwritesCompletion,
    /// An outcome is refused because its claim was lost.
    CompletionOverAbsentRefused,
    /// An outcome is recorded over the claim of another run.
    CompletionOverwritesClaim,
    /// Who takes a run over has the fence of the one before.
    ReclaimKeepsFence,
    /// A run elsewhere that is alive is taken for dead.
    LivingTakenForDead,
    /// A slot stands for a claim, though another process has slots too.
    ClaimLeavesNoTrace,
    /// A run's outcome is refused because its run was thought dead.
    LateOutcomeRefused,
    /// A takeover does not declare the process dead, so the process may renew its session.
    TakeoverMarksNoSession,
    /// A claim without a waiter is kept.
    UnwantedClaimKept,
    /// A process does not mind the fences that it has seen.
    FloorForgotten,
    /// The application looks before the service that it looks at refuses older fences.
    LooksBeforeItFences,
    /// The application takes for this operation's what took place before it began, under the same key.
    TakesAnEarlierEffect,
    /// A row is judged by the database's clock alone.
    JudgedByTheDatabase,
    /// A row is stamped by the database's clock alone.
    StampedByTheDatabase,
    /// The clock that a process keeps begins at the database's time.
    KeptAnchoredAtTheDatabase,
    /// A process replays an outcome from memory as long as the earliest of its clocks says that the record is kept.
    CacheByTheEarliest,
    /// A row is deleted once it is past its grace by the database's clock alone.
    SweepByTheDatabase,
    /// A process under `Rerun` runs every interrupted operation again.
    ReclaimWhateverWasClaimed,
    /// The bound of a run is judged by the clocks of the observer, whatever the run's session says.
    BoundJudgedByTheObserver,
    /// What a session says of bounds forgets the runs of its process.
    SaysWithoutItsRuns,
    /// A run that was dropped is forgotten after its bound while its end is on its way.
    ForgetsWhatIsDropped,
    /// A write that arrives once more lowers the bound and the expiry of its row.
    CopyLowers,
}
