//! The preloaded library's log. Its form is described in `laboratories/preload/src/log.rs`.

use std::path::Path;

use bytes::{Buf as _, Bytes};

/// An event. Paths are relative to the recorded directory.
#[derive(Debug, Clone)]
pub enum Event {
    Process,
    Create(String),
    MakeDirectory(String),
    Rename { from: String, to: String },
    Remove(String),
    Write { path: String, offset: u64, data: Bytes },
    Truncate { path: String, length: u64 },
    SyncBegins { path: String, number: u64 },
    SyncEnds { number: u64 },
}

/// All events, in order.
pub fn read(path: &Path) -> Vec<Event> {
    let mut bytes = Bytes::from(std::fs::read(path).expect("the log is there"));
    let mut events = Vec::new();
    while !bytes.is_empty() {
        events.push(next(&mut bytes));
    }
    events
}

fn next(bytes: &mut Bytes) -> Event {
    let kind = bytes.get_u8();
    let (path, data) = (bytes.get_u32_le() as usize, bytes.get_u32_le() as usize);
    let number = bytes.get_u64_le();
    let path = text(&bytes.split_to(path));
    let data = bytes.split_to(data);
    match kind {
        0 => Event::Process,
        1 => Event::Create(path),
        2 => Event::MakeDirectory(path),
        3 => Event::Rename { from: path, to: text(&data) },
        4 => Event::Remove(path),
        5 => Event::Write { path, offset: number, data },
        6 => Event::Truncate { path, length: number },
        7 => Event::SyncBegins { path, number },
        8 => Event::SyncEnds { number },
        other => panic!("an event of kind {other}: the log is torn"),
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("paths of the laboratory are text")
}
