//! The disk of the disk laboratories: programs under the preloaded library, the log of their changes of a directory,
//! and the directory as a power cut would have left it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use testkit::process::ended;

pub mod content;
pub mod log;
mod names;
pub mod rebuild;

/// The preloaded library, which cargo builds next to the test programs.
pub fn preload() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let library = test.with_file_name("libdisk_preload.so");
    assert!(library.exists(), "{} is not there; `cargo test` builds it", library.display());
    library
}

/// This test program once more, for one test, under the preloaded library that looks at `directory`.
pub fn this_program(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test knows where it is"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let directory = directory.canonicalize().expect("the directory is there");
    command.env("LD_PRELOAD", preload()).env("DISK_PRELOAD_DIRECTORY", directory);
    command.env_remove("DISK_PRELOAD_LOG").env_remove("DISK_PRELOAD_FAULT").env_remove("DISK_PRELOAD_COUNT");
    command
}

/// Runs a program to its end, and returns its output, which is kept in a file in `directory`. `None`: it did not end
/// within `bound`, and was killed.
pub fn live(mut program: Command, directory: &Path, bound: Duration) -> (Option<ExitStatus>, String) {
    let path = directory.join("output");
    let output = File::create(&path).expect("it can be made");
    let errors = output.try_clone().expect("it can be shared");
    let mut child = program.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().expect("it can be started");
    let status = ended(&mut child, bound);
    (status, std::fs::read_to_string(path).unwrap_or_default())
}

/// The variable that names, in a control, the calls that the preloaded library lets succeed without doing their work.
pub const LIE: &str = "DISK_PRELOAD_LIE";

/// The counts of the preloaded library.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Calls that could have failed: writes, changes of names, syncs.
    pub calls: [u64; 3],
    /// Calls that failed, or hang, on command.
    pub struck: u64,
    /// Calls that read.
    pub reads: u64,
}

/// Reads the file of counts.
pub fn counts(path: &Path) -> Counts {
    let bytes = std::fs::read(path).unwrap_or_default();
    let number = |index: usize| bytes.get(index * 8..index * 8 + 8).map_or(0, number_of);
    Counts { calls: [number(0), number(1), number(2)], struck: number(3), reads: number(4) }
}

fn number_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

/// A directory in memory if possible, so that thousands of them can be made and synced.
pub fn quick_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}
