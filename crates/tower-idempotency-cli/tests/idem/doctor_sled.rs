//! `idem doctor` over sled directories: good ones, and broken ones.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::skipped;
use tower_idempotency::SledStore;

use crate::program::{Said, idem, json, program, run};
use crate::service::{Closed, Service};

/// The sentence that the guide promises for a result.
pub(crate) fn sentence(result: &str) -> &'static str {
    let page = include_str!("../../../../docs/running/idem.md");
    let row = page.lines().find(|line| line.starts_with(&format!("| `{result}` | "))).unwrap();
    row.rsplit(" | ").next().unwrap().trim_end_matches(" |")
}

/// It ends with the sentence for the result, and its code.
pub(crate) fn assert_ends(said: &Said, code: i32, result: &str) {
    assert_eq!((said.code, said.last_line()), (code, sentence(result)), "{}", said.all());
}

/// What was checked, line by line.
pub(crate) fn checks_of(said: &Said) -> Vec<&str> {
    let lines = said.stdout.lines().take_while(|line| !line.is_empty());
    lines.map(|line| line.get(9..22).unwrap_or(line).trim_end()).collect()
}

/// The result that a good directory has on this machine: on a container's own layer, not all can be tested.
fn assert_good(said: &Said) {
    let result = if said.last_line() == sentence("unclear") { "unclear" } else { "one-copy" };
    assert_ends(said, 0, result);
    assert!(!said.stdout.contains("BAD"), "{}", said.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_directory_is_found_good_and_stays_as_it_was() {
    let closed = Closed::after(&[("/done", "k1", "paid"), ("/unsure", "k2", "")]).await;
    let before = json(0, &["ls", &closed.name()]);
    let said = idem(&["doctor", &closed.name()]);
    assert_good(&said);
    let checks = [
        "release", "rights", "file system", "syncs", "syncs", "clock", "copies", "open", "space", "claim twice",
        "lost answer",
    ];
    assert_eq!(checks_of(&said), checks);
    // An empty list of libraries is none.
    let mut unloaded = program(&["doctor", &closed.name()]);
    unloaded.env("LD_PRELOAD", " ");
    let unloaded = run(unloaded, "");
    assert!(unloaded.code == 0 && !unloaded.stdout.contains("is loaded before the C library"), "{unloaded:?}");
    let after = json(0, &["ls", &closed.name()]);
    let states = |listed: &serde_json::Value| {
        let operations = listed["operations"].as_array().unwrap().iter();
        operations.map(|one| (one["id"].clone(), one["state"].clone(), one["fence"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(states(&before), states(&after));
    assert!(!closed.path().join("idem-doctor.probe").exists());
    let value = json(0, &["doctor", &closed.name()]);
    assert_eq!(value["sentence"], said.last_line());
    let named: Vec<_> = value["checks"].as_array().unwrap().iter().map(|one| one["check"].as_str().unwrap()).collect();
    assert_eq!(named, checks);
    let release = serde_json::json!({ "check": "release", "result": "note", "found": "idem 0.1.0" });
    assert!(value["checks"][0] == release && value["result"].is_string(), "{value:#}");
}

/// A library before the C library that lets `fdatasync` succeed without doing anything.
fn lying(directory: &Path) -> Command {
    let library = std::env::current_exe().unwrap().with_file_name("libdisk_preload.so");
    assert!(library.exists(), "{} is not there", library.display());
    let mut command = program(&["doctor".as_ref(), directory.as_os_str()]);
    let directory = directory.canonicalize().unwrap();
    command.env("LD_PRELOAD", library).env("DISK_PRELOAD_DIRECTORY", directory).env("DISK_PRELOAD_LIE", "fdatasync");
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_whose_syncs_do_nothing_is_found_out() {
    let closed = Closed::after(&[("/done", "k1", "paid")]).await;
    let said = run(lying(closed.path()), "");
    assert!(said.stdout.contains("syncs do nothing"), "{}", said.all());
    assert_ends(&said, 1, "not-durable");
    // The library alone, telling the truth, is no fault.
    let mut honest = lying(closed.path());
    honest.env_remove("DISK_PRELOAD_LIE");
    assert_ends(&run(honest, ""), 0, "unclear");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_memory_is_found_out() {
    const MEMORY: &str = "/dev/shm";
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if !mounts.lines().any(|line| line.contains(&format!(" {MEMORY} ")) && line.contains(" - tmpfs ")) {
        return skipped("a directory in memory", "/dev/shm is not in memory");
    }
    let directory = tempfile::tempdir_in(MEMORY).unwrap();
    drop(Service::over(SledStore::open(directory.path()).unwrap()));
    let said = idem(&["doctor", directory.path().to_str().unwrap()]);
    assert!(said.stdout.contains("in memory"), "{}", said.all());
    assert_ends(&said, 1, "not-durable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_has_lost_records_is_found_out() {
    let closed = Closed::after(&[("/done", "k1", "paid")]).await;
    // An older copy of the database under the checkpoint of a later one.
    let older: Vec<_> = fs::read_dir(closed.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let older: Vec<_> =
        older.into_iter().filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    closed.served(async |service, _| service.send("/done", "k2", "paid").await).await;
    for (path, bytes) in older.iter().filter(|(path, _)| !path.ends_with("tower-idempotency.checkpoint")) {
        fs::write(path, bytes).unwrap();
    }
    for entry in fs::read_dir(closed.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !older.iter().any(|(known, _)| *known == path) {
            fs::remove_file(path).unwrap();
        }
    }
    assert_ends(&idem(&["doctor", &closed.name()]), 1, "damaged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_in_use_or_is_none_is_not_tested() {
    let closed = Closed::after(&[]).await;
    closed.served(async |_, _| assert_ends(&idem(&["doctor", &closed.name()]), 3, "not-tested")).await;
    let foreign = crate::service::directory();
    fs::write(foreign.path().join("file"), "").unwrap();
    assert_ends(&idem(&["doctor", foreign.path().to_str().unwrap()]), 3, "not-tested");
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 1, "nothing is written there");
}
