//! A recording: what some processes of the workload, one after the other, did to a directory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use laboratories::disk::log;
use laboratories::disk::log::Event;
use laboratories::disk::rebuild::{Disk, Image, read_image, write_image};
use laboratories::disk::this_program;
use laboratories::work::notes;
use laboratories::work::notes::{Note, STORE};
use laboratories::work::standing::{Standing, Standings};
use testkit::Dice;
use testkit::process::ended;

use crate::TEST;
use crate::workload::{PLAN, Plan};

/// When the first clock of all starts.
pub(crate) const START: u64 = 1_000_000_000;
/// How long a process of the workload may take.
const BOUND: Duration = Duration::from_secs(180);

/// How much is recorded: so many rounds in each process, of so many keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rounds: usize,
    pub(crate) keys: usize,
}

#[derive(Debug)]
pub(crate) struct Recording {
    /// The directory as it was before; all of it durable.
    pub(crate) image: Image,
    /// The notes that led there.
    pub(crate) before: Vec<Note>,
    pub(crate) events: Vec<Event>,
    pub(crate) notes: Vec<(usize, Note)>,
}

impl Recording {
    /// Records a few processes that begin where `image` and `before` ended. An error: one of them failed.
    pub(crate) fn make(size: Size, image: Image, before: Vec<Note>, dice: &mut Dice) -> Result<Self, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let recorded = directory.path().join("recorded");
        std::fs::create_dir(&recorded).expect("it is new");
        write_image(&image, &recorded);
        let log = directory.path().join("log");
        let mut recording = Self { image, before, events: Vec::new(), notes: Vec::new() };
        let processes = 1 + dice.below(2);
        for process in 0..=processes {
            let abort = process < processes || dice.percent(50);
            let openings = 1 + dice.below(2);
            let plan = recording.plan(size, &recorded, dice, openings, abort);
            live(&plan, &recorded, &log)?;
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

    /// The notes before event `at`.
    pub(crate) fn notes_until(&self, at: usize) -> impl Iterator<Item = &Note> {
        let until = self.notes.partition_point(|(noted, _)| *noted < at);
        self.before.iter().chain(self.notes[..until].iter().map(|(_, note)| note))
    }

    pub(crate) fn standings(&self, at: usize) -> Standings {
        Standings::after(START, self.notes_until(at))
    }

    /// How long the database was before.
    pub(crate) fn database_bytes(&self) -> u64 {
        let database = self.image.get(&format!("{STORE}/db")).and_then(Option::as_ref);
        database.map_or(0, |bytes| bytes.len() as u64)
    }

    /// Nothing slips through: what was recorded leads to what is there.
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

/// Lets a process of the workload live to its end.
fn live(plan: &Plan, directory: &Path, log: &Path) -> Result<(), String> {
    let mut command: Command = this_program(TEST, directory);
    command.env("DISK_PRELOAD_LOG", log).env(PLAN, serde_json::to_string(plan).expect("plans are plain"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let mut child = command.spawn().expect("this program can be started again");
    let status = ended(&mut child, BOUND);
    // 134: by its own hand, as `abort` is in the preloaded library.
    let expected = if plan.abort { 134 } else { 0 };
    match status {
        Some(status) if status.code() == Some(expected) => Ok(()),
        Some(status) => Err(format!("a process of the workload failed: {status}")),
        None => Err(format!("a process of the workload did not end in {BOUND:?}")),
    }
}
