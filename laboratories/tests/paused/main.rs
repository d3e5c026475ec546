//! Threads and processes that stall for a while, and go on late: one effect for each key, and one outcome.
//!
//! - [`stopped`]: the real server, by SIGSTOP and SIGCONT;
//! - [`late`]: the store, at each of its calls;
//! - [`writer`]: the thread that writes to sled;
//! - [`handlers`]: handlers and bodies.
//!
//! The long form; its last lines have the figures:
//!
//! ```text
//! PAUSES=100 cargo test -p laboratories --test paused -- --nocapture
//! ```
//!
//! Its controls break the crate inside: `.ci/controls -p laboratories --test paused`.
#![cfg(target_os = "linux")]

mod handlers;
mod late;
mod sent;
mod stopped;
mod writer;

use futures_util::future::join_all;
use testkit::control::is_control;
use testkit::history::{History, Policy};

/// In mid-run it is stopped; every fourth time for longer than its store is waited for.
#[cfg_attr(idempotency_laboratory, ignore = "run by its controls")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_stopped_and_goes_on_charges_each_key_once_and_says_the_same() {
    let pauses: usize = std::env::var("PAUSES").map_or(4, |pauses| pauses.parse().expect("PAUSES is a number"));
    // Nothing crashes: under no policy is there a second effect.
    let history = History::new(Policy::Refuse);
    // One server for each mode, at the same time.
    let server = async |mode: usize| {
        let lab = stopped::Lab::start(mode, &history);
        let mut given_up = 0;
        for pause in (mode..pauses).step_by(stopped::MODES.len()) {
            // In turn, too, each mode has a long one; the first time it is the last.
            let is_long = (pause / stopped::MODES.len() + pause) % 4 == 3;
            given_up += lab.pause(pause, is_long).await;
        }
        lab.end().await;
        given_up
    };
    let given_up: usize = join_all((0..stopped::MODES.len()).map(server)).await.into_iter().sum();
    let mut violations = history.violations();
    violations.extend(history.unsettled().into_iter().map(|key| format!("{key}: never settled")));
    violations.iter().for_each(|violation| println!("{violation}"));
    println!(
        "stopped server: pauses {pauses}, requests given up {given_up}, keys {}, violations {}",
        history.keys(),
        violations.len()
    );
    assert_eq!(violations.len(), 0);
}

#[cfg_attr(idempotency_laboratory, ignore = "run by its controls")]
#[tokio::test(start_paused = true)]
async fn a_store_that_answers_late_makes_no_second_effect_and_leaves_no_key_stuck() {
    let history = History::new(Policy::Refuse);
    let (mut put_off, mut violations) = (0, Vec::new());
    for (number, case) in late::Case::all().into_iter().enumerate() {
        let (times, wrong) = late::hold_up(case, number, &history).await;
        assert!(times > 0 || !wrong.is_empty() || is_control(), "nothing was noticed: {case:?}");
        put_off += times;
        violations.extend(wrong);
    }
    violations.extend(history.violations());
    report("late store", &history, put_off, &violations);
}

#[cfg_attr(idempotency_laboratory, ignore = "run by its controls")]
#[tokio::test(start_paused = true)]
async fn a_handler_or_body_that_stands_still_makes_no_second_effect_and_leaves_no_key_stuck() {
    let history = History::new(Policy::Refuse);
    let (mut put_off, mut violations) = (0, handlers::endless_upload(&history).await);
    for first in handlers::FIRSTS {
        for policy in handlers::POLICIES {
            // It charges, hangs, and runs again: that is what `Rerun` says.
            if (first, policy) == (handlers::First::HangsCharged, late::Policy::Rerun) {
                continue;
            }
            let (times, wrong) = handlers::stand_still(&handlers::Key::new(first, policy, &history)).await;
            assert!(times > 0 || !wrong.is_empty() || is_control(), "nothing was noticed: {first:?} {policy:?}");
            put_off += times;
            violations.extend(wrong);
        }
    }
    violations.extend(history.violations());
    report("handlers that stand still", &history, put_off, &violations);
}

fn report(name: &str, history: &History, put_off: usize, violations: &[String]) {
    violations.iter().for_each(|violation| println!("{violation}"));
    println!("{name}: keys {}, requests put off {put_off}, violations {}", history.keys(), violations.len());
    assert_eq!(violations.len(), 0);
}

#[cfg_attr(idempotency_laboratory, ignore = "run by its controls")]
#[tokio::test(start_paused = true)]
async fn a_writer_thread_that_was_held_up_makes_no_second_effect_and_leaves_no_key_stuck() {
    let history = History::new(Policy::Refuse);
    let (put_off, mut violations) = writer::hold_up(&history).await;
    assert!(put_off > 0);
    violations.extend(history.violations());
    report("held-up writer", &history, put_off, &violations);
}

#[cfg(idempotency_laboratory)]
mod control_of_the_pauses {
    use testkit::control::violations_when_broken;

    #[test]
    fn without_records_what_comes_late_is_seen_to_make_a_second_effect() {
        for test in [
            "a_server_that_was_stopped_and_goes_on_charges_each_key_once_and_says_the_same",
            "a_store_that_answers_late_makes_no_second_effect_and_leaves_no_key_stuck",
            "a_writer_thread_that_was_held_up_makes_no_second_effect_and_leaves_no_key_stuck",
            "a_handler_or_body_that_stands_still_makes_no_second_effect_and_leaves_no_key_stuck",
        ] {
            let violations = violations_when_broken(test, "record", &[("PAUSES", "3")]);
            println!("{test} without records: violations {violations}");
            assert!(violations > 0);
        }
    }
}
