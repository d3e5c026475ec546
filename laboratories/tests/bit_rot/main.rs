//! A damaged disk makes no store forget a key in silence: a flipped bit, a page of zeros, a truncated file or
//! two pages that are exchanged, in each file of a store, after a kill and after a clean close.
//!
//! A workload runs in a process of its own, and notes its answers and their times. Its directory is copied, one place
//! of the copy is damaged, and another process opens it and asks for every key again: sled may panic on such files, or
//! never return. What has to hold: an acknowledged key is replayed or refused, or opening is refused. After a kill, a
//! key may run again if its answer was given about a second before the kill, because the store's mark is written once a
//! second.
//!
//! The long form, with so many places in each file; its last line has the figures:
//!
//! ```text
//! BIT_ROT=1000 cargo test -p laboratories --test bit_rot -- --nocapture
//! ```
//!
//! `BIT_ROT_SEED` repeats the places of a run, but not what its workloads wrote.
//!
//! The control has no mark that says anything: the one of the store's first opening is put in its place.
#![cfg(target_os = "linux")]

mod ask;
mod damage;
mod work;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use testkit::Dice;
use testkit::control::violations_with;

use ask::Came;
use damage::Place;
use work::Source;

const TEST: &str = "a_damaged_disk_makes_no_store_forget_a_key_in_silence";
/// The variable that says that there is to be no mark that says anything.
const WITHOUT_MARK: &str = "BIT_ROT_WITHOUT_MARK";
/// The variable that holds the part of a process of this laboratory.
const PART: &str = "BIT_ROT_PART";
/// How many places are damaged in each file of one source.
const PER_SOURCE: usize = 10;
/// Processes at a time.
const PROCESSES: usize = 2;
const SHOWN: usize = 20;

/// What a process does that this program starts.
#[derive(Debug, Serialize, Deserialize)]
enum Part {
    Work(work::Plan),
    Ask(ask::Plan),
}

/// This program once more, for one part.
fn program(part: &Part) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test knows where it is"));
    command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]);
    command.env(PART, serde_json::to_string(part).expect("parts are plain"));
    command
}

/// What it has come to.
#[derive(Debug, Default)]
struct Figures {
    places: usize,
    in_file: BTreeMap<String, usize>,
    lost: usize,
    not_opened: usize,
    died: usize,
    replayed: usize,
    refused: usize,
    /// Keys that ran again, as they may, and how long before the kill the oldest of their answers was given.
    again: usize,
    oldest: u64,
    /// How openings were refused, or processes died.
    errors: BTreeMap<String, usize>,
    violations: Vec<String>,
}

impl Figures {
    fn add(&mut self, source: &Source, place: &Place, came: Came) {
        self.places += 1;
        *self.in_file.entry(place.file_name()).or_default() += 1;
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
    if let Ok(part) = std::env::var(PART) {
        match serde_json::from_str(&part).expect("a part") {
            Part::Work(plan) => work::run(plan),
            Part::Ask(plan) => ask::run(plan),
        }
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let places = usize::try_from(number("BIT_ROT").unwrap_or(12)).unwrap();
    let seed = number("BIT_ROT_SEED").unwrap_or_else(testkit::dice::seed);
    println!("BIT_ROT_SEED={seed}");
    let (next, figures) = (AtomicUsize::new(0), Mutex::new(Figures::default()));
    // As many of a kill as of a clean close.
    let sources = 2 * places.div_ceil(2 * PER_SOURCE);
    std::thread::scope(|threads| {
        for _ in 0..PROCESSES {
            threads.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= sources {
                        break;
                    }
                    rot(
                        number.is_multiple_of(2),
                        places.div_ceil(sources),
                        &mut Dice::of(&[seed, number as u64]),
                        &figures,
                    );
                }
            });
        }
    });
    report(&figures.into_inner().unwrap());
}

/// Makes a source, and damages each of its files at so many places.
fn rot(is_killed: bool, places: usize, dice: &mut Dice, figures: &Mutex<Figures>) {
    let mut source = match Source::make(is_killed, dice) {
        Ok(source) => source,
        Err(violation) => return figures.lock().unwrap().violations.push(violation),
    };
    if std::env::var_os(WITHOUT_MARK).is_some() {
        source.forget_the_mark();
    }
    // Without damage everything is there.
    match source.ask(source.image()) {
        Came::Asked(told) => {
            let replayed =
                told.iter().all(|(key, told)| matches!(source.judge(*key, told), Ok(None)) && !told.is_refused());
            assert!(replayed && told.len() > 10, "without damage: {told:?}");
        }
        other => panic!("without damage: {other:?}"),
    }
    // Of the files, the mark guards the log.
    let is_guarded = |file: &&str| std::env::var_os(WITHOUT_MARK).is_none() || file.ends_with("/db");
    for file in damage::files(source.image()).filter(is_guarded) {
        for number in 0..places {
            let (place, image) = Place::damage(source.image(), file, number, dice);
            let came = source.ask(&image);
            let mut figures = figures.lock().unwrap();
            figures.add(&source, &place, came);
            if figures.places.is_multiple_of(100) {
                println!("so far: places {}, violations {}", figures.places, figures.violations.len());
            }
        }
    }
}

fn report(figures: &Figures) {
    figures.in_file.iter().for_each(|(file, places)| println!("{places} places in {file}"));
    figures.errors.iter().for_each(|(error, times)| println!("{times} times: {error}"));
    let Figures { places, lost, not_opened, died, replayed, refused, again, oldest, violations, .. } = figures;
    println!(
        "bit rot: places {places}, of which {lost} were refused as a loss, {not_opened} for another reason, and {died} ended \
         the process; keys replayed {replayed}, refused {refused}, run again as they may {again}, of which the oldest was \
         answered {oldest} ms before the kill; violations {}",
        violations.len()
    );
    assert_eq!(violations.len(), 0);
    assert!(*lost > 0 && *replayed > 0, "it shows nothing");
}

#[test]
fn without_the_mark_a_damaged_disk_makes_a_store_forget_keys() {
    // What was damaged at random may have been of no account. Then other places are.
    let round = |_| violations_with(TEST, &[(WITHOUT_MARK, "1"), ("BIT_ROT", "40")]);
    let violations = (0..4).map(round).find(|violations| *violations > 0).unwrap_or(0);
    println!("bit rot without the mark: violations {violations}");
    assert!(violations > 0);
}
