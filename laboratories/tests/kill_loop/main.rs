//! A server that is killed at random keeps its promises, under every policy: no key is charged twice, each answer is
//! replayed, the store opens again, and no key stays refused without need.
//!
//! It has real processes, real sockets, 32 clients and SIGKILL. A kill comes under load, while the store is opened
//! (several times in a row), or while interrupted operations run again or are reconciled. Each policy has a data
//! directory of its own, on which server follows server. `testkit::history` judges; the effects are read from the
//! server's ledger.
//!
//! The long form of one engine; its last line has the figures:
//!
//! ```text
//! ENGINE=sled KILLS=10000 cargo test -p laboratories --test kill_loop a_server -- --nocapture
//! ```
//!
//! `KILL_LANES=refuse,rerun` takes only some of the policies.
//!
//! Its controls break the crate inside: `.ci/controls -p laboratories --test kill_loop`.

mod counts;
mod lane;
mod ledger;
mod load;
mod policies;
mod settle;

use std::sync::Arc;

use counts::Counts;
use laboratories::engine::Engine;
use lane::Lane;
use tempfile::tempdir_in;
use testkit::control;
use testkit::dice::number;
use tokio::task::JoinSet;

#[cfg_attr(idempotency_laboratory, ignore = "run by its controls")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_at_random_keeps_its_word() {
    for engine in Engine::chosen() {
        kill_often(engine, number("KILLS").unwrap_or(40)).await;
    }
}

async fn kill_often(engine: Engine, kills: usize) {
    let taken = policies::taken();
    let names: Vec<_> = taken.iter().map(|policy| policy.name).collect();
    // A kill has to hit writes that are under way: on a disk, they take their time.
    let directory = tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let counts = Arc::new(Counts::default());
    let mut lanes = JoinSet::new();
    for policy in &taken {
        let data = directory.path().join(policy.name);
        std::fs::create_dir(&data).unwrap();
        lanes.spawn(Lane::new(engine, *policy, data, Arc::clone(&counts)).run(kills.div_ceil(taken.len())));
    }
    while let Some(ended) = lanes.join_next().await {
        if let Err(panic) = ended {
            counts.violation(format!("a lane could not go on: {panic}"));
        }
    }

    let violations = counts.violations();
    for violation in &violations {
        println!("{violation}");
    }
    let count = violations.len();
    if count > 0 && !control::is_control() {
        println!("the data is kept in {}", directory.keep().display());
    }
    println!("kill loop on {engine}: {}, {counts}, violations {count}", names.join(" + "));
    assert_eq!(count, 0);
    counts.assert_reached();
}

#[cfg(idempotency_laboratory)]
mod control_of_the_kill_loop {
    use laboratories::engine::{ENGINE, Engine};
    use testkit::control::violations_when_broken;

    const TEST: &str = "a_server_that_is_killed_at_random_keeps_its_word";
    /// The most kills; a control ends soon after it has seen a violation. An engine writes unflushed data by itself a
    /// moment later: a kill must hit that moment.
    const KILLS: &str = "300";

    /// Asserts that each engine's kill loop sees it.
    fn is_seen(protection: &str, lanes: &str) {
        for engine in Engine::chosen() {
            let extra = [(ENGINE, engine.name()), ("KILLS", KILLS), ("KILL_LANES", lanes)];
            let violations = violations_when_broken(TEST, protection, &extra);
            println!("kill loop on {engine}, {protection} broken, {lanes}: violations {violations}");
            assert!(violations > 0, "the kill loop would not see it: {lanes}");
        }
    }

    #[test]
    fn a_claim_that_is_not_durable_lets_keys_be_charged_twice() {
        is_seen("durable-claim", "refuse");
    }

    #[test]
    fn an_answer_before_its_record_is_written_is_lost() {
        ["refuse,rerun", "atomic-rerun"].into_iter().for_each(|lanes| is_seen("flush", lanes));
    }
}
