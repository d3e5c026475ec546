//! A disk that hangs. The test takes the watchdog's minute, so it belongs to the long form.

use laboratories::disk::quick_directory;
use laboratories::engine::Engine;
use laboratories::work::notes;
use laboratories::work::notes::{Found, Note};
use laboratories::work::retry::judge;

use crate::points::{From, known, strike, wrong_in};
use crate::process::live;
use crate::scenario::{Act, plan_in};

/// Returns the syncs after those of opening that hang. The very first is not one of them: one opening has a few more
/// than the other. On fjall the next ones are of the keyspaces that the handlers make, so the handlers wait for the
/// disk there, and not the store.
fn syncs(engine: Engine) -> std::ops::Range<u64> {
    match engine {
        Engine::Sled => 8..16,
        Engine::Fjall => 60..68,
    }
}

#[test]
fn a_sync_that_never_returns_shows_in_the_health_and_every_request_is_answered() {
    if std::env::var_os("DISK_FAULTS").is_none_or(|form| form != "all") {
        println!("hanging disk: only in the long form");
        return;
    }
    Engine::chosen().into_iter().for_each(hang_often);
}

fn hang_often(engine: Engine) {
    let calls = strike(engine, None, From::Nothing, 60).notes.iter().find_map(|note| match note {
        Note::Found(Found::Calls(calls)) => Some(*calls),
        _ => None,
    });
    let [_, _, opening] = calls.expect("it was opened");
    let came: Vec<(bool, Vec<String>)> = std::thread::scope(|threads| {
        let hanging: Vec<_> = syncs(engine).map(|n| threads.spawn(move || hang(engine, opening + n))).collect();
        hanging.into_iter().map(|hanging| hanging.join().expect("it does not panic")).collect()
    });
    let (syncs, poisoned) = (came.len(), came.iter().filter(|(poisoned, _)| *poisoned).count());
    let violations: Vec<_> = came.into_iter().flat_map(|(_, wrong)| wrong).collect();
    violations.iter().for_each(|violation| println!("{violation}"));
    println!(
        "hanging disk on {engine}: syncs {syncs}, of which {poisoned} poisoned the store, violations {}",
        violations.len()
    );
    assert!(violations.is_empty() && poisoned > 0);
}

/// Returns whether the store is poisoned when the `n`-th sync hangs, and what is wrong then.
fn hang(engine: Engine, n: u64) -> (bool, Vec<String>) {
    let directory = quick_directory();
    let plan = plan_in(engine, directory.path(), Act::Hang, 100);
    let lived = live(&plan, directory.path(), Some(format!("sync {n} hang")));
    let notes = notes::read_file(&plan.notes);
    let poisoned = notes.iter().any(|note| matches!(note, Note::Found(Found::Poisoned(_))));
    let mut wrong = wrong_in(&notes);
    wrong.extend(lived.err());
    wrong.extend(judge(engine, &plan.data, &known(&notes)));
    (poisoned, wrong.into_iter().map(|line| format!("sync {n}: {line}")).collect())
}
