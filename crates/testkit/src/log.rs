//! Collects the log lines that plain `fmt` writes.
//!
//! One subscriber for the whole process: with one for each test, those that come first to an event without a subscriber
//! may switch it off for the others. Each thread that has begun a log reads its own lines; the others write none.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::sync::Once;
use std::thread::LocalKey;

use tracing::Level;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, FmtSpan, Writer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, fmt, registry};

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static EVERYTHING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The lines of this thread, from the moment of [`begin`](Self::begin) until it is dropped.
pub struct Log {
    level: Level,
}

impl Log {
    /// Takes down what is written on this thread at `level` and above: what the tasks of a test do whose runtime has
    /// one thread.
    pub fn begin(level: Level) -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let lines = fmt::layer().with_ansi(false).without_time().with_writer(|| To(&LINES));
            let lines = lines.with_filter(dynamic_filter_fn(|_, _| IS_ON.get()));
            let everything = fmt::layer().with_ansi(false).with_span_events(FmtSpan::FULL);
            let everything = everything.with_writer(|| To(&EVERYTHING)).fmt_fields(OfItsOwn(DefaultFields::new()));
            let everything = everything.with_filter(dynamic_filter_fn(|_, _| IS_ON.get()));
            let subscriber = registry().with(lines).with(everything);
            tracing::subscriber::set_global_default(subscriber).expect("there is no other");
        });
        LINES.take();
        EVERYTHING.take();
        IS_ON.set(true);
        Self { level }
    }

    /// The lines since the last look.
    pub fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(LINES.take()).expect("the log is text");
        let level = |line: &str| line.split(' ').next().and_then(|level| level.parse::<Level>().ok());
        let lines = text.lines().map(str::trim).filter(|line| level(line).is_some_and(|level| level <= self.level));
        lines.map(str::to_owned).collect()
    }

    /// Everything since the last look, at every level; of spans too.
    pub fn everything(&self) -> String {
        String::from_utf8(EVERYTHING.take()).expect("the log is text")
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        IS_ON.set(false);
    }
}

/// Everything that is logged on this thread, by whomever and however unimportant, while `story` goes on; of spans too.
pub fn logged(story: impl Future<Output = ()>) -> String {
    let log = Log::begin(Level::TRACE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(story);
    log.everything()
}

/// The values of a field in each span of an exchange that was closed, of what [`logged`] returned.
pub fn in_spans(log: &str, field: &str) -> Vec<Vec<String>> {
    let closed = log.lines().filter(|line| line.contains(": close "));
    let fields = closed.filter_map(|line| Some(line.split_once("exchange{")?.1.split_once('}')?.0));
    let field = format!("{field}=");
    let of_field = |text: &str| Some(text.strip_prefix(&field)?.trim_matches('"').to_owned());
    fields.map(|fields| fields.split(' ').filter_map(of_field).collect()).collect()
}

/// The usual form of fields. Two `fmt` layers whose forms have one type write into one buffer, so that each field would
/// be there twice.
struct OfItsOwn(DefaultFields);

impl<'writer> FormatFields<'writer> for OfItsOwn {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        self.0.format_fields(writer, fields)
    }
}

/// Writes to the lines of the current thread.
struct To(&'static LocalKey<RefCell<Vec<u8>>>);

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.with_borrow_mut(|lines| lines.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
