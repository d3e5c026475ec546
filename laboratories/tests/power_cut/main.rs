//! A power cut loses nothing that was said: the store is opened again as it would be if only what was synced had
//! survived, and of the rest whatever chance left.
//!
//! A workload runs in processes of its own, under a preloaded library that records every change of the store's
//! directory, every sync, and the answers that clients got, in one order. Its end, and a random choice of moments
//! before it, is taken for a power cut: `src/disk/rebuild.rs` says what is left then. One of these moments begins the
//! next recording, so that what a power cut left is worked on, and cut again. What has to hold is in `standing.rs` and
//! in the history checker; and `order.rs` looks, without any luck, for space that was used again too early.
//!
//! The long form; its last line has the figures:
//!
//! ```text
//! POWER_CUTS=5000 cargo test -p laboratories --test power_cut -- --nocapture
//! ```
//!
//! `POWER_CUT_SEED` repeats the random choices of a run, whose seed it prints; the order of a workload's threads is not
//! one of them. So what is left of a power cut that shows a violation is kept, and the line says where.
//!
//! The control has a disk on which `fdatasync` succeeds and does nothing.
#![cfg(target_os = "linux")]

mod checker;
mod order;
mod recording;
mod workload;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use laboratories::disk::LIE;
use laboratories::disk::log::Event;
use laboratories::disk::rebuild::{Disk, Image, Luck, write_image};
use laboratories::work::notes::{FILE, Note};
use laboratories::work::retry::{Known, judge_image};
use laboratories::work::standing::Histories;
use testkit::Dice;
use testkit::control::violations_with;

use order::Order;
use recording::{Recording, Size};

const TEST: &str = "what_was_said_before_a_power_cut_holds_after_it";
/// How many recordings follow each other.
const GENERATIONS: usize = 2;
/// From so many cuts on, recordings are long.
const MANY: usize = 200;
/// How many cases are kept, and how many violations shown.
const KEPT: usize = 5;
const SHOWN: usize = 20;

/// How much one recording holds, and how often it is cut.
#[derive(Debug, Clone, Copy)]
struct Scale {
    size: Size,
    cuts: usize,
}

const SHORT: Scale = Scale { size: Size { rounds: 8, keys: 60 }, cuts: 15 };
const LONG: Scale = Scale { size: Size { rounds: 16, keys: 90 }, cuts: 30 };

/// What it has come to.
#[derive(Debug, Default)]
struct Figures {
    cuts: usize,
    opening: usize,
    recordings: usize,
    truncations: usize,
    used_again: usize,
    widest: usize,
    unsynced_blocks: usize,
    unsynced_names: usize,
    acknowledged: usize,
    violations: Vec<String>,
}

#[test]
fn what_was_said_before_a_power_cut_holds_after_it() {
    if let Some(plan) = workload::plan() {
        return workload::run(plan);
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let cuts = number("POWER_CUTS").unwrap_or(60);
    let seed = number("POWER_CUT_SEED").unwrap_or_else(testkit::dice::seed);
    println!("POWER_CUT_SEED={seed}");
    let scale = if cuts < MANY as u64 { SHORT } else { LONG };
    let chains = usize::try_from(cuts).unwrap().div_ceil(scale.cuts * GENERATIONS);
    let (next, figures) = (AtomicUsize::new(0), Mutex::new(Figures::default()));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let chain = next.fetch_add(1, Ordering::SeqCst);
                    if chain >= chains {
                        break;
                    }
                    follow(scale, &mut Dice::of(&[seed, chain as u64]), &format!("{seed}-{chain}"), &figures);
                    let Figures { cuts, violations, .. } = &*figures.lock().unwrap();
                    println!("so far: cuts {cuts}, violations {}", violations.len());
                }
            });
        }
    });
    report(&figures.into_inner().unwrap());
}

fn report(figures: &Figures) {
    figures.violations.iter().take(SHOWN).for_each(|violation| println!("{violation}"));
    let Figures { cuts, opening, recordings, truncations, used_again, unsynced_names, violations, .. } = figures;
    let on_average = |sum: usize| sum / cuts.max(&1);
    let widest = figures.widest / 1024;
    let (blocks, acknowledged) = (on_average(figures.unsynced_blocks), on_average(figures.acknowledged));
    let count = violations.len();
    println!(
        "power cut: recordings {recordings}, in which {used_again} segments were written again and {truncations} files cut, with at most {widest} KiB unsynced at a time; \
         on average {blocks} unsynced blocks and {acknowledged} acknowledged keys; {unsynced_names} unsynced names; \
         cuts {cuts}, of which {opening} while opening, violations {count}"
    );
    assert_eq!(count, 0);
    assert!(*opening > 0 && blocks > 0 && acknowledged > 0, "it shows nothing");
    // Segments are large; the short form may fill too few of them.
    assert!(*used_again > 0 || *cuts < MANY, "no space was used again");
}

/// Recordings, each on what a power cut left of the one before.
fn follow(scale: Scale, dice: &mut Dice, name: &str, figures: &Mutex<Figures>) {
    let (mut image, mut before) = (Image::new(), Vec::new());
    for generation in 0..GENERATIONS {
        let name = format!("{name}-{generation}");
        let recording = match Recording::make(scale.size, image, before, dice) {
            Ok(recording) => recording,
            Err(violation) => return figures.lock().unwrap().violations.push(format!("{name}: {violation}")),
        };
        let mut sound = cut(&recording, moments(&recording, scale.cuts, dice), dice, &name, figures);
        if sound.is_empty() {
            return;
        }
        let moment;
        (moment, image) = sound.swap_remove(dice.below(sound.len()));
        before = recording.notes_until(moment).cloned().collect();
    }
}

/// Cuts the power at some moments, and gives what it left where nothing was wrong with it.
fn cut(
    recording: &Recording,
    moments: Vec<usize>,
    dice: &mut Dice,
    name: &str,
    figures: &Mutex<Figures>,
) -> Vec<(usize, Image)> {
    let mut disk = Disk::holding(&recording.image);
    let (mut happened, mut sound) = (0, Vec::new());
    for moment in moments {
        recording.events[happened..moment].iter().for_each(|event| disk.happens(event));
        happened = moment;
        let luck = Luck::draw(dice);
        let mut image = disk.cut(luck, dice);
        image.remove(FILE);
        let standings = recording.standings(moment);
        let histories = Histories::of(&standings, recording.notes_until(moment));
        let (opens, acknowledged) = (standings.opens, histories.acknowledged());
        let known = Known { standings, histories };
        let wrong = judge_image(&image, &known);
        let mut figures = figures.lock().unwrap();
        figures.cuts += 1;
        figures.opening += usize::from(opens);
        figures.acknowledged += acknowledged;
        figures.unsynced_blocks += disk.unsynced_blocks();
        figures.unsynced_names += disk.unsynced_names();
        let name = format!("{name}-{moment}");
        if wrong.is_empty() {
            sound.push((moment, image));
        } else if figures.violations.len() < KEPT {
            let lengths: Vec<_> =
                image.iter().map(|(path, bytes)| (path, bytes.as_ref().map_or(0, Vec::len))).collect();
            let text = format!("at {}, opening: {opens}, {luck:?}, {lengths:?}", known.standings.now);
            keep(&name, &image, &format!("{text}\n{}\n", wrong.join("\n")));
            println!("{text}");
        }
        figures.violations.extend(wrong.into_iter().map(|line| format!("{name}: {line}")));
    }
    let mut figures = figures.lock().unwrap();
    figures.recordings += 1;
    figures.widest = figures.widest.max(disk.widest);
    let order = Order::of(&recording.events, recording.database_bytes());
    figures.used_again += order.used_again;
    figures.violations.extend(order.violations.into_iter().map(|line| format!("{name}: {line}")));
    figures.truncations += recording.events.iter().filter(|event| matches!(event, Event::Truncate { .. })).count();
    sound
}

/// Moments of a recording: some while the store is being opened, some right after an answer, some among the writes, the
/// rest anywhere.
fn moments(recording: &Recording, count: usize, dice: &mut Dice) -> Vec<usize> {
    let all = |wanted: fn(&Note) -> bool| {
        let found = recording.notes.iter().filter(move |(_, note)| wanted(note));
        found.map(|(at, _)| *at).collect::<Vec<_>>()
    };
    let (opening, opened) = (all(|note| *note == Note::Opening), all(|note| *note == Note::Opened));
    let openings: Vec<_> = opening.into_iter().zip(opened).collect();
    let answered = all(|note| matches!(note, Note::Told { .. } | Note::Settled { .. } | Note::Synced { .. }));
    // The event that wrote each block: most can be lost where most is written.
    let mut written = Vec::new();
    for (at, event) in recording.events.iter().enumerate() {
        if let Event::Write { path, data, .. } = event
            && path != FILE
        {
            written.extend(std::iter::repeat_n(at, data.len().div_ceil(4096)));
        }
    }
    let moment = |dice: &mut Dice| match dice.below(10) {
        0..=2 => {
            let (from, to) = dice.pick(&openings);
            from + 1 + dice.below(to - from)
        }
        3..=5 => dice.pick(&answered) + 1 + dice.below(3),
        6..=7 => dice.pick(&written) + dice.below(2),
        _ => dice.below(recording.events.len()),
    };
    let mut moments: Vec<_> = (0..count).map(|_| moment(dice).min(recording.events.len())).collect();
    moments.sort_unstable();
    moments
}

fn keep(name: &str, image: &Image, text: &str) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("power-cut-{name}"));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("it can be made");
    write_image(image, &directory);
    std::fs::write(directory.join("violations"), text).expect("there is room");
    println!("kept: {}", directory.display());
}

#[test]
fn where_fdatasync_does_nothing_a_power_cut_loses_answers() {
    let violations = violations_with(TEST, &[(LIE, "fdatasync"), ("POWER_CUTS", "60")]);
    println!("power cut where fdatasync does nothing: violations {violations}");
    assert!(violations > 0);
}
