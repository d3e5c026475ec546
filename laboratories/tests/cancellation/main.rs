//! A client that goes away at any moment changes nothing: its key is neither stuck nor charged again.
//!
//! The future of an answer is dropped after each possible number of polls that it and its run take together, for every
//! kind of request ([`case`]), over each store and under each policy. Then the request is sent again until its key is
//! settled, and once more after a restart.
//!
//! The long form; in each further round the runs go on, on threads of their own, while the future is dropped:
//!
//! ```text
//! CANCELLATIONS=20 cargo test -p laboratories --test cancellation -- --nocapture
//! ```
//!
//! Its controls break the crate inside: `.ci/controls -p laboratories --test cancellation`.

mod attempt;
mod case;
mod cut;
mod handler;
mod home;
mod point;

use std::collections::BTreeMap;

use attempt::{Attempt, Fate, is};
use case::{CASES, Case, under};
use cut::{Group, Lab};
use handler::{Phase, Policy};
use home::{Home, Kind};
use point::Point;
use testkit::control::{is_control, report};
use testkit::dice::number;
use testkit::history;
use testkit::history::History;
use tokio::runtime::{Builder, Runtime};

/// More polls than any request takes.
const MOST_POLLS: usize = 200;

/// The figures of the sweeps.
#[derive(Debug, Default)]
struct Figures {
    drops: BTreeMap<Phase, usize>,
    violations: Vec<String>,
}

#[cfg_attr(idempotency_laboratory, ignore = "run by its controls")]
#[test]
fn a_request_dropped_at_any_poll_leaves_its_key_neither_stuck_nor_run_again() {
    // A run is interrupted only if its case says so: no policy allows a second effect.
    let history = History::new(history::Policy::Refuse);
    let mut figures = Figures::default();
    for round in 0..rounds() {
        for kind in Kind::all() {
            for policy in Policy::ALL {
                let has_own_time = round == 0 && !kind.is_embedded();
                let sweep = Sweep { round, kind, policy, has_own_time, history: &history, figures: &mut figures };
                runtime(round, has_own_time).block_on(sweep.run());
            }
        }
    }
    let Figures { drops, mut violations } = figures;
    violations.extend(history.violations());
    report(&format!("cancellation over {}: {}, keys {}", stores(), by_phase(&drops), history.keys()), &violations);
}

/// The names of the stores.
fn stores() -> String {
    Kind::all().into_iter().map(Kind::name).collect::<Vec<_>>().join(" + ")
}

fn by_phase(drops: &BTreeMap<Phase, usize>) -> String {
    let [claiming, running, recording] =
        [Phase::Claiming, Phase::Running, Phase::Recording].map(|phase| drops.get(&phase).copied().unwrap_or(0));
    format!(
        "drops {} (of which {claiming} while the claim is under way, {running} while the handler runs, {recording} \
         while its outcome is recorded)",
        drops.values().sum::<usize>()
    )
}

fn rounds() -> usize {
    number("CANCELLATIONS").unwrap_or(1)
}

/// Returns a runtime: on one thread in the first round, and on four in the others. With `has_own_time` its clock is
/// paused; a store with a thread of its own needs the machine's clock.
fn runtime(round: usize, has_own_time: bool) -> Runtime {
    let mut builder = if round == 0 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(4).enable_all().start_paused(has_own_time).build().expect("a runtime")
}

/// Every case, over one kind of store, under one policy.
struct Sweep<'a> {
    round: usize,
    kind: Kind,
    policy: Policy,
    has_own_time: bool,
    history: &'a History,
    figures: &'a mut Figures,
}

impl Sweep<'_> {
    async fn run(mut self) {
        let home = Home::new(self.kind);
        let mut settled = Vec::new();
        for case in CASES {
            if !case.fits(self.kind, self.policy, self.has_own_time) {
                continue;
            }
            settled.extend(self.case(case, &home).await);
        }
        let home = self.again(&home, &settled).await.unwrap_or(home);
        home.committed().iter().for_each(|key| self.history.effect(key));
    }

    /// Drops the request after one poll more each time, until the request is answered before that.
    async fn case(&mut self, case: &'static Case, shared: &Home) -> Vec<Attempt> {
        let (mut settled, mut reached) = (Vec::new(), false);
        for polls in 0..MOST_POLLS {
            let is_own = case.spoils_its_store();
            let home = if is_own { Home::new(self.kind) } else { shared.clone() };
            let key = format!("{}-{}-{:?}-{}-{polls}", self.round, self.kind.name(), self.policy, case.name);
            let attempt = Attempt::new(case, self.policy, key, self.history, &home);
            let point = if self.round == 0 { Point::holding(polls) } else { Point::passing(polls) };
            let (fate, helper) = attempt.drop_at(&point).await;
            self.figures.violations.extend(attempt.settle(helper).await);
            if is_own {
                self.again(&home, &[attempt]).await;
            } else {
                settled.push(attempt);
            }
            match fate {
                Fate::Dropped(phase) => {
                    reached |= phase >= case.reaches;
                    *self.figures.drops.entry(phase).or_default() += 1;
                }
                Fate::Answered(told) => {
                    let is_as_said = is(under(self.policy, case.undisturbed), &told);
                    assert!(is_control() || is_as_said, "{}, {:?}: {told:?}", case.name, self.policy);
                    assert!(is_control() || self.round > 0 || reached, "{}, {:?}: not reached", case.name, self.policy);
                    return settled;
                }
            }
        }
        panic!("{} is never answered", case.name);
    }

    /// Restarts the store, and checks that every key has its state from before.
    async fn again(&mut self, home: &Home, settled: &[Attempt]) -> Option<Home> {
        let home = home.reopened().await?;
        for attempt in settled {
            self.figures.violations.extend(attempt.settle_again(&home).await);
        }
        Some(home)
    }
}

/// Interrupts runs in every phase by the end of their runtime, and retries them in the next runtime of the same
/// process.
#[cfg_attr(idempotency_laboratory, ignore = "run by its controls")]
#[test]
fn a_run_whose_runtime_is_dropped_is_recorded_or_interrupted_and_never_stuck() {
    let mut figures = cut::Figures::default();
    for round in 0..rounds() {
        for group in Group::all(round) {
            let mut lab = Lab::new(group);
            let first = runtime(round, false);
            if round == 0 {
                first.block_on(lab.hold_all());
            } else {
                first.block_on(lab.run_all());
            }
            drop(first);
            lab.look();
            runtime(0, false).block_on(lab.settle(&mut figures));
        }
    }
    let cut::Figures { cut, by_hand, keys, violations } = figures;
    let drops = by_phase(&cut);
    report(
        &format!("dropped runtimes over {}: {drops}, keys {keys}, of which {by_hand} are settled by hand", stores()),
        &violations,
    );
    let phases = [Phase::Claiming, Phase::Running, Phase::Recording];
    assert!(phases.iter().all(|phase| cut.contains_key(phase)), "not every phase was reached: {cut:?}");
}

#[cfg(idempotency_laboratory)]
mod control_of_the_cancellations {
    use testkit::control::violations_when_broken;

    #[test]
    fn without_detached_runs_a_dropped_request_is_seen_to_change_something() {
        let test = "a_request_dropped_at_any_poll_leaves_its_key_neither_stuck_nor_run_again";
        let violations = violations_when_broken(test, "detached", &[("CANCELLATIONS", "1")]);
        println!("cancellation without detached runs: violations {violations}");
        assert!(violations > 0);
    }

    #[test]
    fn without_durable_claims_a_run_that_was_interrupted_is_seen_to_run_again() {
        let test = "a_run_whose_runtime_is_dropped_is_recorded_or_interrupted_and_never_stuck";
        let violations = violations_when_broken(test, "durable-claim", &[("CANCELLATIONS", "1")]);
        println!("dropped runtimes without durable claims: violations {violations}");
        assert!(violations > 0);
    }
}
