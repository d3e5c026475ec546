//! The lines of the log: a thread writes them. A line that can't be written must not stop or delay the server: a pipe
//! without a reader is full after a while.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The most lines that wait to be written. Others are dropped.
const MOST_WAITING: usize = 128_000;
/// The time that the last lines may take.
const LAST: Duration = Duration::from_secs(1);

/// Queues each line for the thread.
#[derive(Clone)]
pub(crate) struct Lines(SyncSender<Line>);

enum Line {
    Text(Vec<u8>),
    /// All lines before this one are written.
    Last(SyncSender<()>),
}

/// What the end of the process waits for.
pub(crate) struct Written(Lines);

impl Lines {
    /// Starts the thread.
    pub(crate) fn to_stderr() -> (Self, Written) {
        let (lines, waiting) = sync_channel(MOST_WAITING);
        thread::spawn(move || write(&waiting));
        (Self(lines.clone()), Written(Self(lines)))
    }
}

fn write(waiting: &Receiver<Line>) {
    let mut stderr = io::stderr();
    // This ignores errors: a server that can't log still serves.
    while let Ok(line) = waiting.recv() {
        match line {
            Line::Text(text) => drop(stderr.write_all(&text)),
            Line::Last(written) => drop(written.send(())),
        }
    }
}

impl Written {
    /// Waits until the lines so far are written, and no longer than a second.
    pub(crate) fn wait(self) {
        let (written, all) = sync_channel(1);
        if self.0.0.try_send(Line::Last(written)).is_ok() {
            let _ = all.recv_timeout(LAST);
        }
    }
}

impl Write for Lines {
    /// Takes one line: `tracing_subscriber` writes each with one call.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match self.0.try_send(Line::Text(text.to_vec())) {
            Ok(()) | Err(TrySendError::Full(_)) => Ok(text.len()),
            Err(TrySendError::Disconnected(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
