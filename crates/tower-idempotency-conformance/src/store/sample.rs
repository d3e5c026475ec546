//! Transitions to try.

use std::time::Duration;

use bytes::Bytes;
use tower_idempotency::internals::{
    self, Cause, Claim, ClaimPolicy, Completion, Described, Fence, Operation, Origin, ReclaimReason, Record,
    Resolution, RunResult, Transition,
};
use tower_idempotency::{Fingerprint, RecordId};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);
/// The shortest time for which every store keeps a record.
pub(super) const SHORT: Duration = Duration::from_secs(1);

/// The origin of the operations. Lists show it, and filters look at it.
fn origin() -> Origin {
    Origin::of(Described { scope: Some([7; 32]), label: Some("a sample".to_owned()), trace: Some([9; 16]) })
}

/// The operation that is tried.
fn operation(id: RecordId) -> Operation {
    Operation { id, fingerprint: Fingerprint::of(b"a request"), origin: origin() }
}

/// The wish to run an operation, with time for everything. Stores take the id that the transition is applied to.
pub(super) fn wish() -> Claim {
    Claim {
        operation: operation(RecordId::from_bytes([0; 32])),
        policy: ClaimPolicy::Refuse,
        may_repeat: false,
        bound: HOUR,
        interrupted_retention: HOUR,
        timeout: HOUR,
    }
}

/// The wish to run an operation that may be repeated.
pub(crate) fn repeatable() -> Claim {
    Claim { policy: ClaimPolicy::Rerun, ..wish() }
}

pub(super) fn claim() -> Transition {
    Transition::Claim(wish())
}

/// Takes an interrupted operation over because the application said that it may run again.
pub(super) fn reclaim(fence: Fence) -> Transition {
    Transition::Reclaim(wish(), fence, ReclaimReason::Verdict)
}

/// Takes an interrupted operation over because the process's policy is to run it again.
pub(super) fn rerun(fence: Fence) -> Transition {
    Transition::Reclaim(repeatable(), fence, ReclaimReason::Policy)
}

pub(super) fn inquire(fence: Fence) -> Transition {
    Transition::Inquire { fence, bound: HOUR }
}

/// The right of a run, and the operation that it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    pub(crate) id: RecordId,
    pub(crate) fence: Fence,
    pub(crate) attempt: u32,
}

/// The end of a run, by its right.
pub(super) type Ending = fn(Hold) -> Transition;

/// The right of the run that has `record`.
pub(crate) fn hold(id: RecordId, record: &Record) -> Hold {
    Hold { id, fence: record.fence, attempt: record.attempt }
}

/// Returns the transition that ends the run with this right.
pub(super) fn end(hold: Hold, result: RunResult) -> Transition {
    let Hold { id, fence, attempt } = hold;
    let (operation, hold) = (operation(id), internals::Hold { fence, attempt });
    Transition::Complete(Completion { operation, hold, result, retention: HOUR, began: None })
}

pub(crate) fn complete(hold: Hold, outcome: impl Into<Bytes>) -> Transition {
    end(hold, RunResult::Outcome(outcome.into()))
}

pub(super) fn consume(hold: Hold, status: u16) -> Transition {
    end(hold, RunResult::Consumed { status })
}

pub(super) fn interrupt(fence: Fence) -> Transition {
    Transition::Interrupt { fence, cause: Cause::Unknown, lost: None }
}

/// An interruption whose client was answered that the effect is unknown.
pub(super) fn answer(fence: Fence, status: u16) -> Transition {
    Transition::Interrupt { fence, cause: Cause::Answered(status), lost: None }
}

pub(super) fn settle(fence: Fence, outcome: impl Into<Bytes>) -> Transition {
    Transition::Resolve(fence, Resolution::Outcome(outcome.into()), HOUR)
}

/// An interrupted operation's key becomes free.
pub(super) fn free(fence: Fence) -> Transition {
    Transition::Resolve(fence, Resolution::Release, HOUR)
}

/// A done operation is forgotten.
pub(super) fn forget(fence: Fence) -> Transition {
    Transition::Resolve(fence, Resolution::Forget, HOUR)
}

/// The answer of a completed operation is forgotten.
pub(super) fn forget_answer(fence: Fence) -> Transition {
    Transition::Resolve(fence, Resolution::ForgetAnswer { status: 418 }, HOUR)
}

/// The same claim or end of a run, of an operation with this label and scope.
pub(super) fn described(transition: Transition, label: &str, scope: [u8; 32]) -> Transition {
    let origin = Origin::of(Described { scope: Some(scope), label: Some(label.to_owned()), trace: None });
    match transition {
        Transition::Claim(claim) => {
            Transition::Claim(Claim { operation: Operation { origin, ..claim.operation }, ..claim })
        }
        Transition::Complete(completion) => {
            Transition::Complete(Completion { operation: Operation { origin, ..completion.operation }, ..completion })
        }
        other => other,
    }
}

/// The same transition, whose record is kept for [`SHORT`].
pub(super) fn shortly(transition: Transition) -> Transition {
    match transition {
        Transition::Claim(claim) => Transition::Claim(Claim { interrupted_retention: SHORT, ..claim }),
        Transition::Reclaim(claim, fence, reason) => {
            Transition::Reclaim(Claim { interrupted_retention: SHORT, ..claim }, fence, reason)
        }
        Transition::Complete(completion) => Transition::Complete(Completion { retention: SHORT, ..completion }),
        Transition::Resolve(fence, resolution, _) => Transition::Resolve(fence, resolution, SHORT),
        other => other,
    }
}

/// Returns what a transition does, in words.
pub(super) fn name_of(transition: &Transition) -> &'static str {
    match transition {
        Transition::Claim(_) => "claim",
        Transition::Reclaim(..) => "take over",
        Transition::Inquire { .. } => "ask about",
        Transition::Complete(Completion { result: RunResult::Outcome(_), .. }) => "complete",
        Transition::Complete(_) => "consume",
        Transition::Release(_) => "release",
        Transition::Interrupt { .. } => "interrupt",
        Transition::Resolve(_, Resolution::Outcome(_), _) => "settle",
        Transition::Resolve(_, Resolution::Forget, _) => "forget",
        Transition::Resolve(_, Resolution::ForgetAnswer { .. }, _) => "forget the answer",
        Transition::Resolve(..) => "free",
        Transition::Adopt(_) => "adopt",
    }
}

/// All that names a fence. The right of a run is that of its first attempt.
pub(super) fn all_under(id: RecordId, fence: Fence) -> Vec<Transition> {
    let hold = Hold { id, fence, attempt: 1 };
    vec![
        reclaim(fence),
        rerun(fence),
        inquire(fence),
        complete(hold, "completed"),
        consume(hold, 599),
        Transition::Release(fence),
        interrupt(fence),
        answer(fence, 502),
        settle(fence, "settled"),
        free(fence),
        forget(fence),
        forget_answer(fence),
    ]
}
