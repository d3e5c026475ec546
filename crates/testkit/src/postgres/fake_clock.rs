//! A wall clock of their own for processes of a test's, by the library of faketime.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// A clock that is right at first, and the file that sets it. Monotonic clocks are not changed.
#[derive(Debug, Clone)]
pub struct FakeClock {
    library: PathBuf,
    file: PathBuf,
}

impl FakeClock {
    /// In this directory. An error says what is missing.
    pub fn new(directory: &Path) -> Result<Self, String> {
        let clock = Self { library: library()?, file: directory.join("clock") };
        clock.set(0);
        Ok(clock)
    }

    /// Sets the clock of all its processes so many seconds ahead of the machine's, or behind it.
    pub fn set(&self, ahead: i64) {
        // A process never reads half of it.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{ahead:+}\n")).expect("it can be written");
        fs::rename(new, &self.file).expect("it can be replaced");
    }

    /// The command before a program's that gives it this clock.
    pub fn wrapper(&self) -> Vec<OsString> {
        let preload = format!("LD_PRELOAD={}", self.library.display());
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display());
        // Shared memory is what a killed process would leave.
        let fixed = [
            "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "FAKETIME_DISABLE_SHM=1",
        ];
        let fixed = fixed.map(str::to_owned);
        ["env".to_owned(), preload, file].into_iter().chain(fixed).map(OsString::from).collect()
    }
}

/// The library, where Debian and others have it.
fn library() -> Result<PathBuf, String> {
    let places = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut libraries = places.chain(["/usr/lib".into(), "/usr/lib64".into(), "/usr/local/lib".into()]);
    let library = |place: PathBuf| Some(place.join("faketime/libfaketime.so.1")).filter(|library| library.is_file());
    libraries.find_map(library).ok_or_else(|| "the library of faketime is missing".to_owned())
}
