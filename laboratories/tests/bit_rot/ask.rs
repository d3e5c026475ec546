//! The process that opens a damaged store and asks for keys again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use laboratories::disk::live;
use laboratories::engine::{Embedded, Engine, Settings};
use laboratories::work::notes::{Note, STORE, Said};
use laboratories::work::operations::Operations;
use laboratories::work::truth::Truth;
use serde::{Deserialize, Serialize};
use tower_idempotency::clock::{ManualClock, Timestamp};
use tower_idempotency::store::OpenError;

use crate::{Part, program};

/// The time that opening and asking may take on a busy machine.
const BOUND: Duration = Duration::from_secs(120);
const CLIENTS: usize = 32;
const CAME: &str = "came";

/// The store, its time, and the keys to ask for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    engine: Engine,
    directory: PathBuf,
    clock: u64,
    keys: Vec<u64>,
}

/// The answer to a retry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) said: Said,
    /// `true` if the handler ran.
    pub(crate) ran: bool,
}

impl Told {
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.said, Said::Refused(_))
    }
}

/// The result of asking.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Came {
    /// The store was not opened.
    Refused { is_lost: bool, error: String },
    /// The store was opened.
    Asked(Vec<(u64, Told)>),
    /// The process died.
    Died(String),
    /// The process did not end.
    Hung(String),
}

/// Opens the store, asks for the keys, and writes the result to a file.
pub(crate) fn run(plan: Plan) -> ! {
    let clock = ManualClock::new(Timestamp::from_millis(plan.clock));
    let settings = Settings { clock: Some(Arc::new(clock)), is_small: true, min_free: Some(0) };
    let came = match plan.engine.open(plan.directory.join(STORE), settings) {
        Ok(store) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(everything(store, &plan.keys))
        }
        Err(error) => {
            let path = plan.directory.display().to_string();
            Came::Refused {
                is_lost: matches!(error, OpenError::Lost { .. }),
                error: general(&error.to_string().replace(&path, "")),
            }
        }
    };
    fs::write(plan.directory.join(CAME), serde_json::to_vec(&came).expect("it is plain")).expect("there is room");
    std::process::exit(0)
}

async fn everything(store: Embedded, keys: &[u64]) -> Came {
    let ran = Arc::<Mutex<HashSet<u64>>>::default();
    let running = Arc::clone(&ran);
    let witness = move |note| {
        if let Note::Began(key) = note {
            running.lock().unwrap().insert(key);
        }
    };
    let operations = Operations::over(store, false, Truth::default(), Arc::new(witness));
    let asked = futures_util::stream::iter(keys).map(|key| async { (*key, operations.ask(*key, false).await) });
    let said: Vec<_> = asked.buffer_unordered(CLIENTS).collect().await;
    let ran = ran.lock().unwrap();
    Came::Asked(said.into_iter().map(|(key, said)| (key, Told { said, ran: ran.contains(&key) })).collect())
}

/// Asks for `keys` in the store under `directory`, in a process of its own.
pub(crate) fn ask(engine: Engine, directory: &Path, clock: u64, keys: Vec<u64>) -> Came {
    let part = Part::Ask(Plan { engine, directory: directory.into(), clock, keys });
    let (status, output) = live(program(&part, directory), directory, BOUND);
    if let Ok(came) = fs::read(directory.join(CAME)) {
        return serde_json::from_slice(&came).expect("it was written whole");
    }
    match status {
        Some(status) => Came::Died(format!("{status}: {}", general(last_words(&output)))),
        None => Came::Hung(format!("it did not end in {BOUND:?}: {}", last_words(&output))),
    }
}

/// Returns the message of the panic in a process's output, or else the whole output.
fn last_words(output: &str) -> &str {
    output.find("panicked at").map_or(output, |at| &output[at..]).trim()
}

/// Returns a text without its numbers, so that the same errors are counted together.
fn general(text: &str) -> String {
    let text: String =
        text.chars().map(|letter| if letter.is_ascii_digit() { '#' } else { letter }).take(170).collect();
    let mut short = String::new();
    text.chars().filter(|letter| *letter != '\n').for_each(|letter| {
        if letter != '#' || !short.ends_with('#') {
            short.push(letter);
        }
    });
    short
}
