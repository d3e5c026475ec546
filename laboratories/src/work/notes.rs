//! The notes of the workload. They go to a file in the recorded directory, one line each in one write. So they are in
//! the same log as the writes and the syncs, in order.

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
    /// The time is this, or will be at once.
    Clock(u64),
    /// The store is being opened.
    Opening,
    Opened,
    /// The records that are past their time are being deleted.
    Sweeping,
    Swept,
    /// A client sends the request of a key, or another request with it.
    Sent {
        ticket: u64,
        key: u64,
        other: bool,
    },
    /// The client is answered.
    Told {
        ticket: u64,
        key: u64,
        said: Said,
        recorded: bool,
    },
    /// The handler begins, the effect takes place.
    Began(u64),
    Effect(u64),
    /// `sync` has answered: the handler's write to the application's own table is durable.
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
    /// A finding of a laboratory in the process itself.
    Found(Found),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Found {
    /// The number of calls that could have failed so far: writes, changes of names, syncs.
    Calls([u64; 3]),
    /// The store can't be opened, for this reason.
    NotOpened(String),
    /// The store refuses everything from now on, for this reason.
    Poisoned(String),
    /// A request was not answered for long, and the store's health reports that.
    Stuck,
    /// A violation.
    Wrong(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// An outcome, by its digest.
    Outcome(String),
    /// The handler's own report that it had no effect: the key is free.
    Freed,
    /// A refusal, by the name of the problem.
    Refused(String),
}

/// The file to which the workload writes its notes.
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
