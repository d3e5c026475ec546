//! Effect and record in one transaction when the disk refuses a write: every answer with a receipt is right, the other
//! clients get an error and never the handler's own answer, and nothing runs again before a restart shows the end.
//!
//! The charges are made in a child process whose files may not grow past a bound: the write that would do so fails, as
//! on a disk that is full, and the store is poisoned in the middle of a batch. The parent then opens the store.

use std::path::Path;
use std::process::Command;

use futures_util::future::join_all;
use testkit::lab::Lab;
use testkit::lab::charges::{
    OWN, charge, charged, charges as table_of, commit_outcome, deliver, layer, receipt, replaying, serve,
};
use testkit::lab::disk::{Disk, Table as _};
use testkit::on_both;
use tokio::runtime::Runtime;
use tower_idempotency::engine::EffectError;
use tower_idempotency::store::CommitError;
use tower_idempotency::store::{Abort, Health, StoreError, TransactionError};
use tower_idempotency::{IdempotencyLayer, OnInterrupted, Once};

/// The variable with the place of the child's store.
const PLACE: &str = "TOWER_IDEMPOTENCY_PLACE";
/// The child's prefixes for a key that was answered with its receipt, and for one whose end is unknown.
const DONE: &str = "done ";
const DOUBT: &str = "doubt ";
/// The limits of a file's size, in blocks of 512 bytes (or 1,024 in some shells): another write is refused with each.
const BLOCKS: [u32; 4] = [6_144, 7_001, 8_192, 8_877];
/// The answer of a handler that charged nothing, and of one that goes ahead without a store and could charge elsewhere.
const NOTHING: &str = "nothing was done";
const FAIL_OPEN: &str = "fail-open";
/// The charges that are made at a time, and the bytes of an answer.
const AT_A_TIME: usize = 8;
const LONG: usize = 50_000;

/// Runs `test` again, in a process whose files may not grow, and returns the keys that it prints.
fn without_space<D: Disk>(test: &str, blocks: u32, place: &Path) -> (Vec<String>, Vec<String>) {
    if D::IS_LONG_AT_FIRST {
        child(async { D::open(place).unwrap().close().await.unwrap() });
    }
    // A write past the bound is then an error, and no signal.
    let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    let mut child = Command::new("sh");
    child.args(["-c", &limited, "sh"]).arg(std::env::current_exe().unwrap());
    let module = module_path!().split_once("::").map_or("", |(_, module)| module);
    let test = format!("{module}::{test}::on_{}", D::NAME);
    let output = child.args(["--exact", &test, "--nocapture"]).env(PLACE, place).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}:\n{stdout}\n{stderr}", output.status);
    let keys = |said: &str| stdout.lines().filter_map(|line| line.strip_prefix(said)).map(str::to_owned).collect();
    (keys(DONE), keys(DOUBT))
}

/// An application that charges and answers at length in one transaction. A run that comes after one that was not
/// committed is a second effect.
fn charging(layer: IdempotencyLayer<impl Disk>) -> Lab {
    let store = layer.store().clone();
    serve(layer, move |context| {
        let charges = store.try_table("charges");
        let (store, key) = (store.clone(), context.key().as_str().to_owned());
        async move {
            let body = vec![b'x'; LONG];
            let committed = store.complete_in(&context, [&charges.unwrap()], move |[charges]| {
                charge(&charges, &key)?;
                Ok::<_, Abort<&str>>(receipt(&key).map(|_| body.clone().into()))
            });
            match committed.await {
                Ok(committed) => Ok(committed),
                Err(CommitError::Store(StoreError::Uncertain { .. })) => Err(OWN),
                // The store is poisoned already, or the database could not even read.
                Err(
                    CommitError::Store(StoreError::Unavailable { .. })
                    | CommitError::Refused(TransactionError::Database(_)),
                ) => Err((OWN.0, NOTHING)),
                Err(CommitError::FailOpen) => Err((OWN.0, FAIL_OPEN)),
                Err(error) => panic!("{error:?}"),
            }
        }
    })
}

/// Charges until the disk refuses. Returns the keys that were charged, and those that may have been.
async fn charge_until_refused(layer: IdempotencyLayer<impl Disk>) -> (Lab, Vec<String>, Vec<String>) {
    let (store, lab) = (layer.store().clone(), charging(layer));
    let (mut done, mut doubtful) = (Vec::new(), Vec::new());
    while store.health() == Health::Good {
        let keys: Vec<_> = (0..AT_A_TIME).map(|number| format!("k{}", done.len() + number)).collect();
        // Each twice at the same time.
        let twice = async |key: &String| tokio::join!(lab.post(key, "a"), lab.post(key, "a"));
        for (key, (answer, duplicate)) in keys.iter().zip(join_all(keys.iter().map(twice)).await) {
            if duplicate.problem().is_empty() && duplicate.body != FAIL_OPEN {
                assert_eq!((&duplicate.body, duplicate.is_replay()), (&answer.body, true));
            }
            match (answer.status.as_u16(), answer.problem().as_str(), answer.body.as_ref()) {
                (201, "", _) => done.push(key.clone()),
                (503, "outcome-unknown", _) => {
                    answer.assert_refusal(503, "outcome-unknown", true, None);
                    doubtful.push(key.clone());
                }
                (402, "", body) if body == NOTHING.as_bytes() || body == FAIL_OPEN.as_bytes() => {}
                (503, "store-unavailable", _) => {}
                _ => panic!("{answer:?}"),
            }
        }
    }
    assert!(matches!(store.health(), Health::Poisoned { .. }), "{:?}", store.health());
    println!("\n{}", done.iter().map(|key| format!("{DONE}{key}\n")).collect::<String>());
    println!("{}", doubtful.iter().map(|key| format!("{DOUBT}{key}\n")).collect::<String>());
    (lab, done, doubtful)
}

fn child(run: impl Future<Output = ()>) {
    Runtime::new().unwrap().block_on(run);
}

/// Asserts the promises of the store after a restart.
fn assert_restarted(store: &impl Disk, policy: &OnInterrupted, done: &[String], doubtful: &[String]) {
    let lab = replaying(store, *policy);
    let retry = |key: &String| Runtime::new().unwrap().block_on(lab.post(key, "a"));
    for key in done {
        let retry = retry(key);
        assert_eq!((retry.status.as_u16(), retry.body.len(), retry.is_replay()), (201, LONG, true), "{key}");
        assert_eq!(charged(store, key), 1, "{key}");
    }
    for key in doubtful {
        let (retry, count) = (retry(key), charged(store, key));
        assert!(count <= 1, "{key}: {count}");
        assert_eq!(retry.is_replay() && retry.status == 201, count == 1, "{key}: both or neither: {retry:?}");
        if count == 0 && matches!(policy, OnInterrupted::Refuse) {
            assert_eq!(retry.refusal(), (409, "outcome-unknown".to_owned()), "{key}");
        }
    }
}

/// The test `test`, in the parent and in its child.
fn refused_write<D: Disk>(test: &str, policy: OnInterrupted, fail_open: bool) {
    if let Some(place) = std::env::var_os(PLACE) {
        return child(async {
            let layer = layer(D::open(place).unwrap(), policy).fail_open(fail_open);
            let (lab, done, doubtful) = charge_until_refused(layer).await;
            for key in &doubtful {
                let retry = lab.post(key, "a").await;
                let refused = ["store-unavailable", "outcome-unknown"].contains(&retry.problem().as_str());
                assert!(
                    refused && retry.status != 500,
                    "nothing runs, and nothing is said that may be lost: {retry:?}"
                );
            }
            // An outcome that is durable by the process's memory is still answered.
            let retry = lab.post(done.last().unwrap(), "a").await;
            assert!(retry.is_replay(), "{retry:?}");
        });
    }
    let mut in_doubt = 0;
    for blocks in BLOCKS {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("s");
        let (done, doubtful) = without_space::<D>(test, blocks, &place);
        assert!(!done.is_empty());
        assert_restarted(&D::open(place).unwrap(), &policy, &done, &doubtful);
        in_doubt += doubtful.len();
    }
    // The refused write may be a claim, but not each time.
    assert!(in_doubt > 0, "no write of a commit was refused");
}

on_both!(fn a_commit_whose_write_is_refused_is_answered_that_nobody_knows_and_after_the_restart_it_is_known);
fn a_commit_whose_write_is_refused_is_answered_that_nobody_knows_and_after_the_restart_it_is_known<D: Disk>() {
    let test = "a_commit_whose_write_is_refused_is_answered_that_nobody_knows_and_after_the_restart_it_is_known";
    refused_write::<D>(test, OnInterrupted::Rerun, false);
}

on_both!(fn a_commit_under_a_durable_claim_whose_write_is_refused_is_known_after_the_restart);
fn a_commit_under_a_durable_claim_whose_write_is_refused_is_known_after_the_restart<D: Disk>() {
    let test = "a_commit_under_a_durable_claim_whose_write_is_refused_is_known_after_the_restart";
    refused_write::<D>(test, OnInterrupted::Refuse, false);
}

on_both!(fn an_operation_of_which_nobody_knows_is_not_run_again_where_fail_open_was_chosen);
fn an_operation_of_which_nobody_knows_is_not_run_again_where_fail_open_was_chosen<D: Disk>() {
    let test = "an_operation_of_which_nobody_knows_is_not_run_again_where_fail_open_was_chosen";
    refused_write::<D>(test, OnInterrupted::Rerun, true);
}

on_both!(fn a_transaction_that_meets_a_database_which_has_failed_poisons_the_store);
fn a_transaction_that_meets_a_database_which_has_failed_poisons_the_store<D: Disk>() {
    if let Some(place) = std::env::var_os(PLACE) {
        return child(async {
            let store = D::open(place).unwrap();
            let once = Once::new(store.clone()).on_interrupted(OnInterrupted::Rerun);
            let health = store.clone();
            let delivered = deliver(&once, "k", move |context| async move {
                // The application's own writes, past the store, fill the disk.
                table_of(&store).fill();
                let committed = commit_outcome(&context, &store, "k", || ()).await;
                Err(EffectError::MaybeStarted(if committed.is_ok() { "committed" } else { "not committed" }))
            });
            assert!(delivered.await.is_err());
            assert!(matches!(health.health(), Health::Poisoned { .. }), "{:?}", health.health());
        });
    }
    let test = "a_transaction_that_meets_a_database_which_has_failed_poisons_the_store";
    let directory = tempfile::tempdir().unwrap();
    without_space::<D>(test, BLOCKS[0], &directory.path().join("s"));
}

on_both!(fn who_comes_again_for_an_operation_in_doubt_is_told_as_the_first_was_to_keep_the_key);
fn who_comes_again_for_an_operation_in_doubt_is_told_as_the_first_was_to_keep_the_key<D: Disk>() {
    if let Some(place) = std::env::var_os(PLACE) {
        return child(async {
            let layer = layer(D::open(place).unwrap(), OnInterrupted::Rerun);
            let (lab, _, doubtful) = charge_until_refused(layer).await;
            for key in &doubtful {
                let retry = lab.post(key, "a").await;
                assert_eq!(retry.json()["retry_with_same_key"], true, "{}", retry.text());
            }
        });
    }
    let test = "who_comes_again_for_an_operation_in_doubt_is_told_as_the_first_was_to_keep_the_key";
    for blocks in BLOCKS {
        let directory = tempfile::tempdir().unwrap();
        without_space::<D>(test, blocks, &directory.path().join("s"));
    }
}
