//! What plain `fmt` writes, taken down.
//!
//! One subscriber for the whole process: with one for each test, those that come first to an event without a subscriber
//! may switch it off for the others. Each thread reads its own lines.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Once;

use tracing::Level;

thread_local! { static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) }; }

/// The lines of this thread, from the moment of [`begin`](Self::begin).
pub struct Log {
    level: Level,
}

impl Log {
    /// Takes down what is written on this thread at `level` and above: what the tasks of a test do whose runtime has one
    /// thread.
    pub fn begin(level: Level) -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let subscriber = tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_ansi(false).without_time();
            let subscriber = subscriber.with_writer(|| Writer).finish();
            tracing::subscriber::set_global_default(subscriber).expect("there is no other");
        });
        let log = Self { level };
        log.lines();
        log
    }

    /// The lines since the last look.
    pub fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(LINES.take()).expect("the log is text");
        let level = |line: &str| line.split(' ').next().and_then(|level| level.parse::<Level>().ok());
        let lines = text.lines().map(str::trim).filter(|line| level(line).is_some_and(|level| level <= self.level));
        lines.map(str::to_owned).collect()
    }
}

struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
