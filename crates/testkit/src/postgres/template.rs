//! The cluster of which new servers have a copy. `initdb` takes a second of processor time, and a copy a tenth of that.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Waits until the standard input ends, which it does when the test's process ends in any way.
const GUARD: &str = r#"
trap '' INT TERM HUP
read -r _
rm -rf "$DIRECTORY"
"#;

/// A cluster that no server has. It goes with the process.
#[derive(Debug)]
pub(super) struct Template {
    directory: PathBuf,
    /// It deletes the directory once its standard input is closed.
    _guard: Child,
}

impl Template {
    /// Makes a directory, and lets `fill` make the cluster in it, as `data`.
    pub(super) fn new(fill: impl FnOnce(&Path)) -> Self {
        let directory = TempDir::with_prefix("postgres-template").expect("a temporary directory").keep();
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).env("DIRECTORY", &directory);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let this = Self { directory, _guard: guard.spawn().expect("a shell is there") };
        fill(&this.directory);
        this
    }

    /// The directory of the cluster.
    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }
}
