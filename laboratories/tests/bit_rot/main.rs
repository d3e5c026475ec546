//! A damaged disk makes no store forget a key in silence. The damage is a flipped bit, a page of zeros, a truncated
//! file or two exchanged pages, in each file of a store, after a kill and after a clean close.
//!
//! A workload runs in a process of its own and notes its answers and their times. Its directory is copied, one place of
//! the copy is damaged, and another process opens the copy and asks for some hundreds of the keys again: an engine may
//! panic on such files, or never return. Each acknowledged key must be replayed or refused, or opening must be refused.
//! After a kill, a key may run again if its answer was given about a second before the kill, because the store writes
//! its checkpoint once a second.
//!
//! The long form damages this many places in the files of each kind of one engine; its last line has the figures:
//!
//! ```text
//! ENGINE=sled BIT_ROT=1000 cargo test -p laboratories --test bit_rot makes_no -- --nocapture
//! ```
//!
//! `BIT_ROT_SEED` repeats the places of a run, but not the data that its workloads wrote.
//!
//! The control has an outdated checkpoint: it puts the checkpoint of the store's first opening in its place.
#![cfg(target_os = "linux")]

mod ask;
mod damage;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use laboratories::engine::{ENGINE, Engine};
use serde::{Deserialize, Serialize};
use testkit::Dice;
use testkit::control::violations_with;
use testkit::dice::number;

use ask::Came;
use damage::Place;
use work::Source;

const TEST: &str = "a_damaged_disk_makes_no_store_forget_a_key_in_silence";
/// The variable that makes a run put an outdated checkpoint in place of the store's last one.
const WITHOUT_MARK: &str = "BIT_ROT_WITHOUT_MARK";
/// The variable that names the file with the part of a process of this laboratory, which may be long.
const PART: &str = "BIT_ROT_PART";
const PART_FILE: &str = "part";
/// The number of places that are damaged in the files of each kind of one source.
const PER_SOURCE: usize = 8;
/// The number of processes at a time.
const PROCESSES: usize = 2;
const SHOWN: usize = 20;
/// Where the control damages a file: this many bytes at its end.
const END: usize = 64 << 10;

/// The part of a process that this program starts.
#[derive(Debug, Serialize, Deserialize)]
enum Part {
    Work(work::Plan),
    Ask(ask::Plan),
}

/// Returns a command that starts this program again, for one part, which is kept in `directory`.
fn program(part: &Part, directory: &Path) -> Command {
    let file = directory.join(PART_FILE);
    fs::write(&file, serde_json::to_vec(part).expect("parts are plain")).expect("it can be written");
    let mut command = Command::new(std::env::current_exe().expect("a test knows where it is"));
    command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]);
    command.env(PART, file);
    command
}

/// The figures of a run.
#[derive(Debug, Default)]
struct Figures {
    places: usize,
    in_file: BTreeMap<String, usize>,
    lost: usize,
    not_opened: usize,
    died: usize,
    replayed: usize,
    refused: usize,
    /// The keys that ran again, as they may, and how long before the kill the oldest of their answers was given.
    again: usize,
    oldest: u64,
    /// The errors of refused openings and of processes that died, with their numbers.
    errors: BTreeMap<String, usize>,
    violations: Vec<String>,
}

impl Figures {
    fn add(&mut self, source: &Source, place: &Place, came: Came) {
        self.places += 1;
        *self.in_file.entry(place.kind()).or_default() += 1;
        let mut wrong = Vec::new();
        match came {
            Came::Refused { is_lost, error } => {
                *self.errors.entry(error).or_default() += 1;
                if is_lost {
                    self.lost += 1;
                } else {
                    self.not_opened += 1;
                }
            }
            Came::Died(how) => {
                *self.errors.entry(how).or_default() += 1;
                self.died += 1;
            }
            Came::Hung(how) => wrong.push(how),
            Came::Asked(told) => {
                for (key, told) in told {
                    match source.judge(key, &told) {
                        Ok(None) if told.is_refused() => self.refused += 1,
                        Ok(None) => self.replayed += 1,
                        Ok(Some(age)) => (self.again, self.oldest) = (self.again + 1, self.oldest.max(age)),
                        Err(violation) => wrong.push(violation),
                    }
                }
            }
        }
        for line in wrong {
            let violation = format!("{}, {place}: {line}", source.name());
            if self.violations.len() < SHOWN {
                println!("{violation}");
            }
            self.violations.push(violation);
        }
    }
}

#[test]
fn a_damaged_disk_makes_no_store_forget_a_key_in_silence() {
    if let Some(part) = std::env::var_os(PART) {
        match serde_json::from_slice(&fs::read(part).expect("it is there")).expect("a part") {
            Part::Work(plan) => work::run(plan),
            Part::Ask(plan) => ask::run(plan),
        }
    }
    let places: usize = number("BIT_ROT").unwrap_or(8);
    let seed = number("BIT_ROT_SEED").unwrap_or_else(testkit::dice::seed);
    println!("BIT_ROT_SEED={seed}");
    for engine in Engine::chosen() {
        report(engine, &rot_often(engine, places, seed));
    }
}

/// Damages so many places in the files of each kind.
fn rot_often(engine: Engine, places: usize, seed: u64) -> Figures {
    let (next, figures) = (AtomicUsize::new(0), Mutex::new(Figures::default()));
    // Half of the sources are killed, and half are closed. Of each half, half keep little in memory. The control needs
    // the others: it damages only fjall's journal, and what that loses is seen only if no table has it, too.
    let sources = 2 * places.div_ceil(2 * PER_SOURCE);
    std::thread::scope(|threads| {
        for _ in 0..PROCESSES {
            threads.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= sources {
                        break;
                    }
                    let mut dice = Dice::of(&[seed, number as u64]);
                    let (is_killed, is_small) = (number.is_multiple_of(2), (number / 2).is_multiple_of(2));
                    match Source::make(engine, is_killed, is_small, &mut dice) {
                        Ok(source) => rot(engine, source, places.div_ceil(sources), &mut dice, &figures),
                        Err(violation) => figures.lock().unwrap().violations.push(violation),
                    }
                }
            });
        }
    });
    figures.into_inner().unwrap()
}

/// Returns whether this process is the control: its stores have an outdated checkpoint.
fn is_control() -> bool {
    std::env::var_os(WITHOUT_MARK).is_some()
}

/// Damages the source's files of each kind at `places` places.
fn rot(engine: Engine, mut source: Source, places: usize, dice: &mut Dice, figures: &Mutex<Figures>) {
    if is_control() {
        source.forget_the_mark();
    }
    // Without damage every key is there.
    match source.ask_for_all() {
        Came::Asked(told) => {
            let replayed =
                told.iter().all(|(key, told)| matches!(source.judge(*key, told), Ok(None)) && !told.is_refused());
            assert!(replayed && told.len() > 10, "without damage: {told:?}");
        }
        other => panic!("without damage: {other:?}"),
    }
    // The checkpoint guards only the log, so the control damages only the log.
    let log = match engine {
        Engine::Sled => "db",
        Engine::Fjall => "N.jnl",
    };
    let is_guarded = |kind: &str| !is_control() || kind == log;
    for (_, files) in damage::files(source.image()).into_iter().filter(|(kind, _)| is_guarded(kind)) {
        for number in 0..places {
            // Most damage before the last records shows by itself: records that can be read follow it. So the control
            // damages each kind of place at the end of the file, too.
            let most = if is_control() && number / damage::KINDS % 2 == 1 { END } else { usize::MAX };
            let (place, image) = Place::damage(source.image(), dice.pick(&files), most, number, dice);
            let came = source.ask_for_some(&image, dice);
            let mut figures = figures.lock().unwrap();
            figures.add(&source, &place, came);
            if figures.places.is_multiple_of(100) {
                println!("so far: places {}, violations {}", figures.places, figures.violations.len());
            }
        }
    }
}

fn report(engine: Engine, figures: &Figures) {
    figures.in_file.iter().for_each(|(file, places)| println!("{places} places in {file}"));
    figures.errors.iter().for_each(|(error, times)| println!("{times} times: {error}"));
    let Figures { places, lost, not_opened, died, replayed, refused, again, oldest, violations, .. } = figures;
    println!(
        "bit rot on {engine}: places {places}, of which {lost} were refused as a loss, {not_opened} for another reason, and {died} ended \
         the process; keys replayed {replayed}, refused {refused}, run again as they may {again}, of which the oldest was \
         answered {oldest} ms before the kill; violations {}",
        violations.len()
    );
    assert_eq!(violations.len(), 0);
    // Without the checkpoint no loss is noticed: only the violations count then, and there may be none in one round.
    assert!(is_control() || *lost > 0 && *replayed > 0, "it shows nothing");
}

#[test]
fn without_the_checkpoint_a_damaged_disk_makes_a_store_forget_keys() {
    for engine in Engine::chosen() {
        // The random damage may hit nothing that matters. Then the control damages other places.
        let round = |_| violations_with(TEST, &[(ENGINE, engine.name()), (WITHOUT_MARK, "1"), ("BIT_ROT", "32")]);
        let violations = (0..10).map(round).find(|violations| *violations > 0).unwrap_or(0);
        println!("bit rot on {engine} without the checkpoint: violations {violations}");
        assert!(violations > 0);
    }
}
