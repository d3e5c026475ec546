//! The store says nothing false when the disk fails. Each write, each change of a name and each sync of a scenario
//! fails in turn, once or from then on, with "no space" or "I/O error". Those of opening fail too.
//!
//! Then the process ends by itself, and its answers agree with its store's health. After a start with a sound disk,
//! every acknowledged key is there and nothing has run twice. The kernel may drop what it failed to write, so the test
//! checks the same in the directory that a power cut would have left.
//!
//! The long form takes every point of one engine; its last line has the figures:
//!
//! ```text
//! ENGINE=sled DISK_FAULTS=all cargo test -p laboratories --test disk_faults -- --nocapture
//! ```
//!
//! The short form takes some of the points, and a quarter of those of opening: other ones in each run, unless
//! `DISK_FAULTS_SEED` repeats those of a run.
//!
//! The control has a disk that leaves out the same writes and syncs without an error.
#![cfg(target_os = "linux")]

mod cast;
mod full;
mod hang;
mod judging;
mod points;
mod process;
mod scenario;
mod worker;

use std::sync::Mutex;

use laboratories::disk::LIE;
use laboratories::engine::{ENGINE, Engine};
use laboratories::work::notes::{Found, Note};
use testkit::control::violations_with;
use testkit::dice::number as chosen;

use points::{Came, From, MODES, Point, strike};

const TEST: &str = "a_disk_that_fails_at_any_point_makes_nothing_false";
/// The number of processes at a time: most of them wait.
const PROCESSES: usize = 4;
/// The number of points of the short form in each mode, without those of opening.
const SAMPLES: u64 = 3;
/// The short form takes one of so many points of opening.
const OPENING: u64 = 4;
const SHOWN: usize = 20;

/// The figures of all points.
#[derive(Debug, Default)]
struct Figures {
    points: usize,
    opening: usize,
    struck: usize,
    not_opened: usize,
    poisoned: usize,
    stuck: usize,
    acknowledged: usize,
    /// The errors of opening that don't say what to do.
    unhelpful: Vec<String>,
    violations: Vec<String>,
}

impl Figures {
    fn add(&mut self, point: &Point, came: Came) {
        self.points += 1;
        self.opening += usize::from(!came.found(|found| matches!(found, Found::Calls(_))));
        self.struck += usize::from(came.counts.struck > 0);
        self.not_opened += usize::from(came.found(|found| matches!(found, Found::NotOpened(_))));
        self.poisoned += usize::from(came.found(|found| matches!(found, Found::Poisoned(_))));
        self.stuck += usize::from(came.found(|found| matches!(found, Found::Stuck)));
        self.acknowledged += came.acknowledged;
        self.unhelpful.extend(came.unhelpful().map(|error| format!("{point:?}: {error}")));
        self.violations.extend(came.wrong.into_iter().map(|line| format!("{point:?}: {line}")));
    }
}

#[test]
fn a_disk_that_fails_at_any_point_makes_nothing_false() {
    if let Some(plan) = scenario::plan() {
        scenario::run(plan);
    }
    if let Some(case) = judging::case() {
        judging::run(&case);
    }
    let form = std::env::var("DISK_FAULTS").unwrap_or_default();
    let all = form == "all";
    for engine in Engine::chosen() {
        let figures = strike_often(engine, all, if form == "half" { 2 } else { 1 });
        report(engine, &figures);
        // The short form does not wait for the watchdog's minute.
        assert!(!all || figures.stuck == 0, "every request is answered");
    }
}

/// Lets the disk fail at all points, or at some of them: at one in `of`.
fn strike_often(engine: Engine, all: bool, of: usize) -> Figures {
    let points = Mutex::new(points_of(engine, all).into_iter().step_by(of).collect::<Vec<_>>());
    let figures = Mutex::new(Figures::default());
    std::thread::scope(|threads| {
        for _ in 0..PROCESSES {
            threads.spawn(|| {
                loop {
                    let Some(point) = points.lock().unwrap().pop() else { break };
                    let came = strike(engine, Some(point), point.from, if all { 90 } else { 8 });
                    figures.lock().unwrap().add(&point, came);
                }
            });
        }
    });
    figures.into_inner().unwrap()
}

/// Returns every point, or some of them.
fn points_of(engine: Engine, all: bool) -> Vec<Point> {
    let (mut points, modes) = (Vec::new(), MODES.len() as u64);
    let seed = chosen("DISK_FAULTS_SEED").unwrap_or_else(testkit::dice::seed);
    println!("DISK_FAULTS_SEED={seed}");
    for from in [From::Nothing, From::Something] {
        let came = strike(engine, None, from, 60);
        assert!(came.wrong.is_empty(), "without a fault: {:#?}", came.wrong);
        let opening = came.notes.iter().find_map(|note| match note {
            Note::Found(Found::Calls(calls)) => Some(*calls),
            _ => None,
        });
        let opening = opening.expect("it was opened");
        for (number, mode) in MODES.into_iter().enumerate() {
            let (opened, last) = (mode.reaches(opening), mode.reaches(came.counts.calls));
            assert!(0 < opened && opened < last, "{mode:?}: {opened} points of opening, {last} in all");
            let taken = |n: &u64| {
                // In the short form, a point fails in one of the ways.
                let samples = (last - opened).div_ceil(SAMPLES);
                all || if *n <= opened {
                    n % modes == number as u64 && (n / modes + seed % OPENING).is_multiple_of(OPENING)
                } else {
                    (n - opened + seed % samples).is_multiple_of(samples)
                }
            };
            points.extend((1..=last).filter(taken).map(|n| Point { from, mode, n }));
        }
    }
    points
}

fn report(engine: Engine, figures: &Figures) {
    let Figures { points, opening, struck, not_opened, poisoned, stuck, acknowledged, unhelpful, violations } = figures;
    unhelpful.iter().take(SHOWN).for_each(|error| println!("it does not say what to do: {error}"));
    violations.iter().take(SHOWN).for_each(|violation| println!("{violation}"));
    let count = violations.len();
    println!(
        "disk faults on {engine}: fault points {points}, of which {opening} while opening; struck {struck}; not opened {not_opened} \
         ({} without saying what to do), poisoned {poisoned}, stuck {stuck}; acknowledged keys {acknowledged}, \
         violations {count}",
        unhelpful.len()
    );
    assert_eq!(count, 0);
    assert_eq!(unhelpful.len(), 0, "an error of opening says what to do");
    // The engine's own threads may do a little less in one run than in the other.
    assert!(struck * 10 >= points * 9 && *opening > 0 && *poisoned > 0 && *acknowledged > 0, "it shows nothing");
}

#[test]
fn where_nobody_is_told_of_failures_a_disk_loses_answers() {
    for engine in Engine::chosen() {
        let half = [(ENGINE, engine.name()), (LIE, "faults"), ("DISK_FAULTS", "half")];
        // Which points fail is drawn anew each time, and at few of fjall's an answer is lost.
        let violations = (0..5).map(|_| violations_with(TEST, &half)).find(|violations| *violations > 0);
        println!("disk faults on {engine} without an error: violations {violations:?}");
        assert!(violations.is_some());
    }
}
