//! What the workload says of itself. Its notes go to a file in the recorded directory, one line each in one write: so
//! they are in the same log as the writes and the syncs, in order.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use crate::disk::log::Event;
use serde::{Deserialize, Serialize};

/// The file, next to the store's directory.
pub const FILE: &str = "notes";
pub const STORE: &str = "store";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Note {
    /// It is this late, or will be at once.
    Clock(u64),
    /// The store is being opened.
    Opening,
    Opened,
    /// A client sends the request of a key, or another request with it.
    Sent {
        ticket: u64,
        key: u64,
        other: bool,
    },
    /// And is answered.
    Told {
        ticket: u64,
        key: u64,
        said: Said,
        recorded: bool,
    },
    /// The handler begins, the effect takes place.
    Began(u64),
    Effect(u64),
    /// `sync` has answered: what the handler wrote to the application's own tree is durable.
    Synced {
        key: u64,
        value: u64,
    },
    /// An operator settles an operation, by an outcome or by forgetting it.
    Settling {
        key: u64,
        outcome: Option<String>,
    },
    Settled {
        key: u64,
        outcome: Option<String>,
    },
    /// What a laboratory finds out in the process itself.
    Found(Found),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Found {
    /// How many calls could have failed so far: writes, changes of names, syncs.
    Calls([u64; 3]),
    /// The store can't be opened, and says why.
    NotOpened(String),
    /// The store refuses everything from now on, and says why.
    Poisoned(String),
    /// A request was not answered for long, and the store's health says so.
    Stuck,
    /// What must not be.
    Wrong(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// An outcome, by its digest.
    Outcome(String),
    /// The handler's own word that nothing happened: the key is free.
    Freed,
    /// Refused, by the name of the problem.
    Refused(String),
}

/// Where the workload writes its notes.
#[derive(Debug, Clone)]
pub struct Notes(Arc<File>);

impl Notes {
    pub fn open(directory: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(directory.join(FILE)).expect("it can be opened");
        Self(Arc::new(file))
    }

    pub fn write(&self, note: &Note) {
        let mut line = serde_json::to_string(note).expect("notes are plain");
        line.push('\n');
        (&*self.0).write_all(line.as_bytes()).expect("there is room");
    }
}

/// The notes in a file.
pub fn read_file(directory: &Path) -> Vec<Note> {
    let text = std::fs::read_to_string(directory.join(FILE)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a note is written at once")).collect()
}

/// The notes in a log, each with the number of its event.
pub fn read(events: &[Event]) -> Vec<(usize, Note)> {
    let note = |(at, event): (usize, &Event)| match event {
        Event::Write { path, data, .. } if path == FILE => {
            Some((at, serde_json::from_slice(data).expect("a note is written at once")))
        }
        _ => None,
    };
    events.iter().enumerate().filter_map(note).collect()
}
