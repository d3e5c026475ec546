//! What the disk laboratories share: programs under the preloaded library, the log of what they did to a directory, and
//! the directory as a power cut would have left it.

use std::path::{Path, PathBuf};
use std::process::Command;

pub mod log;
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

/// The variable that says, in a control, what the preloaded library takes for done without doing it.
pub const LIE: &str = "DISK_PRELOAD_LIE";

/// What the preloaded library has counted.
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

/// A directory in memory where there is one, so that thousands of them can be made and synced.
pub fn quick_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}
