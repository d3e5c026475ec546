//! The protocol keeps its promises in every order of events, and each fault that is seeded is seen.
//!
//! ```text
//! cargo test -p model                                    # the short form
//! cargo test -p model --release -- --ignored --nocapture  # three processes, more of everything
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use model::{Budget, Fault, Policy, Protocol};
use stateright::{Checker, HasDiscoveries, Model};

const SHORT: Budget = Budget { requests: 2, crashes: 1, lapses: 1, lost: 1, late: 1, by_hand: 1, expiries: 1 };
const POLICIES: [Policy; 3] = [Policy::Refuse, Policy::Rerun, Policy::Ask];

fn explore(protocol: Protocol) -> impl Checker<Protocol> {
    protocol.checker().threads(2).spawn_bfs().join()
}

fn keeps_its_promises(protocol: Protocol) {
    let checker = explore(protocol);
    println!("{:?}, {} processes: states {}", protocol.policy, protocol.processes, checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn two_processes_keep_the_promises_in_every_order_of_events() {
    for policy in POLICIES {
        keeps_its_promises(Protocol { processes: 2, policy, budget: SHORT, fault: None });
    }
}

/// A fault, the policy under which it is seen, and a promise that it breaks.
const SEEDED: [(Fault, Policy, &str); 8] = [
    (Fault::ReleaseDeletes, Policy::Refuse, "no claim is without an owner"),
    (Fault::InquiryDisarms, Policy::Ask, "a late outcome is never thrown away"),
    (Fault::ResolutionKeepsFence, Policy::Refuse, "the same answer"),
    (Fault::ReclaimKeepsFence, Policy::Rerun, "fences grow"),
    (Fault::LivingTakenForDead, Policy::Rerun, "one effect per key"),
    (Fault::FenceIsTheVersion, Policy::Rerun, "the same answer"),
    (Fault::ClaimLeavesNoTrace, Policy::Refuse, "one effect per key"),
    (Fault::LateOutcomeRefused, Policy::Ask, "a late outcome is never thrown away"),
];

#[test]
fn every_seeded_fault_of_the_protocol_breaks_a_promise() {
    for (fault, policy, promise) in SEEDED {
        let protocol = Protocol { processes: 2, policy, budget: SHORT, fault: Some(fault) };
        let until = HasDiscoveries::AllOf([promise].into());
        let checker = protocol.checker().threads(2).finish_when(until).spawn_bfs().join();
        let path = checker.discovery(promise).unwrap_or_else(|| panic!("{fault:?} under {policy:?} keeps {promise:?}"));
        println!("{fault:?} under {policy:?} breaks {promise:?}: {:?}", path.into_actions());
    }
}

#[test]
#[ignore = "takes minutes: see the module's documentation"]
fn three_processes_keep_the_promises_in_every_order_of_events() {
    let budget = Budget { requests: 3, by_hand: 0, ..SHORT };
    for policy in POLICIES {
        keeps_its_promises(Protocol { processes: 3, policy, budget, fault: None });
    }
}
