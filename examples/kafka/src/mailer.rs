//! A mail server, which outlives the consumers: a file to which each mail is appended.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

/// How long it takes to send a mail: half of it before the mail is out, and half after.
const SENDS_WITHIN: Duration = Duration::from_millis(6);

/// A mail server, which sends what it gets as often as it gets it.
#[derive(Debug, Clone)]
pub(crate) struct Mailer {
    file: PathBuf,
}

impl Mailer {
    pub(crate) fn of(directory: &Path) -> Self {
        Self { file: directory.join("mails") }
    }

    /// Sends a mail, under a key by which it can be looked up.
    pub(crate) async fn send(&self, text: &[u8], key: &str) -> io::Result<()> {
        let line = format!("{key} {}\n", String::from_utf8_lossy(text));
        sleep(SENDS_WITHIN / 2).await;
        OpenOptions::new().create(true).append(true).open(&self.file)?.write_all(line.as_bytes())?;
        sleep(SENDS_WITHIN / 2).await;
        Ok(())
    }

    /// Whether a mail was sent under this key.
    pub(crate) fn has_sent(&self, key: &str) -> bool {
        self.lines().lines().any(|line| line.split(' ').next() == Some(key))
    }

    /// How often each text was sent.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (_, text) in self.lines().lines().filter_map(|line| line.split_once(' ')) {
            *counts.entry(text.to_owned()).or_default() += 1;
        }
        counts
    }

    fn lines(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }
}
