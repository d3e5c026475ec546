//! What can be broken, to show that a promise is seen to fail.

/// A protocol that is not quite ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A released key leaves no trace: a claim that arrives late, after its own release, has a record and no run.
    ReleaseDeletes,
    /// A question takes the run's right to say how it ended.
    InquiryDisarms,
    /// What an operator settles stands under the run's own fence.
    ResolutionKeepsFence,
    /// Who takes a run over has the fence of the one before.
    ReclaimKeepsFence,
    /// A run elsewhere that is alive is taken for dead.
    LivingTakenForDead,
    /// A write matches the row whose fence it expects, whatever became of it since.
    FenceIsTheVersion,
    /// A slot stands for a claim, though another process has slots too.
    ClaimLeavesNoTrace,
    /// A run's outcome is refused because its run was thought dead.
    LateOutcomeRefused,
}
