//! What the disk laboratories share: programs under the preloaded library, the log of what they did to a directory, and
//! the directory as a power cut would have left it.

use std::path::{Path, PathBuf};
use std::process::Command;

pub mod log;
pub mod rebuild;

/// The preloaded library, which cargo builds beside the test programs.
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

/// Random numbers that come again with the same seed (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by several numbers.
    pub fn of(seeds: &[u64]) -> Self {
        let mut dice = Self(0);
        for seed in seeds {
            dice.0 ^= *seed;
            dice.0 = dice.roll();
        }
        dice
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % (end as u64)).expect("less than a usize")
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// True in so many of a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }
}
