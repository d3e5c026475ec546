//! The judging of a directory, in a process of its own: an engine may end the process that opens what a lying disk has
//! left.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use laboratories::disk::rebuild::{Image, write_image};
use laboratories::disk::{live, quick_directory};
use laboratories::engine::Engine;
use laboratories::work::notes::Note;
use laboratories::work::retry::judge;
use serde::{Deserialize, Serialize};

use crate::TEST;
use crate::points::known;

/// The variable that holds the path of a case.
const CASE: &str = "DISK_FAULTS_CASE";
/// The time that judging may take on a busy machine.
const BOUND: Duration = Duration::from_secs(120);

/// A directory, and what happened there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    engine: Engine,
    directory: PathBuf,
    notes: Vec<Note>,
}

/// Returns the case if this process is to judge one.
pub(crate) fn case() -> Option<Case> {
    let path = std::env::var_os(CASE)?;
    let case = std::fs::read(path).expect("the case is there");
    Some(serde_json::from_slice(&case).expect("a case"))
}

/// Judges the case, and ends the process.
pub(crate) fn run(case: &Case) -> ! {
    let wrong = judge(case.engine, &case.directory, &known(&case.notes));
    let wrong = serde_json::to_vec(&wrong).expect("they are texts");
    std::fs::write(case.directory.join("wrong"), wrong).expect("there is room");
    std::process::exit(0)
}

/// Returns the violations in a directory after a power cut.
pub(crate) fn judged_image(engine: Engine, image: &Image, notes: &[Note]) -> Vec<String> {
    let directory = quick_directory();
    write_image(image, directory.path());
    judged(engine, directory.path(), notes)
}

/// Returns the violations in the store in `directory`.
pub(crate) fn judged(engine: Engine, directory: &Path, notes: &[Note]) -> Vec<String> {
    let case = Case { engine, directory: directory.into(), notes: notes.to_vec() };
    let path = directory.join("case");
    std::fs::write(&path, serde_json::to_vec(&case).expect("cases are plain")).expect("there is room");
    let mut command = Command::new(std::env::current_exe().expect("a test knows where it is"));
    command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]).env(CASE, path);
    let (status, output) = live(command, directory, BOUND);
    match std::fs::read(directory.join("wrong")) {
        Ok(wrong) => serde_json::from_slice(&wrong).expect("it was written whole"),
        Err(_) => vec![format!("the process that opens it ended with {status:?}: {output}")],
    }
}
