//! The workload, in a process of its own: random operations over two openings of a store. [`Source`] is what it leaves.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use laboratories::disk::content::Content;
use laboratories::disk::quick_directory;
use laboratories::disk::rebuild::{Image, read_image, write_image};
use laboratories::engine::{Engine, Settings};
use laboratories::work::key::RETENTION;
use laboratories::work::notes::{STORE, Said};
use laboratories::work::operations::Operations;
use laboratories::work::truth::Truth;
use serde::{Deserialize, Serialize};
use testkit::Dice;
use testkit::process::ended;
use tower_idempotency::clock::{ManualClock, Timestamp};

use crate::ask::{self, Came, Told};
use crate::{Part, is_control, program};

const START: u64 = 1_000_000_000;
/// The rate of the store's clock relative to the machine's, so that records expire during the workload.
const FASTER: u64 = 2;
/// The time from the start until the workload closes the store for the first time, and its whole time.
const FIRST: Duration = Duration::from_millis(1_500);
const ALL: Duration = Duration::from_millis(6_500);
/// The number of requests at a time.
const CLIENTS: usize = 16;
const KEYS: u64 = 48;
/// The pause after these keys. Several hundred a second are more than are asked for; the rest would only make the files
/// longer that each place of damage copies.
const PAUSE: Duration = Duration::from_millis(50);
/// The time that a process may take on a busy machine.
const BOUND: Duration = Duration::from_secs(180);
/// The time before a kill in which a key's answer may be given if the key runs again: the second between two
/// checkpoints, and the time that a busy machine takes to write one.
const ABOUT_A_SECOND: u64 = 3_000;

/// The number of keys to ask for once a file is damaged: the last ones, which are lost first, and about as many of the
/// others. An engine keeps several records in a block, so each block has some of them.
const ASKED: usize = 300;

/// The names of files next to the store's directory.
const TOLD: &str = "told";
const FIRST_CHECKPOINT: &str = "first-checkpoint";
const CHECKPOINT: &str = "store/tower-idempotency.checkpoint";

/// The directory of the workload, and how it ends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    engine: Engine,
    directory: PathBuf,
    seed: u64,
    closes: bool,
    /// `true` if the store keeps little in memory. Otherwise fjall has all records in its journal only.
    is_small: bool,
    /// `true` if fjall begins another journal, and keeps the first one.
    fills: bool,
}

/// A line of the workload's notes.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// The time on the store's clock, right after this line.
    Clock(u64),
    Told(Answer),
}

/// Writes a line in one call, so that a kill leaves it whole or cuts it off at the end.
fn note(mut notes: &fs::File, line: &Line) {
    let mut line = serde_json::to_string(line).expect("notes are plain");
    line.push('\n');
    notes.write_all(line.as_bytes()).expect("there is room");
}

/// An answer that a client got.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    key: u64,
    outcome: String,
    /// The time of the answer on the store's clock and on the machine's, in milliseconds.
    clock: u64,
    wall: u64,
}

fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
    u64::try_from(now.as_millis()).expect("it fits")
}

/// Works until the process is killed, or closes the store.
pub(crate) fn run(plan: Plan) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(work(plan));
    std::process::exit(0)
}

async fn work(plan: Plan) {
    let began = Instant::now();
    let (clock, mut now) = (ManualClock::new(Timestamp::from_millis(START)), START);
    let told = fs::OpenOptions::new().create(true).append(true).open(plan.directory.join(TOLD)).expect("it is new");
    let path = plan.directory.join(STORE);
    let mut next = plan.seed % (1 << 40);
    for (opening, until) in [FIRST, ALL].into_iter().enumerate() {
        let settings = Settings { clock: Some(Arc::new(clock.clone())), is_small: plan.is_small, min_free: Some(0) };
        let store = plan.engine.open(&path, settings).expect("the disk is sound");
        if opening == 0 {
            fs::copy(plan.directory.join(CHECKPOINT), plan.directory.join(FIRST_CHECKPOINT))
                .expect("a store has a checkpoint");
        }
        if plan.fills && opening == 1 {
            store.fill_journal().expect("the disk is sound");
        }
        let operations = Operations::over(store, false, Truth::default(), Arc::new(|_| ()));
        while began.elapsed() < until || (opening == 1 && !plan.closes) {
            let keys = futures_util::stream::iter(next..next + KEYS);
            let asked = keys.map(|key| {
                let (operations, told) = (&operations, &told);
                async move {
                    let Said::Outcome(outcome) = operations.ask(key, false).await else { panic!("{key} is new") };
                    note(told, &Line::Told(Answer { key, outcome, clock: now, wall: wall() }));
                }
            });
            asked.buffer_unordered(CLIENTS).collect::<Vec<()>>().await;
            next += KEYS;
            tokio::time::sleep(PAUSE).await;
            let later = START + FASTER * u64::try_from(began.elapsed().as_millis()).expect("it fits");
            note(&told, &Line::Clock(later));
            clock.advance(Duration::from_millis(later - now));
            now = later;
        }
        operations.close().await.expect("it can be closed");
    }
}

/// The directory and the answers that a workload has left.
#[derive(Debug)]
pub(crate) struct Source {
    engine: Engine,
    is_killed: bool,
    image: Image,
    first_checkpoint: Content,
    /// The time of the workload's end on the store's clock and on the machine's.
    clock: u64,
    wall: u64,
    answers: BTreeMap<u64, Answer>,
}

impl Source {
    /// Runs a workload to its end. Returns an error if the workload failed.
    pub(crate) fn make(engine: Engine, is_killed: bool, is_small: bool, dice: &mut Dice) -> Result<Self, String> {
        let directory = quick_directory();
        let plan = Plan {
            engine,
            directory: directory.path().into(),
            seed: dice.roll(),
            closes: !is_killed,
            is_small,
            fills: !is_killed && !is_control(),
        };
        let mut command = program(&Part::Work(plan), directory.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it can be started");
        if is_killed {
            let life = ALL + Duration::from_millis(dice.below(1_000) as u64);
            // The workload ends before its time only if it fails.
            if let Some(status) = ended(&mut child, life) {
                return Err(format!("the workload failed: {status}"));
            }
        } else {
            match ended(&mut child, BOUND) {
                Some(status) if status.success() => {}
                other => return Err(format!("the workload failed: {other:?}")),
            }
        }
        let wall = wall();
        let text = fs::read_to_string(directory.path().join(TOLD)).expect("it was told something");
        // A kill may cut off the last line.
        let (mut clock, mut answers) = (START, Vec::new());
        for line in text.lines().map_while(|line| serde_json::from_str::<Line>(line).ok()) {
            match line {
                Line::Clock(later) => clock = later,
                Line::Told(answer) => answers.push(answer),
            }
        }
        let is_kept = |answer: &Answer| answer.clock + RETENTION > clock;
        let answers = answers.into_iter().filter(is_kept).map(|answer| (answer.key, answer)).collect();
        let first_checkpoint = Content::read(&directory.path().join(FIRST_CHECKPOINT)).expect("it was copied");
        let mut image = read_image(directory.path());
        image.retain(|path, _| path == STORE || Path::new(path).starts_with(STORE));
        Ok(Self { engine, is_killed, image, first_checkpoint, clock, wall, answers })
    }

    pub(crate) fn name(&self) -> &'static str {
        if self.is_killed { "killed" } else { "closed" }
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Replaces the last checkpoint with that of the first opening.
    pub(crate) fn forget_the_mark(&mut self) {
        self.image.insert(CHECKPOINT.to_owned(), Some(self.first_checkpoint.clone()));
    }

    /// Starts a process that opens the store without damage, and asks for every key again.
    pub(crate) fn ask_for_all(&self) -> Came {
        self.ask(&self.image, self.answers.keys().copied().collect())
    }

    /// Starts a process that opens `image`, and asks for some of the keys again.
    pub(crate) fn ask_for_some(&self, image: &Image, dice: &mut Dice) -> Came {
        let keys: Vec<u64> = self.answers.keys().copied().collect();
        let (others, last) = keys.split_at(keys.len().saturating_sub(ASKED));
        let others = others.iter().filter(|_| dice.below(others.len()) < ASKED);
        self.ask(image, others.chain(last).copied().collect())
    }

    fn ask(&self, image: &Image, keys: Vec<u64>) -> Came {
        let directory = quick_directory();
        write_image(image, directory.path());
        ask::ask(self.engine, directory.path(), self.clock, keys)
    }

    /// Returns how many milliseconds before the kill a key was answered that ran again, or `None` if it did not run.
    /// Returns an error if the key must not run again.
    pub(crate) fn judge(&self, key: u64, told: &Told) -> Result<Option<u64>, String> {
        let Answer { outcome, wall, .. } = &self.answers[&key];
        let age = self.wall.saturating_sub(*wall);
        if told.ran {
            let may_run = self.is_killed && age < ABOUT_A_SECOND;
            return may_run.then_some(Some(age)).ok_or(format!("{key} ran again, {age} ms after its answer"));
        }
        match &told.said {
            Said::Outcome(again) if again != outcome => Err(format!("{key} was told {again}, after {outcome}")),
            Said::Freed => Err(format!("{key} was told that nothing happened")),
            _ => Ok(None),
        }
    }
}
