//! Scenes: the events that may happen, how often, and the sights that they must show.

use model::{Budget, Policy, Protocol, Replication};

pub(crate) const POLICIES: [Policy; 3] = [Policy::Refuse, Policy::Rerun, Policy::Ask];
pub(crate) const NOTHING: Budget = Budget {
    requests: 0,
    crashes: 0,
    lapses: 0,
    closes: 0,
    drops: 0,
    lost: 0,
    late: 0,
    slow: 0,
    by_hand: 0,
    forgets: 0,
    inspects: 0,
    restarts: 0,
    failovers: 0,
    ticks: 0,
    clocks: 0,
    walls: 0,
    opened: 0,
    renewals: 0,
};
pub(crate) const TWO_REQUESTS: Budget = Budget { requests: 2, ..NOTHING };
pub(crate) const TWO_PROCESSES: Protocol = Protocol {
    processes: 2,
    keys: 1,
    policy: Policy::Refuse,
    first: None,
    replication: Replication::InStep,
    budget: TWO_REQUESTS,
    fault: None,
};

/// The events that may happen together, and the sights that they must show.
#[derive(Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    /// The protocol, under the first of the policies.
    pub(crate) protocol: Protocol,
    /// The sights under each policy.
    pub(crate) goals: &'static [&'static str],
    /// The sights if others may run an interrupted operation again, at once or once they have asked.
    pub(crate) goals_of_takeover: &'static [&'static str],
    /// The sights if the application is asked.
    pub(crate) goals_of_asking: &'static [&'static str],
}

/// The sights of every scene.
pub(crate) const GOALS: &[&str] = &["an outcome is told", "it is told again", "it is told from memory"];
/// The sights of every scene in which the application is asked.
pub(crate) const GOALS_OF_ASKING: &[&str] =
    &["the application knows the outcome", "the application says that it may run again", "a run is taken over"];

/// The sights of the scenes in which sessions state which bounds are over.
pub(crate) const GOALS_OF_BOUNDS: &[&str] = &[
    "a run of a living process outlasts its bound",
    "a claim without a run is over once its session says so",
    "a completion finds its claim lost",
    "an outcome is disputed",
];

/// The sights of the scenes in which rows change before they are durable.
pub(crate) const GOALS_OF_APPLIED: &[&str] =
    &["a call waits until the row that it shows is durable", "a failover loses a row before it is shown"];

pub(crate) const LOST_AND_LATE_WRITES: Scene = Scene {
    name: "answers are lost, writes arrive again",
    protocol: Protocol { budget: Budget { lost: 1, late: 1, lapses: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &["a late completion wins", "a resend is recognised", "a claim comes after its release"],
    goals_of_takeover: &["an outcome is disputed", "a claim is taken back"],
    goals_of_asking: &[],
};
pub(crate) const SETTLED_BY_HAND: Scene = Scene {
    name: "an operator settles",
    protocol: Protocol { budget: Budget { by_hand: 1, late: 1, lapses: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &["an operator settles it", "an outcome is disputed", "a claim is taken back", "a session is renewed late"],
    goals_of_takeover: &["a run is taken over"],
    goals_of_asking: &[],
};
pub(crate) const FORGOTTEN: Scene = Scene {
    name: "an operator forgets, failover",
    protocol: Protocol {
        budget: Budget { requests: 3, forgets: 1, inspects: 1, failovers: 1, late: 1, ..NOTHING },
        ..TWO_PROCESSES
    },
    goals: &[
        "an operation is forgotten",
        "a forgotten operation runs again",
        "a forgotten operation runs again after a failover",
        "a copy of what was forgotten is told",
        "a copy of what was forgotten is dropped",
        "what was forgotten is disputed, as the operation has run again",
        "a process that was asked keeps its copy, as the operation has run again",
    ],
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const FORGOTTEN_AND_LOST: Scene = Scene {
    name: "an operator forgets, failover to a standby that is behind",
    protocol: Protocol {
        replication: Replication::Behind,
        budget: Budget { requests: 3, forgets: 1, failovers: 1, ..NOTHING },
        ..TWO_PROCESSES
    },
    goals: &[
        "a forgotten operation runs again after a failover",
        "an outcome that a failover has lost is put back",
        "a copy of what was forgotten is dropped",
        "what was forgotten is disputed, as it was put back and forgotten meanwhile",
    ],
    ..FORGOTTEN
};
pub(crate) const FORGOTTEN_AND_CLOCK: Scene = Scene {
    name: "an operator forgets, failover, time passes, the database's clock is set",
    protocol: Protocol {
        budget: Budget { forgets: 1, failovers: 1, ticks: 2, clocks: 2, ..TWO_REQUESTS },
        ..TWO_PROCESSES
    },
    goals: &[
        "a copy of what was forgotten is dropped",
        "what was forgotten is written anew, as the row of a later run has expired",
    ],
    ..FORGOTTEN
};
pub(crate) const DROPPED: Scene = Scene {
    name: "futures are dropped, writes arrive again",
    protocol: Protocol { budget: Budget { drops: 1, late: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &["a claim is taken back", "a claim comes after its release", "a late completion wins"],
    goals_of_takeover: &["a run is taken over", "an outcome is disputed"],
    goals_of_asking: &[],
};
pub(crate) const CLOSED: Scene = Scene {
    name: "futures are dropped, processes are told to stop",
    protocol: Protocol { budget: Budget { drops: 1, closes: 1, lapses: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &["a claim is taken back", "a late completion wins"],
    goals_of_takeover: &["a handler is dropped", "an outcome is disputed"],
    goals_of_asking: &[],
};
pub(crate) const SLOW: Scene = Scene {
    name: "effects are slow, processes die or stand still",
    protocol: Protocol { budget: Budget { slow: 1, crashes: 1, lapses: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &["a late completion wins", "a session is renewed late"],
    goals_of_takeover: &["a run is taken over", "an outcome is disputed", "a handler is dropped"],
    goals_of_asking: &["an older fence is refused downstream"],
};
pub(crate) const SYNCHRONOUS: Scene = Scene {
    name: "a write waits for its standby, restart and failover",
    protocol: Protocol {
        replication: Replication::Awaited,
        budget: Budget { restarts: 1, failovers: 1, lost: 1, ..TWO_REQUESTS },
        ..TWO_PROCESSES
    },
    goals: &["a row is busy", "a barrier is needed", "a restart shows what is not durable", "a resend is recognised"],
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const LOST_BY_A_FAILOVER: Scene = Scene {
    name: "a standby is behind, failover, writes arrive again",
    protocol: Protocol {
        replication: Replication::Behind,
        budget: Budget { failovers: 1, late: 1, ..TWO_REQUESTS },
        ..TWO_PROCESSES
    },
    goals: &["a failover loses a claim", "a failover loses an answer", "a completion finds its claim lost"],
    goals_of_takeover: &["a run is taken over"],
    goals_of_asking: &[],
};
pub(crate) const LOST_WHILE_STANDING_STILL: Scene = Scene {
    name: "a standby is behind, failover, processes stand still",
    protocol: Protocol {
        replication: Replication::Behind,
        budget: Budget { failovers: 1, lapses: 1, ..TWO_REQUESTS },
        ..TWO_PROCESSES
    },
    goals: &["a failover loses a claim", "a failover loses an answer", "a session is renewed late"],
    goals_of_takeover: &["a run is taken over", "a handler is dropped"],
    goals_of_asking: &[],
};
pub(crate) const APPLIED: Scene = Scene {
    name: "rows change before they are durable, failover, answers are lost",
    protocol: Protocol {
        replication: Replication::Applied,
        budget: Budget { failovers: 1, lost: 1, ..TWO_REQUESTS },
        ..TWO_PROCESSES
    },
    goals: GOALS_OF_APPLIED,
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const APPLIED_AND_RESTART: Scene = Scene {
    name: "rows change before they are durable, restart and failover",
    protocol: Protocol { budget: Budget { restarts: 1, failovers: 1, ..TWO_REQUESTS }, ..APPLIED.protocol },
    goals: &["a barrier is needed", "a restart shows what is not durable"],
    ..APPLIED
};
pub(crate) const APPLIED_AND_SETTLED: Scene = Scene {
    name: "rows change before they are durable, failover, an operator settles, processes stand still",
    protocol: Protocol { budget: Budget { failovers: 1, by_hand: 1, lapses: 1, ..TWO_REQUESTS }, ..APPLIED.protocol },
    goals: &["an operator settles it", "an outcome is disputed", "a late completion wins"],
    ..APPLIED
};
pub(crate) const APPLIED_WHILE_STANDING_STILL: Scene = Scene {
    name: "rows change before they are durable, failover, processes stand still",
    protocol: Protocol { budget: Budget { failovers: 1, lapses: 1, ..TWO_REQUESTS }, ..APPLIED.protocol },
    goals_of_takeover: &["a run is taken over", "an outcome is disputed"],
    ..APPLIED
};
pub(crate) const APPLIED_BY_THREE: Scene = Scene {
    name: "three processes, rows change before they are durable, failover, processes die",
    protocol: Protocol {
        processes: 3,
        budget: Budget { requests: 3, crashes: 1, failovers: 1, ..NOTHING },
        ..APPLIED.protocol
    },
    goals_of_takeover: &["a run is taken over"],
    ..APPLIED
};
pub(crate) const TIME: Scene = Scene {
    name: "time passes, writes arrive again",
    protocol: Protocol { budget: Budget { ticks: 5, late: 1, renewals: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &[
        "an expired row is claimed over",
        "a row is swept",
        "a claim comes after its release",
        "an outcome in memory is not told any more",
        "a run of a living process outlasts its bound",
    ],
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const BOUND: Scene = Scene {
    name: "time passes, answers are lost, sessions are renewed",
    protocol: Protocol { budget: Budget { ticks: 3, lost: 1, renewals: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: GOALS_OF_BOUNDS,
    goals_of_takeover: &["a run is taken over"],
    goals_of_asking: &[],
};
pub(crate) const BOUND_AND_RESTART: Scene = Scene {
    name: "time passes, the database is started again, sessions are renewed",
    protocol: Protocol {
        replication: Replication::Awaited,
        budget: Budget { ticks: 3, restarts: 1, renewals: 1, ..TWO_REQUESTS },
        ..TWO_PROCESSES
    },
    ..BOUND
};
pub(crate) const BOUND_AND_FAILOVER: Scene = Scene {
    name: "time passes, failover to a standby that is behind, sessions are renewed",
    protocol: Protocol {
        replication: Replication::Behind,
        budget: Budget { ticks: 3, failovers: 1, renewals: 1, ..TWO_REQUESTS },
        ..TWO_PROCESSES
    },
    ..BOUND
};
pub(crate) const BOUND_AND_DROP: Scene = Scene {
    name: "time passes, futures are dropped, sessions are renewed",
    protocol: Protocol { budget: Budget { ticks: 3, drops: 1, renewals: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &["a run of a living process outlasts its bound", "a claim is taken back"],
    goals_of_takeover: &["a run is taken over"],
    goals_of_asking: &[],
};
pub(crate) const CLOCK: Scene = Scene {
    name: "time passes, the database's clock is set",
    protocol: Protocol { budget: Budget { ticks: 4, clocks: 2, renewals: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &[
        "an expired row is claimed over",
        "a row is swept",
        "a fence is above the clock",
        "a record outlasts a database's clock that is ahead",
        "a run of a living process outlasts its bound",
    ],
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const COPIES: Scene = Scene {
    name: "time passes, writes arrive again, the database's clock is set",
    protocol: Protocol {
        budget: Budget { requests: 2, ticks: 4, clocks: 2, late: 1, renewals: 1, ..NOTHING },
        ..TWO_PROCESSES
    },
    goals: &[
        "a record outlasts a database's clock that is ahead",
        "a run of a living process outlasts its bound",
        "a claim comes after its release",
    ],
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const WALL_CLOCKS: Scene = Scene {
    name: "time passes, wall clocks are set",
    protocol: Protocol { budget: Budget { ticks: 3, walls: 2, renewals: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &[
        "an expired row is claimed over",
        "a fence is above the clock",
        "an outcome in memory is not told any more",
        "a run of a living process outlasts its bound",
    ],
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const WRONG_TOGETHER: Scene = Scene {
    name: "time passes, clocks are wrong together, a process opens",
    protocol: Protocol { budget: Budget { ticks: 3, clocks: 1, walls: 1, opened: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &[
        "a record outlasts a database's clock that is ahead",
        "all clocks are wrong together",
        "a run of a living process outlasts its bound",
    ],
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const USED_AGAIN: Scene = Scene {
    name: "a key is used again after its retention, a wall clock is set",
    protocol: Protocol { budget: Budget { requests: 3, ticks: 2, walls: 1, ..NOTHING }, ..TWO_PROCESSES },
    goals: &["an expired row is claimed over", "an outcome in memory is not told any more"],
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const EACH_CLOCK: Scene = Scene {
    name: "time passes, clocks are set ahead and back, a process opens",
    protocol: Protocol { budget: Budget { ticks: 3, clocks: 2, walls: 2, opened: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    ..WRONG_TOGETHER
};
pub(crate) const CLOCK_BEHIND: Scene = Scene {
    name: "one process, failover to a standby, the clock is set",
    protocol: Protocol {
        processes: 1,
        replication: Replication::Behind,
        budget: Budget { failovers: 1, clocks: 2, ..TWO_REQUESTS },
        ..TWO_PROCESSES
    },
    goals: &["a failover loses a claim", "a fence is above the clock"],
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const DEPLOYED: Scene = Scene {
    name: "the first process refuses, the others run again",
    protocol: Protocol {
        first: Some(Policy::Refuse),
        policy: Policy::Rerun,
        budget: Budget { slow: 1, crashes: 1, lapses: 1, ..TWO_REQUESTS },
        ..TWO_PROCESSES
    },
    goals: &["what was not claimed as repeatable is not run again"],
    goals_of_takeover: &[],
    goals_of_asking: &[],
};
pub(crate) const TWO_KEYS: Scene = Scene {
    name: "two keys, processes die or stand still",
    protocol: Protocol { keys: 2, budget: Budget { crashes: 1, lapses: 1, ..TWO_REQUESTS }, ..TWO_PROCESSES },
    goals: &["a late completion wins", "a session is renewed late"],
    goals_of_takeover: &["a run is taken over", "a handler is dropped"],
    goals_of_asking: &[],
};
pub(crate) const THREE_PROCESSES: Scene = Scene {
    name: "three processes, which die or stand still",
    protocol: Protocol {
        processes: 3,
        budget: Budget { requests: 3, crashes: 1, lapses: 1, ..NOTHING },
        ..TWO_PROCESSES
    },
    goals: &["a late completion wins", "a session is renewed late"],
    goals_of_takeover: &["a run is taken over", "an outcome is disputed", "a handler is dropped"],
    goals_of_asking: &[],
};
