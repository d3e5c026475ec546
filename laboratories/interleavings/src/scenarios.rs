//! The kinds of plans. Numbers in a plan are drawn anew for each schedule, and belong to it.

use std::time::Duration;

use testkit::history::Policy::{Atomic, Reconcile, Refuse, Rerun};
use tower_idempotency::OnInFlight;
use tower_idempotency::test_util::StoreCall;

use crate::plan::{Act, Client, Draw, Ending, Fate, KEYS, Kind, Knows, LONG, MAX_RUN, Plan, REQUESTS};

/// A kind of plans.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub plan: fn() -> Plan,
    /// The sights that some schedule must show. Without them the scenario shows nothing.
    pub sees: &'static [&'static str],
}

/// The scenarios that are explored at random.
pub const AT_RANDOM: [Scenario; 11] = [
    Scenario { name: "duplicates", plan: duplicates, sees: &["joined", "found"] },
    Scenario { name: "strangers", plan: strangers, sees: &["joined", "key-reused"] },
    Scenario { name: "ends", plan: ends, sees: &["effect-failed", "in-flight", "outcome-unknown", "asked", "found"] },
    Scenario { name: "dropped runs", plan: dropped_runs, sees: &["cut", "outcome-unknown", "store-unavailable"] },
    Scenario { name: "dropped clients", plan: dropped_clients, sees: &["gone", "joined", "found"] },
    Scenario { name: "drain", plan: drain, sees: &["drain waits", "shutting-down", "found"] },
    Scenario { name: "faults", plan: faults, sees: &["unsaved", "store-unavailable", "joined", "found"] },
    Scenario { name: "settling", plan: settling, sees: &["resolved", "not resolved", "reconciled", "asked", "found"] },
    Scenario { name: "time", plan: time, sees: &["in-flight", "outcome-unknown", "joined"] },
    Scenario { name: "stalls", plan: stalls, sees: &["cut", "store-unavailable", "joined", "found"] },
    Scenario { name: "commits", plan: commits, sees: &["committed", "aborted", "in doubt", "cut", "joined", "found"] },
];

/// The scenarios that are explored exhaustively: as small as possible.
pub const EXHAUSTIVELY: [Scenario; 9] = [
    Scenario { name: "two clients", plan: two_clients, sees: &["joined", "found"] },
    Scenario { name: "two clients of a run that is released", plan: two_of_released, sees: &["in-flight", "found"] },
    Scenario { name: "two clients of a run that panics", plan: two_of_panicked, sees: &["outcome-unknown"] },
    Scenario { name: "two clients of a dropped run", plan: two_of_dropped, sees: &["cut", "outcome-unknown"] },
    Scenario { name: "a client of a dropped run that commits", plan: one_of_commit, sees: &["committed", "cut"] },
    Scenario { name: "a client and drain", plan: one_and_drain, sees: &["drain waits", "shutting-down"] },
    Scenario { name: "a client and an operator", plan: one_and_operator, sees: &["resolved", "found"] },
    Scenario { name: "a record that comes late", plan: two_of_unsaved, sees: &["unsaved", "joined"] },
    Scenario { name: "a record that its run does not know", plan: two_of_dropped_unrecorded, sees: &["cut", "joined"] },
];

const WAIT: OnInFlight = OnInFlight::Wait(Duration::from_secs(2));
const PATIENT: OnInFlight = OnInFlight::Wait(LONG);
const FAILURES: [Ending; 5] = [
    Ending::NotStarted,
    Ending::Unknown { effect: true },
    Ending::Unknown { effect: false },
    Ending::Panic,
    Ending::Outcome,
];

/// The common part of all random plans.
fn any() -> Plan {
    let draw = Draw;
    Plan {
        store: draw.pick(&[Kind::Memory, Kind::Test]),
        policy: draw.pick(&[Refuse, Rerun, Reconcile]),
        clients: draw.clients(),
        breaths: draw.below(3),
        ..Plan::default()
    }
}

fn duplicates() -> Plan {
    any()
}

/// Different requests with one key, at the same time.
fn strangers() -> Plan {
    let mut plan = any();
    for client in &mut plan.clients {
        client.request = Draw.pick(&REQUESTS);
    }
    plan.on_in_flight = Draw.pick(&[WAIT, OnInFlight::Reject]);
    plan.endings = Draw.some(1, || Ending::NotStarted);
    plan
}

fn ends() -> Plan {
    let on_in_flight = Draw.pick(&[WAIT, PATIENT, OnInFlight::Reject]);
    Plan { endings: Draw.some(4, || Draw.pick(&FAILURES)), on_in_flight, ..any() }
}

fn dropped_runs() -> Plan {
    let cuts = (0..2).filter(|_| Draw.one_in(2)).map(|run| (run, Draw.below(8))).collect();
    let endings = Draw.some(1, || Draw.pick(&FAILURES));
    Plan { cuts, endings, ..any() }
}

fn dropped_clients() -> Plan {
    let mut plan = any();
    for client in &mut plan.clients {
        client.gone = Draw.one_in(2).then(|| Draw.below(12));
    }
    plan.endings = Draw.some(1, || Draw.pick(&FAILURES));
    plan
}

fn drain() -> Plan {
    let acts = vec![(Draw.below(30), Act::Drain)];
    Plan { acts, endings: Draw.some(2, || Draw.pick(&FAILURES)), ..any() }
}

const FALLIBLE: [StoreCall; 9] = [
    StoreCall::Load,
    StoreCall::Claim,
    StoreCall::Reclaim,
    StoreCall::Inquire,
    StoreCall::Complete,
    StoreCall::Complete,
    StoreCall::Release,
    StoreCall::Interrupt,
    StoreCall::Resolve,
];

fn faults() -> Plan {
    let call = Draw.pick(&FALLIBLE);
    let fault = |call| if Draw.one_in(2) { Act::Fail(call) } else { Act::LoseAnswer(call) };
    // Either all tries of one call fail, or there are single faults.
    let faults = if Draw.one_in(2) { (0..3 + Draw.below(3)).map(|_| fault(call)).collect() } else { Vec::new() };
    let acts = Draw.some(3, || (Draw.below(12), fault(Draw.pick(&FALLIBLE))));
    let endings = Draw.some(2, || Draw.pick(&FAILURES));
    let cuts = Draw.some(1, || (0, Draw.below(8)));
    let on_in_flight = Draw.pick(&[WAIT, PATIENT]);
    Plan { store: Kind::Test, on_in_flight, faults, acts, endings, cuts, ..any() }
}

/// An operator settles an interrupted operation while it is retried.
fn settling() -> Plan {
    let before = Some(Draw.pick(&[Ending::Unknown { effect: true }, Ending::Unknown { effect: false }, Ending::Panic]));
    let act = || Draw.pick(&[Act::Resolve { stays: true }, Act::Resolve { stays: false }, Act::ReconcileAll]);
    let acts = (0..1 + Draw.below(2)).map(|_| (Draw.below(8), act())).collect();
    let knows = Draw.some(1, || Draw.pick(&[Knows::NotYet, Knows::Panics]));
    // The run before all others is not dropped.
    let cuts = Draw.some(1, || (1 + Draw.below(2), Draw.below(8)));
    Plan { before, acts, knows, cuts, ..any() }
}

/// Time passes: waits time out, handlers take too long.
fn time() -> Plan {
    let endings = Draw.some(2, || Draw.pick(&[Ending::Hang, Ending::Outcome, Ending::Unknown { effect: true }]));
    let some_time = || Act::Pass(Duration::from_secs(Draw.pick(&[2, 5, 10, MAX_RUN.as_secs()])));
    let acts = (0..1 + Draw.below(2)).map(|_| (Draw.below(12), some_time())).collect();
    let knows = Draw.some(1, || Draw.pick(&[Knows::NotYet, Knows::Hangs]));
    Plan { endings, acts, knows, ..any() }
}

/// The store takes its time.
fn stalls() -> Plan {
    let stalls = vec![Draw.pick(&[
        StoreCall::Load,
        StoreCall::Claim,
        StoreCall::Complete,
        StoreCall::Release,
        StoreCall::Interrupt,
        StoreCall::Reclaim,
        StoreCall::Inquire,
        StoreCall::Resolve,
    ])];
    let mut acts = vec![(Draw.below(20), Act::GoOn)];
    acts.extend(Draw.some(1, || (Draw.below(12), Act::Pass(Duration::from_secs(5)))));
    let endings = Draw.some(1, || Draw.pick(&FAILURES));
    let cuts = Draw.some(1, || (0, Draw.below(12)));
    let on_in_flight = Draw.pick(&[WAIT, PATIENT]);
    Plan { store: Kind::Test, on_in_flight, stalls, acts, endings, cuts, ..any() }
}

/// Runs commit their effects together with their records, have any ending, and are dropped meanwhile.
fn commits() -> Plan {
    let fates = Draw.some(2, || {
        Draw.pick(&[Fate::Committed, Fate::Aborted, Fate::Lost { done: true }, Fate::Lost { done: false }])
    });
    let endings = Draw.some(2, || Draw.pick(&FAILURES));
    let cuts = Draw.some(1, || (0, Draw.below(10)));
    let policy = Draw.pick(&[Refuse, Atomic]);
    Plan { policy, commits: true, fates, endings, cuts, ..any() }
}

const A: Client = Client::new(KEYS[0], REQUESTS[0]);

fn two_clients() -> Plan {
    Plan { clients: vec![A, A], ..Plan::default() }
}

fn two_of_released() -> Plan {
    Plan { endings: vec![Ending::NotStarted], ..two_clients() }
}

fn two_of_panicked() -> Plan {
    Plan { endings: vec![Ending::Panic], ..two_clients() }
}

fn two_of_dropped() -> Plan {
    Plan { cuts: vec![(0, 0)], breaths: 1, ..two_clients() }
}

fn one_of_commit() -> Plan {
    let clients = vec![Client { times: 2, ..A }];
    Plan { policy: Atomic, commits: true, cuts: vec![(0, 1)], clients, ..Plan::default() }
}

fn one_and_drain() -> Plan {
    Plan { clients: vec![A], acts: vec![(0, Act::Drain)], ..Plan::default() }
}

fn one_and_operator() -> Plan {
    let before = Some(Ending::Unknown { effect: true });
    Plan { clients: vec![A], before, acts: vec![(0, Act::Resolve { stays: true })], ..Plan::default() }
}

/// The three tries while the client waits fail; a later one does not.
fn two_of_unsaved() -> Plan {
    let faults = vec![Act::Fail(StoreCall::Complete); 3];
    let clients = vec![A, Client { times: 2, ..A }];
    Plan { store: Kind::Test, on_in_flight: PATIENT, clients, faults, ..Plan::default() }
}

/// The record exists, but the run is dropped before it learns that.
fn two_of_dropped_unrecorded() -> Plan {
    let faults = vec![Act::LoseAnswer(StoreCall::Complete)];
    Plan { store: Kind::Test, on_in_flight: PATIENT, faults, cuts: vec![(0, 0)], ..two_clients() }
}
