//! What the consumers' process notes for its parent, which kills it: a line for each event.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A file of notes, which outlives the process.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    file: PathBuf,
}

impl Notes {
    pub(crate) fn of(directory: &Path) -> Self {
        Self { file: directory.join("notes") }
    }

    /// An order is delivered.
    pub(crate) fn delivered(&self, partition: i32, offset: i64) {
        self.note(&format!("delivered {partition} {offset}"));
    }

    /// A commit of offsets fails.
    pub(crate) fn commit_lost(&self) {
        self.note("commit lost");
    }

    /// Partitions are revoked while their consumer works.
    pub(crate) fn revoked(&self) {
        self.note("revoked");
    }

    pub(crate) fn deliveries(&self) -> usize {
        self.count("delivered")
    }

    /// Deliveries of a record that was delivered before.
    pub(crate) fn redelivered(&self) -> usize {
        let (text, mut records) = (self.text(), BTreeSet::new());
        text.lines().filter(|line| line.starts_with("delivered") && !records.insert(*line)).count()
    }

    pub(crate) fn commits_lost(&self) -> usize {
        self.count("commit lost")
    }

    pub(crate) fn revocations(&self) -> usize {
        self.count("revoked")
    }

    fn note(&self, line: &str) {
        let file = OpenOptions::new().create(true).append(true).open(&self.file);
        // What is not noted is not counted.
        let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }

    fn count(&self, what: &str) -> usize {
        self.text().lines().filter(|line| line.starts_with(what)).count()
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }
}
