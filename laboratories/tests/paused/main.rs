//! The real server is stopped in the middle of runs and resumed ([`stopped`]): one effect for each key, and one
//! outcome.
//!
//! The long form of one engine; its last line has the figures:
//!
//! ```text
//! ENGINE=sled PAUSES=100 cargo test -p laboratories --test paused -- --nocapture
//! ```
//!
//! Its control breaks the crate inside: `.ci/controls -p laboratories --test paused`.
#![cfg(target_os = "linux")]

mod stopped;

use futures_util::future::join_all;
use laboratories::engine::Engine;
use testkit::control::report;
use testkit::dice::number;
use testkit::history::{History, Policy};

/// Stops the server in the middle of runs; every fourth time for longer than the store's timeout.
#[cfg_attr(idempotency_laboratory, ignore = "run by its controls")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_stopped_and_goes_on_charges_each_key_once_and_says_the_same() {
    for engine in Engine::chosen() {
        stop_often(engine, number("PAUSES").unwrap_or(4)).await;
    }
}

async fn stop_often(engine: Engine, pauses: usize) {
    // Nothing crashes: no policy allows a second effect.
    let history = History::new(Policy::Refuse);
    // Each mode has a server of its own, and all run at the same time.
    let server = async |mode: usize| {
        let lab = stopped::Lab::start(engine, mode, &history);
        let mut given_up = 0;
        for pause in (mode..pauses).step_by(stopped::MODES.len()) {
            // The modes have long pauses in turn; the first time it is the last mode.
            let is_long = (pause / stopped::MODES.len() + pause) % 4 == 3;
            given_up += lab.pause(pause, is_long).await;
        }
        lab.end().await;
        given_up
    };
    let given_up: usize = join_all((0..stopped::MODES.len()).map(server)).await.into_iter().sum();
    let mut violations = history.violations();
    violations.extend(history.unsettled().into_iter().map(|key| format!("{key}: never settled")));
    let keys = history.keys();
    report(
        &format!("stopped server on {engine}: pauses {pauses}, requests given up {given_up}, keys {keys}"),
        &violations,
    );
}

#[cfg(idempotency_laboratory)]
mod control_of_the_pauses {
    use laboratories::engine::{ENGINE, Engine};
    use testkit::control::violations_when_broken;

    #[test]
    fn without_records_a_server_that_goes_on_is_seen_to_make_a_second_effect() {
        let test = "a_server_that_was_stopped_and_goes_on_charges_each_key_once_and_says_the_same";
        for engine in Engine::chosen() {
            let violations = violations_when_broken(test, "record", &[(ENGINE, engine.name()), ("PAUSES", "3")]);
            println!("{test} on {engine} without records: violations {violations}");
            assert!(violations > 0);
        }
    }
}
