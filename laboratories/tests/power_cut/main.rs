//! No acknowledged key is lost in a power cut. The test opens the store as it would be if only the synced data and a
//! random part of the rest had survived.
//!
//! A workload runs in processes of its own, under a preloaded library that records, in one order, every change of the
//! store's directory, every sync, and the answers that clients got. Its end, and a random choice of moments before it,
//! is taken for a power cut: `src/disk/rebuild.rs` decides what is left then. One of these moments begins the next
//! recording, so that the store goes on with what a power cut left, and is cut again. The rules are in `standing.rs`
//! and in the history checker. `order.rs` looks, without any luck, for space that sled used again too early.
//!
//! The long form of one engine; its last line has the figures:
//!
//! ```text
//! ENGINE=sled POWER_CUTS=5000 cargo test -p laboratories --test power_cut what -- --nocapture
//! ```
//!
//! `POWER_CUT_SEED` repeats the random choices of a run, whose seed it prints; the order of a workload's threads is not
//! one of them. So the directory that shows a violation is kept, and the line says where.
//!
//! The control has a disk on which `fdatasync` succeeds and does nothing.
#![cfg(target_os = "linux")]

mod checker;
mod files;
mod order;
mod recording;
mod workload;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use laboratories::disk::LIE;
use laboratories::disk::content::Content;
use laboratories::disk::log::Event;
use laboratories::disk::rebuild::{Disk, Image, Luck, write_image};
use laboratories::engine::{ENGINE, Engine};
use laboratories::work::notes::{FILE, Note};
use laboratories::work::retry::{Known, judge_image};
use laboratories::work::standing::Histories;
use testkit::Dice;
use testkit::control::violations_with;
use testkit::dice::number;

use files::Files;
use order::Order;
use recording::{Recording, Size};

const TEST: &str = "what_was_said_before_a_power_cut_holds_after_it";
/// The number of cuts from which on recordings are long.
const MANY: usize = 200;
/// The number of cases that are kept, and of violations that are shown.
const KEPT: usize = 5;
const SHOWN: usize = 20;

/// The size of one recording, and the number of its cuts.
#[derive(Debug, Clone, Copy)]
struct Scale {
    size: Size,
    cuts: usize,
    /// The number of recordings in a chain.
    generations: usize,
}

const SHORT: Scale = Scale { size: Size { rounds: 8, keys: 60 }, cuts: 8, generations: 2 };
/// In a chain of three, fjall begins another journal.
const LONG: Scale = Scale { size: Size { rounds: 16, keys: 90 }, cuts: 30, generations: 3 };

/// The figures of all recordings.
#[derive(Debug, Default)]
struct Figures {
    cuts: usize,
    opening: usize,
    sweeping: usize,
    recordings: usize,
    truncations: usize,
    used_again: usize,
    files: Files,
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
    let cuts: usize = number("POWER_CUTS").unwrap_or(32);
    let seed = number("POWER_CUT_SEED").unwrap_or_else(testkit::dice::seed);
    println!("POWER_CUT_SEED={seed}");
    for engine in Engine::chosen() {
        report(engine, &cut_often(engine, cuts, seed));
    }
}

/// Cuts the power so many times.
fn cut_often(engine: Engine, cuts: usize, seed: u64) -> Figures {
    let scale = if cuts < MANY { SHORT } else { LONG };
    let chains = cuts.div_ceil(scale.cuts * scale.generations);
    let (next, figures) = (AtomicUsize::new(0), Mutex::new(Figures::default()));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let chain = next.fetch_add(1, Ordering::SeqCst);
                    if chain >= chains {
                        break;
                    }
                    let name = format!("{engine}-{seed}-{chain}");
                    follow(engine, scale, &mut Dice::of(&[seed, chain as u64]), &name, &figures);
                    let Figures { cuts, violations, .. } = &*figures.lock().unwrap();
                    println!("so far: cuts {cuts}, violations {}", violations.len());
                }
            });
        }
    });
    figures.into_inner().unwrap()
}

fn report(engine: Engine, figures: &Figures) {
    figures.violations.iter().take(SHOWN).for_each(|violation| println!("{violation}"));
    let Figures {
        cuts, opening, sweeping, recordings, truncations, used_again, files, unsynced_names, violations, ..
    } = figures;
    let on_average = |sum: usize| sum / cuts.max(&1);
    let widest = figures.widest / 1024;
    let (blocks, acknowledged) = (on_average(figures.unsynced_blocks), on_average(figures.acknowledged));
    let count = violations.len();
    let (space, is_used_again) = match engine {
        Engine::Sled => (format!("{used_again} segments were written again"), *used_again > 0),
        Engine::Fjall => (files.to_string(), files.are_used_up()),
    };
    println!(
        "power cut on {engine}: recordings {recordings}, in which {space} and {truncations} files cut, with at most {widest} \
         KiB unsynced at a time; \
         on average {blocks} unsynced blocks and {acknowledged} acknowledged keys; {unsynced_names} unsynced names; \
         cuts {cuts}, of which {opening} while opening and {sweeping} amid a sweep, violations {count}"
    );
    assert_eq!(count, 0);
    assert!(*opening > 0 && blocks > 0 && acknowledged > 0, "it shows nothing");
    // Segments are large; the short form may fill too few of them.
    assert!(is_used_again || *cuts < MANY, "no space was used again");
    // In a short recording little expires.
    assert!(*sweeping > 0 || *cuts < MANY, "no cut came amid a sweep");
}

/// Makes recordings, each on the directory that a power cut of the one before left.
fn follow(engine: Engine, scale: Scale, dice: &mut Dice, name: &str, figures: &Mutex<Figures>) {
    let (mut image, mut before) = (Image::new(), Vec::new());
    for generation in 0..scale.generations {
        let name = format!("{name}-{generation}");
        let recording = match Recording::make(engine, scale.size, image, before, dice) {
            Ok(recording) => recording,
            Err(violation) => return figures.lock().unwrap().violations.push(format!("{name}: {violation}")),
        };
        let mut sound = cut(engine, &recording, moments(&recording, scale.cuts, dice), dice, &name, figures);
        if sound.is_empty() {
            return;
        }
        let moment;
        (moment, image) = sound.swap_remove(dice.below(sound.len()));
        before = recording.notes_until(moment).cloned().collect();
    }
}

/// Cuts the power at some moments, and returns what it left in a case without a violation.
fn cut(
    engine: Engine,
    recording: &Recording,
    moments: Vec<usize>,
    dice: &mut Dice,
    name: &str,
    figures: &Mutex<Figures>,
) -> Vec<(usize, Image)> {
    let mut disk = Disk::holding(&recording.image);
    let (mut happened, mut sound, sweeps) = (0, Vec::new(), recording.sweeps());
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
        let wrong = judge_image(engine, &image, &known);
        let mut figures = figures.lock().unwrap();
        figures.cuts += 1;
        figures.opening += usize::from(opens);
        figures.sweeping += usize::from(sweeps.iter().any(|(from, to)| from + 1 < moment && moment <= *to));
        figures.acknowledged += acknowledged;
        figures.unsynced_blocks += disk.unsynced_blocks();
        figures.unsynced_names += disk.unsynced_names();
        let name = format!("{name}-{moment}");
        if wrong.is_empty() {
            sound.push((moment, image));
        } else if figures.violations.len() < KEPT {
            let lengths: Vec<_> =
                image.iter().map(|(path, bytes)| (path, bytes.as_ref().map_or(0, Content::len))).collect();
            let text = format!("at {}, opening: {opens}, {luck:?}, {lengths:?}", known.standings.now);
            keep(&name, &image, &format!("{text}\n{}\n", wrong.join("\n")));
            println!("{text}");
        }
        figures.violations.extend(wrong.into_iter().map(|line| format!("{name}: {line}")));
    }
    let mut figures = figures.lock().unwrap();
    figures.recordings += 1;
    figures.widest = figures.widest.max(disk.widest);
    match engine {
        Engine::Sled => {
            let order = Order::of(&recording.events, recording.database_bytes());
            figures.used_again += order.used_again;
            figures.violations.extend(order.violations.into_iter().map(|line| format!("{name}: {line}")));
        }
        Engine::Fjall => figures.files.count(&recording.events),
    }
    figures.truncations += recording.events.iter().filter(|event| matches!(event, Event::Truncate { .. })).count();
    sound
}

/// Returns moments of a recording: some while the store is being opened, some right after an answer, some among the
/// writes, some amid a sweep, some where the engine makes, renames or removes a file, and the rest anywhere.
fn moments(recording: &Recording, count: usize, dice: &mut Dice) -> Vec<usize> {
    let (openings, sweeps) = (recording.between(&Note::Opening, &Note::Opened), recording.sweeps());
    let is_answer = |note: &Note| matches!(note, Note::Told { .. } | Note::Settled { .. } | Note::Synced { .. });
    let answered: Vec<_> = recording.notes.iter().filter(|(_, note)| is_answer(note)).map(|(at, _)| *at).collect();
    // The names of an engine's files, and which of them are in use.
    let is_name = |event: &Event| matches!(event, Event::Create(_) | Event::Rename { .. } | Event::Remove(_));
    let named: Vec<_> = (0..recording.events.len()).filter(|at| is_name(&recording.events[*at])).collect();
    let is_journal = |at: &usize| match &recording.events[*at] {
        Event::Create(path) | Event::Remove(path) => path.ends_with(".jnl"),
        _ => false,
    };
    let journals: Vec<_> = named.iter().copied().filter(is_journal).collect();
    // This has the event that wrote each block: most can be lost where most is written.
    let mut written = Vec::new();
    for (at, event) in recording.events.iter().enumerate() {
        if let Event::Write { path, data, .. } = event
            && path != FILE
        {
            written.extend(std::iter::repeat_n(at, data.len().div_ceil(4096)));
        }
    }
    let amid = |dice: &mut Dice, spans: &[(usize, usize)]| {
        let (from, to) = dice.pick(spans);
        from + 1 + dice.below(to - from)
    };
    let moment = |dice: &mut Dice| match dice.below(10) {
        0..=2 => amid(dice, &openings),
        3..=4 => dice.pick(&answered) + 1 + dice.below(3),
        5 => {
            let names = if journals.is_empty() || dice.percent(50) { &named } else { &journals };
            dice.pick(names) + dice.below(12)
        }
        6..=7 => dice.pick(&written) + dice.below(2),
        8 if !sweeps.is_empty() => amid(dice, &sweeps),
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
    for engine in Engine::chosen() {
        let violations = violations_with(TEST, &[(ENGINE, engine.name()), (LIE, "fdatasync"), ("POWER_CUTS", "16")]);
        println!("power cut on {engine} where fdatasync does nothing: violations {violations}");
        assert!(violations > 0);
    }
}
