//! The kinds of request whose futures are dropped, and what must hold for their keys afterwards.

use std::time::Duration;

use tower_idempotency::test_util::StoreCall;

use crate::handler::Policy::{self, Reconcile, Refuse, Rerun};
use crate::handler::{Act, Layer, Phase};
use crate::home::Kind;

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The acts of the handler, call by call.
    pub(crate) script: &'static [Act],
    pub(crate) before: Before,
    pub(crate) shape: Shape,
    pub(crate) meanwhile: Meanwhile,
    pub(crate) options: fn(Layer) -> Layer,
    pub(crate) policies: &'static [Policy],
    /// The answer to the request if it is not dropped: `outcome`, `nothing`, or a refusal. It shows that the case is
    /// what it says.
    pub(crate) undisturbed: [&'static str; 2],
    /// The last answer to retries, under `Refuse` and under the other two.
    pub(crate) end: [End; 2],
    pub(crate) after_restart: Option<End>,
    /// The phase in which the drop must come at least once.
    pub(crate) reaches: Phase,
}

/// The history of the key before the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    /// Another request with the key was answered.
    Answered,
    /// Another request with the key is at the handler's gate.
    Running,
    /// A run with the key was interrupted.
    Interrupted,
    /// The process is shutting down.
    Drained,
    AnsweredAndDrained,
}

/// The shape of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    Chunks,
    /// Another request with the same key.
    Other,
    /// A key that is refused.
    Malformed,
}

/// The event while the request is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    Nothing,
    /// The handler's gate is opened.
    Gate,
    /// A duplicate comes and waits, and then the gate is opened.
    Duplicate,
    /// The process begins to shut down, and then the gate is opened.
    Drain,
    /// The store does not answer for a moment.
    Slow(StoreCall),
    /// The store does not answer within its timeout.
    Stalled(StoreCall),
    /// The store does the call, and answers only after its timeout.
    Held(StoreCall),
    /// The store does the call, and its answer is lost.
    Lost(StoreCall),
    /// The store refuses the call.
    Fails(StoreCall),
}

/// The state of a key in the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// The answer to a retry: `outcome`, or a refusal.
    pub(crate) told: &'static str,
    /// The number of calls of the handler.
    pub(crate) runs: usize,
}

const fn outcome(runs: usize) -> End {
    End { told: "outcome", runs }
}

const fn refused(told: &'static str, runs: usize) -> End {
    End { told, runs }
}

const FIRST: Case = Case {
    name: "first-run",
    script: &[],
    before: Before::Nothing,
    shape: Shape::Whole,
    meanwhile: Meanwhile::Nothing,
    options: |layer| layer,
    policies: &Policy::ALL,
    undisturbed: ["outcome"; 2],
    end: [outcome(1); 2],
    after_restart: None,
    reaches: Phase::Running,
};
const SLOW: Case = Case { name: "slow-claim", meanwhile: Meanwhile::Slow(StoreCall::Claim), ..FIRST };
const STALLED: Case = Case { meanwhile: Meanwhile::Stalled(StoreCall::Claim), ..FIRST };
const GATED: Case = Case { name: "handler-at-its-gate", script: &[Act::AtGate], meanwhile: Meanwhile::Gate, ..FIRST };
const REPLAY: Case = Case { name: "replay", before: Before::Answered, reaches: Phase::Asking, ..FIRST };
const RELEASE: Case =
    Case { name: "release", script: &[Act::Release], undisturbed: ["released"; 2], end: [outcome(2); 2], ..FIRST };
const PANIC: Case = Case {
    name: "panic",
    script: &[Act::Panic],
    undisturbed: ["outcome-unknown"; 2],
    end: [refused("outcome-unknown", 1), outcome(2)],
    ..FIRST
};
const STREAM: Case = Case {
    name: "stream",
    script: &[Act::Stream],
    undisturbed: ["passed-on"; 2],
    end: [refused("not-replayable", 1); 2],
    ..FIRST
};
const INTERRUPTED: Case = Case {
    name: "interrupted",
    script: &[Act::Panic],
    before: Before::Interrupted,
    // A run that was interrupted under `Refuse` does not run again under `Rerun`.
    policies: &[Refuse, Reconcile],
    undisturbed: ["outcome-unknown", "outcome"],
    end: [refused("outcome-unknown", 1), outcome(2)],
    reaches: Phase::Asking,
    ..FIRST
};
const FAIL_OPEN: Case = Case {
    name: "fail-open",
    script: &[Act::FailOpen],
    meanwhile: Meanwhile::Fails(StoreCall::Claim),
    options: |layer| layer.fail_open(true),
    undisturbed: ["fail-open"; 2],
    // The outcome is recorded once the store works.
    end: [refused("fail-open", 1); 2],
    ..FIRST
};
const DRAINED: Case = Case {
    name: "new-key-while-shutting-down",
    before: Before::Drained,
    undisturbed: ["shutting-down"; 2],
    end: [refused("shutting-down", 0); 2],
    after_restart: Some(outcome(1)),
    reaches: Phase::Asking,
    ..FIRST
};

pub(crate) const CASES: &[Case] = &[
    FIRST,
    GATED,
    Case { name: "request-in-chunks", shape: Shape::Chunks, ..FIRST },
    Case { name: "answer-in-chunks", script: &[Act::Chunks], ..FIRST },
    Case { name: "commit", script: &[Act::Commit], policies: &[Refuse, Rerun], reaches: Phase::Running, ..FIRST },
    Case { name: "first-run-with-a-waiter", meanwhile: Meanwhile::Duplicate, ..GATED },
    Case { name: "waiting-duplicate", before: Before::Running, ..GATED },
    REPLAY,
    Case { name: "other-request", shape: Shape::Other, undisturbed: ["key-reused"; 2], ..REPLAY },
    Case {
        name: "other-request-in-flight",
        before: Before::Running,
        shape: Shape::Other,
        undisturbed: ["key-reused"; 2],
        ..GATED
    },
    Case {
        name: "malformed-key",
        shape: Shape::Malformed,
        undisturbed: ["key-malformed"; 2],
        end: [refused("key-malformed", 0); 2],
        reaches: Phase::Asking,
        ..FIRST
    },
    Case {
        name: "too-large-request",
        options: |layer| layer.max_request_body(3),
        undisturbed: ["body-too-large"; 2],
        end: [refused("body-too-large", 0); 2],
        reaches: Phase::Asking,
        ..FIRST
    },
    RELEASE,
    STREAM,
    Case { name: "long-answer", script: &[Act::Long], options: |layer| layer.max_response_body(50), ..STREAM },
    PANIC,
    Case { name: "error", script: &[Act::Fail], undisturbed: ["nothing"; 2], ..PANIC },
    Case {
        name: "hanging-handler",
        script: &[Act::Hang],
        options: |layer| layer.max_run(Duration::from_secs(1)),
        ..PANIC
    },
    INTERRUPTED,
    Case {
        name: "interrupted-after-its-effect",
        script: &[Act::LatePanic],
        policies: &[Refuse, Reconcile],
        end: [refused("outcome-unknown", 1), outcome(1)],
        ..INTERRUPTED
    },
    Case {
        name: "slow-question",
        meanwhile: Meanwhile::Slow(StoreCall::Inquire),
        policies: &[Reconcile],
        reaches: Phase::Claiming,
        ..INTERRUPTED
    },
    Case {
        name: "slow-verdict",
        script: &[Act::LatePanic],
        meanwhile: Meanwhile::Slow(StoreCall::Resolve),
        policies: &[Reconcile],
        end: [refused("outcome-unknown", 1), outcome(1)],
        reaches: Phase::Claiming,
        ..INTERRUPTED
    },
    SLOW,
    Case { name: "slow-look-up", meanwhile: Meanwhile::Slow(StoreCall::Load), ..SLOW },
    Case { name: "slow-record", meanwhile: Meanwhile::Slow(StoreCall::Complete), reaches: Phase::Recording, ..SLOW },
    Case {
        name: "slow-release",
        meanwhile: Meanwhile::Slow(StoreCall::Release),
        policies: &[Refuse, Reconcile],
        reaches: Phase::Recording,
        ..RELEASE
    },
    Case {
        name: "slow-interrupt",
        meanwhile: Meanwhile::Slow(StoreCall::Interrupt),
        policies: &[Refuse, Reconcile],
        reaches: Phase::Recording,
        ..PANIC
    },
    Case {
        name: "slow-reclaim",
        meanwhile: Meanwhile::Slow(StoreCall::Reclaim),
        policies: &[Reconcile],
        reaches: Phase::Claiming,
        ..INTERRUPTED
    },
    Case { name: "stalled-claim", undisturbed: ["store-unavailable"; 2], reaches: Phase::Claiming, ..STALLED },
    Case {
        name: "held-claim",
        meanwhile: Meanwhile::Held(StoreCall::Claim),
        undisturbed: ["store-unavailable"; 2],
        reaches: Phase::Claiming,
        ..STALLED
    },
    Case { name: "stalled-look-up", meanwhile: Meanwhile::Stalled(StoreCall::Load), ..STALLED },
    Case {
        name: "stalled-record",
        meanwhile: Meanwhile::Stalled(StoreCall::Complete),
        reaches: Phase::Recording,
        ..STALLED
    },
    Case {
        name: "stalled-reclaim",
        meanwhile: Meanwhile::Stalled(StoreCall::Reclaim),
        policies: &[Reconcile],
        undisturbed: ["store-unavailable"; 2],
        reaches: Phase::Claiming,
        ..INTERRUPTED
    },
    Case {
        name: "held-reclaim",
        meanwhile: Meanwhile::Held(StoreCall::Reclaim),
        policies: &[Reconcile],
        undisturbed: ["store-unavailable"; 2],
        reaches: Phase::Claiming,
        ..INTERRUPTED
    },
    Case {
        name: "lost-claim",
        meanwhile: Meanwhile::Lost(StoreCall::Claim),
        undisturbed: ["store-unavailable"; 2],
        end: [refused("outcome-unknown", 0), outcome(1)],
        reaches: Phase::Over,
        ..FIRST
    },
    Case { name: "lost-record", meanwhile: Meanwhile::Lost(StoreCall::Complete), ..FIRST },
    Case {
        name: "lost-release",
        meanwhile: Meanwhile::Lost(StoreCall::Release),
        policies: &[Refuse, Reconcile],
        ..RELEASE
    },
    Case { name: "record-that-fails-once", meanwhile: Meanwhile::Fails(StoreCall::Complete), ..FIRST },
    FAIL_OPEN,
    Case { name: "fail-open-after-a-held-claim", meanwhile: Meanwhile::Held(StoreCall::Claim), ..FAIL_OPEN },
    // The claim was never done: it is made when the store works.
    Case { name: "fail-open-after-a-stalled-claim", meanwhile: Meanwhile::Stalled(StoreCall::Claim), ..FAIL_OPEN },
    DRAINED,
    Case { name: "replay-while-shutting-down", before: Before::AnsweredAndDrained, reaches: Phase::Asking, ..FIRST },
    Case { name: "run-while-shutting-down", meanwhile: Meanwhile::Drain, ..GATED },
];

impl Case {
    /// Returns whether the case is possible there. A test on the machine's own clock does not wait for five seconds to
    /// pass.
    pub(crate) fn fits(&self, kind: Kind, policy: Policy, has_own_time: bool) -> bool {
        let needs_faults =
            !matches!(self.meanwhile, Meanwhile::Nothing | Meanwhile::Gate | Meanwhile::Duplicate | Meanwhile::Drain);
        let takes_time =
            matches!(self.meanwhile, Meanwhile::Stalled(_) | Meanwhile::Held(_)) || self.script.contains(&Act::Hang);
        // A case that needs a store on disk for each of its keys is expensive: it runs under one policy.
        let is_dear = kind.is_embedded() && self.spoils_its_store() && policy != Refuse;
        let has_transactions = kind.is_embedded() || !self.script.contains(&Act::Commit);
        self.policies.contains(&policy)
            && has_transactions
            && !is_dear
            && (!needs_faults || kind == Kind::Test)
            && (!takes_time || has_own_time)
    }

    /// Returns whether the case leaves the store in a state in which other cases fail.
    pub(crate) fn spoils_its_store(&self) -> bool {
        let drained = matches!(self.before, Before::Drained | Before::AnsweredAndDrained);
        drained || !matches!(self.meanwhile, Meanwhile::Nothing | Meanwhile::Gate | Meanwhile::Duplicate)
    }

    /// Returns the last answer to each request for the key, and the number of calls of the handler.
    pub(crate) fn ends(&self, policy: Policy, restarted: bool) -> Vec<(Shape, End)> {
        let end = under(policy, self.end);
        let end = self.after_restart.filter(|_| restarted).unwrap_or(end);
        match self.shape {
            Shape::Other => vec![(Shape::Other, refused("key-reused", end.runs)), (Shape::Whole, end)],
            Shape::Malformed => vec![(Shape::Malformed, end)],
            Shape::Whole | Shape::Chunks => vec![(Shape::Whole, end)],
        }
    }
}

/// Returns the first of the two for `Refuse`, and the second for the other policies.
pub(crate) fn under<T: Copy>(policy: Policy, both: [T; 2]) -> T {
    both[usize::from(policy != Policy::Refuse)]
}
