//! A server that is killed at random keeps its word, under every policy: no key is charged twice, what was answered is
//! replayed, the store opens again, and no key stays refused that need not be.
//!
//! Real processes, real sockets, 32 clients, SIGKILL: under load, while the store is opened (several times in a row),
//! while expired records are swept, while what was interrupted is run again or reconciled. Each policy has a data
//! directory of its own, on which server follows server. Judged by `testkit::history`; the effects are read from
//! the server's ledger.
//!
//! The long form; its last line has the figures:
//!
//! ```text
//! KILLS=10000 cargo test -p laboratories --test kill_loop -- --nocapture
//! ```
//!
//! `KILL_LANES=refuse,rerun` takes some of the policies only.
//!
//! Its controls break the crate inside: `.ci/controls -p laboratories --test kill_loop`.

mod lane;
mod ledger;
mod load;
mod policies;
mod settle;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use lane::Lane;
use tally::Tally;
use tempfile::tempdir;
use testkit::control;
use tokio::task::JoinSet;

/// The long form says how far it has come.
const PROGRESS: Duration = Duration::from_secs(30);

#[cfg_attr(idempotency_laboratory, ignore = "run by its controls")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_at_random_keeps_its_word() {
    let kills: usize = std::env::var("KILLS").map_or(40, |kills| kills.parse().expect("KILLS is a number"));
    let offered = policies::offered();
    let names: Vec<_> = offered.iter().map(|policy| policy.name).collect();
    let directory = tempdir().unwrap();
    let tally = Arc::new(Tally::default());
    let mut lanes = JoinSet::new();
    for policy in &offered {
        let data = directory.path().join(policy.name);
        std::fs::create_dir(&data).unwrap();
        lanes.spawn(Lane::new(*policy, data, Arc::clone(&tally)).run(kills.div_ceil(offered.len())));
    }
    let progress = tokio::spawn(tell(Arc::clone(&tally)));
    while let Some(ended) = lanes.join_next().await {
        if let Err(panic) = ended {
            tally.violation(format!("a lane could not go on: {panic}"));
        }
    }
    progress.abort();

    let violations = tally.violations();
    for violation in &violations {
        println!("{violation}");
    }
    let count = violations.len();
    if count > 0 && !control::is_control() {
        println!("the data is kept in {}", directory.keep().display());
    }
    println!("kill loop: {}, {tally}, violations {count}", names.join(" + "));
    assert_eq!(count, 0);
    tally.assert_reached();
}

async fn tell(tally: Arc<Tally>) {
    let mut tick = tokio::time::interval(PROGRESS);
    tick.tick().await;
    loop {
        tick.tick().await;
        println!("so far: {tally}, violations {}", tally.violations().len());
    }
}

#[cfg(idempotency_laboratory)]
mod control_of_the_kill_loop {
    use testkit::control::violations_when_broken;

    const TEST: &str = "a_server_that_is_killed_at_random_keeps_its_word";
    /// At most; a control ends soon after it has seen a violation. sled writes by itself, a moment later, what it was
    /// not told to flush: a kill has to hit that moment.
    const KILLS: &str = "300";

    fn violations(protection: &str, lanes: &str) -> usize {
        violations_when_broken(TEST, protection, &[("KILLS", KILLS), ("KILL_LANES", lanes)])
    }

    #[test]
    fn a_claim_that_is_not_durable_lets_keys_be_charged_twice() {
        let violations = violations("durable-claim", "refuse");
        assert!(violations > 0, "the kill loop would not see it");
        println!("kill loop, claims not durable: violations {violations}");
    }

    #[test]
    fn an_answer_before_its_record_is_written_is_lost() {
        for lanes in ["refuse,rerun", "atomic-rerun"] {
            let violations = violations("flush", lanes);
            assert!(violations > 0, "the kill loop would not see it: {lanes}");
            println!("kill loop, answers before their records are written, {lanes}: violations {violations}");
        }
    }
}
