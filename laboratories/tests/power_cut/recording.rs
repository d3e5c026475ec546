//! A recording: the changes that some processes of the workload, one after the other, made to a directory.

use std::path::Path;
use std::time::Duration;

use laboratories::disk;
use laboratories::disk::log;
use laboratories::disk::log::Event;
use laboratories::disk::rebuild::{Disk, Image, read_image, write_image};
use laboratories::engine::Engine;
use laboratories::work::notes;
use laboratories::work::notes::{Note, STORE};
use laboratories::work::standing::{Standing, Standings};
use testkit::Dice;

use crate::TEST;
use crate::workload::{PLAN, Plan};

/// The time at the start of the first clock.
pub(crate) const START: u64 = 1_000_000_000;
/// The time that a process of the workload may take.
const BOUND: Duration = Duration::from_secs(180);

/// The size of a recording: the rounds in each process, and the keys in each round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rounds: usize,
    pub(crate) keys: usize,
}

#[derive(Debug)]
pub(crate) struct Recording {
    engine: Engine,
    /// The directory before the recording; all of it is durable.
    pub(crate) image: Image,
    /// The notes that led there.
    pub(crate) before: Vec<Note>,
    pub(crate) events: Vec<Event>,
    pub(crate) notes: Vec<(usize, Note)>,
}

impl Recording {
    /// Records a few processes that begin where `image` and `before` ended. Returns an error if one of them failed.
    pub(crate) fn make(
        engine: Engine,
        size: Size,
        image: Image,
        before: Vec<Note>,
        dice: &mut Dice,
    ) -> Result<Self, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let recorded = directory.path().join("recorded");
        std::fs::create_dir(&recorded).expect("it is new");
        write_image(&image, &recorded);
        let log = directory.path().join("log");
        let mut recording = Self { engine, image, before, events: Vec::new(), notes: Vec::new() };
        let processes = 1 + dice.below(2);
        for process in 0..=processes {
            let abort = process < processes || dice.percent(50);
            let openings = 1 + dice.below(2);
            let plan = recording.plan(size, &recorded, dice, openings, abort);
            live(&plan, directory.path())?;
            recording.events = log::read(&log);
            recording.notes = notes::read(&recording.events);
        }
        recording.assert_complete(&recorded);
        Ok(recording)
    }

    fn plan(&self, size: Size, directory: &Path, dice: &mut Dice, openings: usize, abort: bool) -> Plan {
        let standings = self.standings(self.events.len());
        let is_cut = |standing| {
            matches!(standing, Standing::Sent | Standing::Began | Standing::Interrupted | Standing::Settling { .. })
        };
        let cut = standings.keys.iter().filter(|(_, of_key)| is_cut(of_key.standing));
        Plan {
            engine: self.engine,
            directory: directory.canonicalize().expect("it is there"),
            seed: dice.roll(),
            clock: standings.now,
            first: standings.next,
            known: standings.keys.keys().copied().filter(|_| dice.percent(50)).collect(),
            cut: cut.map(|(key, of_key)| (*key, of_key.took_place)).collect(),
            openings,
            rounds: size.rounds / openings,
            keys: size.keys,
            abort,
        }
    }

    /// Returns the notes before event `at`.
    pub(crate) fn notes_until(&self, at: usize) -> impl Iterator<Item = &Note> {
        let until = self.notes.partition_point(|(noted, _)| *noted < at);
        self.before.iter().chain(self.notes[..until].iter().map(|(_, note)| note))
    }

    pub(crate) fn standings(&self, at: usize) -> Standings {
        Standings::after(START, self.notes_until(at))
    }

    /// Returns the events between two notes, which come in turn: the first is the earlier note.
    pub(crate) fn between(&self, begins: &Note, ends: &Note) -> Vec<(usize, usize)> {
        let all = |wanted: &Note| {
            let found = self.notes.iter().filter(move |(_, note)| note == wanted);
            found.map(|(at, _)| *at).collect::<Vec<_>>()
        };
        all(begins).into_iter().zip(all(ends)).collect()
    }

    /// Returns the sweeps in which something was written.
    pub(crate) fn sweeps(&self) -> Vec<(usize, usize)> {
        let mut sweeps = self.between(&Note::Sweeping, &Note::Swept);
        sweeps.retain(|(from, to)| from + 1 < *to);
        sweeps
    }

    /// Returns the length of sled's log before the recording.
    pub(crate) fn database_bytes(&self) -> u64 {
        let database = self.image.get(&format!("{STORE}/db")).and_then(Option::as_ref);
        database.map_or(0, |content| content.len() as u64)
    }

    /// Asserts that nothing is missing: the recorded events lead to the directory's content.
    fn assert_complete(&self, directory: &Path) {
        let mut disk = Disk::holding(&self.image);
        self.events.iter().for_each(|event| disk.happens(event));
        let (rebuilt, real) = (disk.whole(), read_image(directory));
        assert!(rebuilt.keys().eq(real.keys()), "{:?}, not {:?}", rebuilt.keys(), real.keys());
        for (path, content) in &real {
            assert!(rebuilt[path] == *content, "{path} is not what was recorded");
        }
    }
}

/// Runs a process of the workload to its end, and records it in `directory`.
fn live(plan: &Plan, directory: &Path) -> Result<(), String> {
    let mut command = disk::this_program(TEST, &plan.directory);
    command.env("DISK_PRELOAD_LOG", directory.join("log"));
    command.env(PLAN, serde_json::to_string(plan).expect("plans are plain"));
    // `abort` in the preloaded library ends a process with 134.
    let expected = if plan.abort { 134 } else { 0 };
    match disk::live(command, directory, BOUND) {
        (Some(status), _) if status.code() == Some(expected) => Ok(()),
        (Some(status), said) => Err(format!("a process of the workload failed: {status}\n{said}")),
        (None, said) => Err(format!("a process of the workload did not end in {BOUND:?}\n{said}")),
    }
}
