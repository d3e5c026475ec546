//! The points at which the disk fails, and the consequences of each.

use std::sync::OnceLock;

use laboratories::disk::log;
use laboratories::disk::rebuild::{Disk, Image, Luck, read_image, write_image};
use laboratories::disk::{Counts, counts, quick_directory};
use laboratories::engine::Engine;
use laboratories::work::notes;
use laboratories::work::notes::{Found, Note};
use laboratories::work::retry::Known;
use laboratories::work::standing::{Histories, Standings};
use testkit::Dice;

use crate::judging::{judged, judged_image};
use crate::process::live;
use crate::scenario::{Act, START, plan_in};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A way in which the disk fails: the calls, once or from then on, and the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    kinds: &'static str,
    always: bool,
    errno: i32,
}

/// The modes of failure. A full disk takes no bytes and no names; a broken one does not sync either.
pub(crate) const MODES: [Mode; 5] = [
    Mode { kinds: "write,entry", always: false, errno: ENOSPC },
    Mode { kinds: "write,entry", always: true, errno: ENOSPC },
    Mode { kinds: "write,entry,sync", always: false, errno: EIO },
    Mode { kinds: "write,entry,sync", always: true, errno: EIO },
    // Some file systems find room for written bytes only when these are synced.
    Mode { kinds: "sync", always: false, errno: ENOSPC },
];

impl Mode {
    /// Returns the number of points for these numbers of calls.
    pub(crate) fn reaches(&self, calls: [u64; 3]) -> u64 {
        let kinds = ["write", "entry", "sync"];
        kinds
            .iter()
            .zip(calls)
            .filter(|(kind, _)| self.kinds.split(',').any(|mine| mine == **kind))
            .map(|(_, n)| n)
            .sum()
    }
}

/// The state in which the scenario begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The directory does not exist yet.
    Nothing,
    /// The directory is the one that an earlier process left.
    Something,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) from: From,
    pub(crate) mode: Mode,
    pub(crate) n: u64,
}

impl Point {
    fn fault(&self) -> String {
        let Mode { kinds, always, errno } = self.mode;
        format!("{kinds} {} {}:{errno}", self.n, if always { "always" } else { "once" })
    }
}

/// The consequences of a point.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) counts: Counts,
    pub(crate) notes: Vec<Note>,
    pub(crate) acknowledged: usize,
    pub(crate) wrong: Vec<String>,
}

impl Came {
    pub(crate) fn found(&self, wanted: fn(&Found) -> bool) -> bool {
        self.notes.iter().any(|note| matches!(note, Note::Found(found) if wanted(found)))
    }

    /// Returns the errors of opening that do not name both the directory and a remedy.
    pub(crate) fn unhelpful(&self) -> impl Iterator<Item = &String> {
        self.notes.iter().filter_map(|note| match note {
            Note::Found(Found::NotOpened(error)) if !says_what_to_do(error) => Some(error),
            _ => None,
        })
    }
}

/// Returns the directory that an earlier process left, and the notes of that process.
fn earlier(engine: Engine) -> &'static (Image, Vec<Note>) {
    static EARLIER: [OnceLock<(Image, Vec<Note>)>; Engine::ALL.len()] = [const { OnceLock::new() }; Engine::ALL.len()];
    EARLIER[engine as usize].get_or_init(|| {
        let directory = quick_directory();
        let plan = plan_in(engine, directory.path(), Act::Prepare, 60);
        live(&plan, directory.path(), None).expect("nothing fails");
        (read_image(&plan.data), notes::read_file(&plan.notes))
    })
}

/// Runs the scenario with a fault, or without one, and judges its answers and its directory.
pub(crate) fn strike(engine: Engine, point: Option<Point>, from: From, timeout: u64) -> Came {
    let directory = quick_directory();
    let plan = plan_in(engine, directory.path(), Act::Everything, timeout);
    let (image, mut all) = if from == From::Something { earlier(engine).clone() } else { Default::default() };
    write_image(&image, &plan.data);
    let lived = live(&plan, directory.path(), point.map(|point| point.fault()));
    let notes = notes::read_file(&plan.notes);
    all.extend(notes.iter().cloned());
    let mut came = Came { counts: counts(&plan.counts), notes, ..Came::default() };
    came.wrong.extend(lived.err());
    came.wrong.extend(wrong_in(&came.notes));
    let mut dice = Dice::new(point.map_or(0, |point| point.n));
    let mut disk = Disk::holding(&image);
    log::read(&directory.path().join("log")).iter().for_each(|event| disk.happens(event));
    let cut = disk.cut(Luck::draw(&mut dice), &mut dice);
    // The process starts again with a sound disk, or the power was cut as well: a failed write's pages may be gone.
    came.acknowledged = known(&all).histories.acknowledged();
    came.wrong.extend(judged_image(engine, &cut, &all).into_iter().map(|line| format!("after a power cut: {line}")));
    came.wrong.extend(judged(engine, &plan.data, &all));
    came
}

pub(crate) fn known(notes: &[Note]) -> Known {
    let standings = Standings::after(START, notes.iter());
    let histories = Histories::of(&standings, notes.iter());
    Known { standings, histories }
}

/// Returns the violations that the process itself found.
pub(crate) fn wrong_in(notes: &[Note]) -> Vec<String> {
    let wrong = |note: &Note| match note {
        Note::Found(Found::Wrong(what)) => Some(what.clone()),
        _ => None,
    };
    notes.iter().filter_map(wrong).collect()
}

/// Returns whether the error names a directory or a file, and a remedy for the operator.
fn says_what_to_do(error: &str) -> bool {
    let remedies = ["check ", "free ", "restore ", "restart ", "stop ", "start a new"];
    error.contains("/data") && remedies.iter().any(|remedy| error.contains(remedy))
}
